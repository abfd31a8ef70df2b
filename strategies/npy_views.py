"""Arrays of a Flower message without copying or parsing them anew."""

from __future__ import annotations

import math
from functools import lru_cache
from io import BytesIO
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from flwr.app import Array

_VERSION_1 = b"\x93NUMPY\x01\x00"
_HEADER_AT = len(_VERSION_1)


def view_array(array: Array) -> npt.NDArray[np.generic]:
    """The array as a read-only view of the message's bytes.

    ``Array.numpy()`` parses a Python literal for each array of each reply, which for a model of many small
    arrays takes longer than all the rest of a round; here each distinct header is parsed once. What is not of
    the usual format goes the usual way.

    Raises
    ------
    ValueError, TypeError, EOFError
        If it cannot be decoded, as by ``Array.numpy()``.
    """
    data = array.data
    if array.stype != "numpy.ndarray" or data[:_HEADER_AT] != _VERSION_1:
        return cast("npt.NDArray[np.generic]", array.numpy())
    begin = _HEADER_AT + 2 + int.from_bytes(data[_HEADER_AT : _HEADER_AT + 2], "little")
    shape, fortran_order, dtype = _parse(bytes(data[_HEADER_AT:begin]))
    count = math.prod(shape)
    wanted = count * dtype.itemsize
    if dtype.hasobject or wanted <= 0 or len(data) - begin < wanted:
        return cast("npt.NDArray[np.generic]", array.numpy())
    values = np.frombuffer(data, dtype, count, begin)
    return values.reshape(shape, order="F" if fortran_order else "C")


@lru_cache(maxsize=512)
def _parse(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    return np.lib.format.read_array_header_1_0(BytesIO(header))
