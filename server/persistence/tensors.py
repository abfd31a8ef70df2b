"""Named arrays as one file, and the hash of what is in them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from reconsent.errors import StateError

Array = npt.NDArray[np.generic]


def canonical(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The same arrays in C order and little-endian, by name.

    Safetensors writes an array's memory as it lies; transposed ones would come back scrambled.
    """
    return {
        name: np.asarray(arrays[name], dtype=arrays[name].dtype.newbyteorder("<"), order="C")
        for name in sorted(arrays)
    }


def content_hash(arrays: Mapping[str, Array]) -> str:
    """SHA-256 over name, dtype, shape and little-endian bytes of every array, in the order of the names.

    It says what a model is, independent of file formats and of the order of its arrays: each array enters
    as ``name NUL dtype NUL shape NUL length NUL bytes`` with the shape as ``2,3`` and the length in bytes,
    all but the last as UTF-8 text.
    """
    digest = hashlib.sha256()
    for name, array in canonical(arrays).items():
        shape = ",".join(map(str, array.shape))
        digest.update(f"{name}\0{_type_name(array.dtype)}\0{shape}\0{array.nbytes}\0".encode())
        digest.update(array.data if array.size else b"")
    return digest.hexdigest()


@lru_cache(maxsize=64)
def _type_name(dtype: np.dtype[Any]) -> str:
    return dtype.name


def pack(arrays: Mapping[str, Array]) -> bytes:
    """The arrays as a safetensors file; equal arrays give equal bytes.

    Raises
    ------
    StateError
        If an array has a type that safetensors does not know.
    """
    try:
        content: bytes = save(canonical(arrays))
    except SafetensorError as error:
        types = ", ".join(sorted({array.dtype.name for array in arrays.values()}))
        raise StateError(
            f"A model with arrays of type {types} cannot be stored: {error}.",
            "Convert them to float32 (or another type that safetensors has) first.",
        ) from error
    return content


def unpack(content: bytes) -> dict[str, Array]:
    """The arrays of a safetensors file.

    Raises
    ------
    ValueError
        If the content is truncated or is no safetensors file.
    """
    try:
        return dict(load(content))
    except SafetensorError as error:
        raise ValueError(str(error)) from error
