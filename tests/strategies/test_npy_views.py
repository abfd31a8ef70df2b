"""Views of a message's arrays equal what Flower decodes; nothing else passes."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import Array
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from strategies.npy_views import view_array

DTYPES = st.one_of(
    hnp.floating_dtypes(), hnp.integer_dtypes(), hnp.boolean_dtypes(), hnp.complex_number_dtypes()
)
ARRAYS = hnp.arrays(DTYPES, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))


@given(values=ARRAYS, fortran=st.booleans())
def test_a_view_has_the_values_flower_decodes(values: np.ndarray, fortran: bool) -> None:
    """Any type, shape and memory order: same type, shape and bits."""
    array = Array(np.asfortranarray(values) if fortran else values)
    found, expected = view_array(array), array.numpy()
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert found.tobytes() == expected.tobytes()


def test_a_view_copies_nothing_and_cannot_be_written() -> None:
    """The memory is the message's, so it must not change."""
    array = Array(np.arange(5, dtype=np.float32))
    found = view_array(array)
    assert not found.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 1


DATA = Array(np.arange(6, dtype=np.float32)).data


@pytest.mark.parametrize(
    "data",
    [
        DATA[:-1],
        DATA[:20],
        b"",
        b"PK\x03\x04" + DATA,
        DATA[:6] + b"\x09\x00" + DATA[8:],
        DATA.replace(b"(6,)", b"(-6,"),
        DATA.replace(b"(6,)", b"(9,)"),
        DATA.replace(b"(6,)", b"(10**15,)"),
        DATA.replace(b"(6,), }" + b" " * 20, b"(1000000000000000,), }     "),
        DATA.replace(b"(6,), }" + b" " * 20, b"(" * 26 + b","),
        DATA.replace(b"<f4", b"|O8"),
        DATA.replace(b"<f4", b"|V0"),
        DATA.replace(b"<f4", b"os)"),
        DATA.replace(b"'descr'", b"'other'"),
    ],
)
def test_what_is_no_whole_array_is_refused(data: bytes) -> None:
    """What is cut, forged, pickled or an archive is a ValueError, which the screening of replies expects."""
    with pytest.raises(ValueError, match=r"^an array"):
        view_array(Array("float32", (6,), "numpy.ndarray", data))


def test_another_serialisation_is_refused() -> None:
    """Only numpy's own format is decoded."""
    with pytest.raises(ValueError, match="'pickle' is not"):
        view_array(Array("float32", (6,), "pickle", DATA))
