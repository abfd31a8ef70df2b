"""Vectors as safetensors files, without copying them.

The library's own functions copy every vector twice on the way to a file and keep all other threads waiting
meanwhile. The format is simple enough to hand the file the vectors' own memory: eight bytes with the length
of a JSON header, the header, the data (https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import numpy as np

from reconsent.files import Part
from unlearning.parameters import Vector

VectorType = Literal["float32", "bfloat16"]
"""How numbers are stored; bfloat16 halves the size and keeps 8 bits of precision."""

_NAMES = {"float32": "F32", "bfloat16": "BF16"}
_BYTES = {"float32": 4, "bfloat16": 2}

_BLOCK = 2**18
"""Numbers to convert at a time."""


def encode(vectors: Mapping[str, Vector], dtype: VectorType) -> Iterator[Part]:
    """The pieces of a safetensors file of ``vectors``, each ``(P,)``.

    float32 data are views of them; bfloat16 are converted block by block, never a whole vector at once.
    """
    yield header({name: vector.size for name, vector in vectors.items()}, dtype)
    for name in sorted(vectors):
        yield from _stored(vectors[name], dtype)


def header(counts: Mapping[str, int], dtype: VectorType) -> bytes:
    """What a safetensors file of vectors with so many numbers begins with; their data follow by name."""
    entries: dict[str, object] = {}
    end = 0
    for name in sorted(counts):
        begin, end = end, end + counts[name] * _BYTES[dtype]
        entries[name] = {"dtype": _NAMES[dtype], "shape": [counts[name]], "data_offsets": [begin, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def decode(content: bytes | bytearray) -> dict[str, Vector]:
    """The vectors ``(P,)`` of a safetensors file whose checksum is right, as float32.

    Those stored as float32 are views of ``content``.
    """
    begin = 8 + int.from_bytes(content[:8], "little")
    return {
        name: _loaded(content, entry["dtype"], entry["shape"][0], begin + entry["data_offsets"][0])
        for name, entry in json.loads(content[8:begin]).items()
        if name != "__metadata__"
    }


def blocks(pieces: Iterable[bytes]) -> Iterator[tuple[str, Vector]]:
    """The vectors of a file made by :func:`encode` as float32, in blocks: name and the next of its numbers.

    Parameters
    ----------
    pieces
        The file's content; its checksum may be known only when they end.

    Raises
    ------
    ValueError
        If it is no such file.
    """
    rest, incoming = b"", iter(pieces)
    while len(rest) < 8 or len(rest) < 8 + int.from_bytes(rest[:8], "little"):
        if (piece := next(incoming, None)) is None:
            raise ValueError("a file of vectors is cut off in its header")
        rest += piece
    begin = 8 + int.from_bytes(rest[:8], "little")
    entries: dict[str, dict[str, Any]] = json.loads(rest[8:begin])
    rest = rest[begin:]
    for name in sorted(entries, key=lambda n: entries[n]["data_offsets"][0]):
        kind, missing = entries[name]["dtype"], entries[name]["shape"][0]
        size = 4 if kind == "F32" else 2
        while missing:
            if len(rest) < size:
                if (piece := next(incoming, None)) is None:
                    raise ValueError(f"vector '{name}' is cut off")
                rest += piece
                continue
            count = min(missing, len(rest) // size)
            yield name, _loaded(rest, kind, count, 0)
            rest, missing = rest[count * size :], missing - count
    for piece in incoming:
        rest += piece
    if rest:
        raise ValueError("a file of vectors is longer than they are")


def _stored(vector: Vector, dtype: VectorType) -> Iterator[Part]:
    if dtype == "float32":
        yield np.ascontiguousarray(vector, dtype="<f4").view(np.uint8).data
        return
    for begin in range(0, vector.size, _BLOCK):
        yield _rounded(vector[begin : begin + _BLOCK]).view(np.uint8).data


def _rounded(numbers: Vector) -> np.ndarray:
    """The upper halves of float32 ``numbers``, rounded to nearest, ties to even; of what is none a quiet NaN.

    numpy has no bfloat16, and torch, which has, takes seconds to import and 300 MiB.
    """
    bits = np.ascontiguousarray(numbers, "<f4").view("<u4")
    upper = (bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))) >> 16
    return np.where(np.isnan(numbers), np.uint32(0x7FC0), upper).astype("<u2")


def _loaded(content: bytes | bytearray, name: str, count: int, offset: int) -> Vector:
    if name == "F32":
        return np.frombuffer(content, "<f4", count, offset)
    bits = np.frombuffer(content, "<u2", count, offset).astype(np.uint32)
    bits <<= 16
    return bits.view(np.float32)
