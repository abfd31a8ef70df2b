"""Vector files are the very files that the safetensors library writes, and are read as it reads them."""

from __future__ import annotations

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from unlearning.vector_files import VectorType, decode, encode

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


def test_float32_is_not_copied() -> None:
    """The pieces of a float32 file are the vectors' own memory."""
    vector = np.zeros(4, dtype=np.float32)
    _, data = encode({"sum": vector}, "float32")
    vector[0] = 1.0
    assert bytes(data) == vector.tobytes()
