"""Arrays of a Flower message without copying or parsing them anew."""

from __future__ import annotations

import math
from functools import lru_cache
from io import BytesIO
from tokenize import TokenError
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import Array

_VERSION_1 = b"\x93NUMPY\x01\x00"
_HEADER_AT = len(_VERSION_1)


def view_array(array: Array) -> npt.NDArray[np.generic]:
    """The array as a read-only view of the message's bytes.

    ``Array.numpy()`` parses a Python literal for each array of each reply, which for a model of many small
    arrays takes longer than all the rest of a round; here each distinct header is parsed once. And nothing a
    site sends makes this allocate memory, unpack an archive, or raise anything but the error below.

    Raises
    ------
    ValueError
        If it is not what Flower makes of a numpy array: a whole file in version 1 of numpy's format.
    """
    data = array.data
    if array.stype != "numpy.ndarray" or data[:_HEADER_AT] != _VERSION_1:
        raise ValueError(f"an array of type '{array.stype}' is not in version 1 of numpy's format")
    begin = _HEADER_AT + 2 + int.from_bytes(data[_HEADER_AT : _HEADER_AT + 2], "little")
    try:
        shape, fortran_order, dtype = _parse(bytes(data[_HEADER_AT:begin]))
    except (ValueError, TypeError, SyntaxError, TokenError, RecursionError, MemoryError) as error:
        raise ValueError(f"an array's header cannot be read ({error})") from None
    if dtype.hasobject or dtype.itemsize == 0:
        raise ValueError(f"an array has dtype {dtype}, which is no number")
    count = math.prod(shape)
    if not 0 <= count * dtype.itemsize <= len(data) - begin:
        raise ValueError(f"an array of shape {shape} is cut off after {len(data)} bytes")
    values = np.frombuffer(data, dtype, count, begin) if count else np.empty(0, dtype)
    return values.reshape(shape, order="F" if fortran_order else "C")


@lru_cache(maxsize=512)
def _parse(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    return np.lib.format.read_array_header_1_0(BytesIO(header))
