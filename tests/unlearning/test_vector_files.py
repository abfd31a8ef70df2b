"""Vector files are the very files that the safetensors library writes, and are read as it reads them."""

from __future__ import annotations

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from unlearning.vector_files import VectorType, blocks, decode, encode

NUMBERS = st.floats(width=32, allow_nan=False, allow_subnormal=True)
VECTORS = st.dictionaries(
    st.sampled_from(["sum", "specific", "update"]),
    hnp.arrays(np.float32, st.integers(0, 40), elements=NUMBERS),
    min_size=1,
)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@given(vectors=VECTORS)
def test_bytes_are_those_of_the_library(dtype: VectorType, vectors: dict[str, np.ndarray]) -> None:
    """Any vectors give byte for byte what safetensors.torch.save gives."""
    target = torch.float32 if dtype == "float32" else torch.bfloat16
    expected = safetensors.torch.save({k: torch.from_numpy(v).to(target) for k, v in vectors.items()})
    assert b"".join(encode(vectors, dtype)) == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@given(vectors=VECTORS)
def test_reading_is_that_of_the_library(dtype: torch.dtype, vectors: dict[str, np.ndarray]) -> None:
    """Any file of the library is read to the same numbers, bit for bit, metadata or not."""
    tensors = {name: torch.from_numpy(vector).to(dtype) for name, vector in vectors.items()}
    found = decode(safetensors.torch.save(tensors, metadata={"by": "hand"}))
    assert found.keys() == vectors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == np.float32
        assert found[name].tobytes() == tensor.to(torch.float32).numpy().tobytes()


def test_what_is_no_number_stays_none() -> None:
    """NaN, whatever its bits, is NaN when a bfloat16 file is read; infinities keep their sign."""
    odd = np.array([0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001], np.uint32).view(np.float32)
    found = decode(b"".join(encode({"a": odd, "b": np.array([np.inf, -np.inf], np.float32)}, "bfloat16")))
    assert np.isnan(found["a"]).all()
    assert found["b"].tolist() == [np.inf, -np.inf]


def test_bfloat16_is_made_in_blocks() -> None:
    """A long vector is converted piece by piece, to what the library gives."""
    vector = np.random.default_rng(0).standard_normal(600_000, dtype=np.float32)
    _, *data = (bytes(piece) for piece in encode({"update": vector}, "bfloat16"))
    assert max(map(len, data)) <= 2**19 < vector.size * 2
    assert b"".join(data) == torch.from_numpy(vector).to(torch.bfloat16).view(torch.uint8).numpy().tobytes()


def test_float32_is_not_copied() -> None:
    """The pieces of a float32 file are the vectors' own memory."""
    vector = np.zeros(4, dtype=np.float32)
    _, data = encode({"sum": vector}, "float32")
    vector[0] = 1.0
    assert bytes(data) == vector.tobytes()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@given(vectors=VECTORS, size=st.integers(1, 70))
def test_blocks_are_what_is_read_whole(dtype: VectorType, vectors: dict[str, np.ndarray], size: int) -> None:
    """Whatever pieces a file comes in, its blocks joined are its vectors, in the order of their names."""
    content = b"".join(encode(vectors, dtype))
    found = list(blocks(content[at : at + size] for at in range(0, len(content), size)))
    assert [name for name, _ in found] == sorted(name for name, _ in found)
    for name, vector in decode(content).items():
        joined = b"".join(block.tobytes() for n, block in found if n == name)
        assert joined == vector.tobytes()


@pytest.mark.parametrize("cut", [3, 20, 90, -1, None])
def test_blocks_of_a_cut_or_longer_file_are_refused(cut: int | None) -> None:
    """A file that is cut off anywhere, or goes on after its vectors, does not end as if it were whole."""
    content = b"".join(encode({"sum": np.ones(9, np.float32)}, "float32"))
    content = content[:cut] if cut is not None else content + b"x"
    with pytest.raises(ValueError, match=r"cut off|longer"):
        list(blocks([content]))
