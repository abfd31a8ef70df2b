"""Model parameters as one flat vector, so that updates can be added, measured and projected."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from reconsent.errors import ContributionError

Arrays = Mapping[str, npt.NDArray[np.generic]]
"""A model's named arrays (a state dict), in the model's own order."""

Vector = npt.NDArray[np.float32]
"""All floating-point parameters of a model, float32, ``(P,)``."""


@dataclass(frozen=True, slots=True)
class ParameterLayout:
    """Names, shapes and dtypes of a model's arrays, and the way from them to one vector and back.

    Only floating-point arrays enter the vector. Others (integer counters, boolean masks) are *buffers*:
    they carry no gradient, and averaging or ascending on them would be meaningless.

    Attributes
    ----------
    entries
        ``(name, shape, dtype)`` of every array, in order.
    """

    entries: tuple[tuple[str, tuple[int, ...], str], ...]

    @classmethod
    def of(cls, arrays: Arrays) -> ParameterLayout:
        """The layout of ``arrays``."""
        return cls(tuple((name, tuple(a.shape), _dtype_name(a.dtype)) for name, a in arrays.items()))

    @property
    def size(self) -> int:
        """Number of floating-point parameters ``P``."""
        return sum(_count(shape) for _, shape, dtype in self.entries if _is_float(dtype))

    def mismatch(self, arrays: Arrays) -> str | None:
        """The first way in which ``arrays`` differ from this layout, in words; ``None`` if they fit."""
        expected = {name: (shape, dtype) for name, shape, dtype in self.entries}
        missing = [name for name in expected if name not in arrays]
        if missing:
            return f"array '{missing[0]}' is missing ({len(missing)} of {len(expected)} in all)"
        foreign = [name for name in arrays if name not in expected]
        if foreign:
            return f"array '{foreign[0]}' is not part of the model ({len(foreign)} such arrays)"
        for name, (shape, dtype) in expected.items():
            array = arrays[name]
            if tuple(array.shape) != shape:
                return f"array '{name}' has shape {tuple(array.shape)}, the model's is {shape}"
            if _dtype_name(array.dtype) != dtype:
                return f"array '{name}' has dtype {array.dtype}, the model's is {dtype}"
        return None

    def flatten(self, arrays: Arrays) -> Vector:
        """All floating-point arrays as one float32 vector ``(P,)``.

        Raises
        ------
        ContributionError
            If ``arrays`` do not have this layout.
        """
        problem = self.mismatch(arrays)
        if problem:
            raise ContributionError(f"These arrays are not of the model: {problem}.")
        vector = np.empty(self.size, dtype=np.float32)
        offset = 0
        for name, shape, dtype in self.entries:
            if _is_float(dtype):
                count = _count(shape)
                vector[offset : offset + count] = arrays[name].reshape(-1)
                offset += count
        return vector

    def difference(self, arrays: Arrays, base: Arrays) -> Vector:
        """``flatten(arrays) − flatten(base)``, with one vector in memory.

        Raises
        ------
        ContributionError
            If ``arrays`` do not have this layout; ``base`` must have it.
        """
        vector = self.flatten(arrays)
        offset = 0
        for name, shape, dtype in self.entries:
            if _is_float(dtype):
                count = _count(shape)
                vector[offset : offset + count] -= base[name].reshape(-1).astype(np.float32, copy=False)
                offset += count
        return vector

    def shifted(self, arrays: Arrays, update: Vector) -> Iterator[tuple[str, npt.NDArray[np.generic]]]:
        """``arrays`` moved by ``update`` ``(P,)``, one array at a time; what is no parameter stays.

        Bit for bit ``unflatten(flatten(arrays) + update, arrays)``, without a second model in memory.

        Raises
        ------
        ContributionError
            If ``update`` has another size.
        """
        if update.shape != (self.size,):
            raise ContributionError(
                f"An update of {update.shape} values does not fit a model of {self.size} parameters."
            )
        offset = 0
        for name, shape, dtype in self.entries:
            if _is_float(dtype):
                count = _count(shape)
                moved = arrays[name].reshape(-1).astype(np.float32)
                moved += update[offset : offset + count]
                yield name, moved.reshape(shape).astype(dtype, copy=False)
                offset += count
            else:
                yield name, np.array(arrays[name])

    def unflatten(self, vector: Vector, buffers: Arrays) -> dict[str, npt.NDArray[np.generic]]:
        """The named arrays of ``vector`` ``(P,)``; what is no parameter comes from ``buffers``.

        Those of type float32 are views of ``vector``.
        """
        if vector.shape != (self.size,):
            raise ContributionError(
                f"A vector of {vector.shape} values does not fit a model of {self.size} parameters."
            )
        arrays: dict[str, npt.NDArray[np.generic]] = {}
        offset = 0
        for name, shape, dtype in self.entries:
            if _is_float(dtype):
                count = _count(shape)
                arrays[name] = vector[offset : offset + count].reshape(shape).astype(dtype, copy=False)
                offset += count
            else:
                arrays[name] = np.array(buffers[name])
        return arrays


def norm(vector: npt.NDArray[np.floating]) -> float:
    """Euclidean norm, accumulated in double precision."""
    return float(np.sqrt(np.einsum("i,i->", vector, vector, dtype=np.float64)))


def dot(a: npt.NDArray[np.floating], b: npt.NDArray[np.floating]) -> float:
    """Inner product, accumulated in double precision."""
    return float(np.einsum("i,i->", a, b, dtype=np.float64))


def _count(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64))


@lru_cache(maxsize=64)
def _dtype_name(dtype: np.dtype[Any]) -> str:
    # numpy spells the name out anew each time, which costs more than comparing a model's arrays.
    return str(dtype)


@lru_cache(maxsize=64)
def _is_float(dtype: str) -> bool:
    # bfloat16 is unknown to numpy and travels as float32, so numpy's own kinds suffice.
    return np.dtype(dtype).kind == "f"
