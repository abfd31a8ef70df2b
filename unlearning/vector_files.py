"""Vectors as safetensors files, without copying them.

The library's own functions copy every vector twice on the way to a file and keep all other threads waiting
meanwhile. The format is simple enough to hand the file the vectors' own memory: eight bytes with the length
of a JSON header, the header, the data (https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch

from reconsent.files import Part
from unlearning.parameters import Vector

VectorType = Literal["float32", "bfloat16"]
"""How numbers are stored; bfloat16 halves the size and keeps 8 bits of precision."""

_NAMES = {"float32": "F32", "bfloat16": "BF16"}


def encode(vectors: Mapping[str, Vector], dtype: VectorType) -> list[Part]:
    """The pieces of a safetensors file of ``vectors``, each ``(P,)``; float32 data are views of them."""
    parts: list[Part] = []
    header: dict[str, object] = {}
    end = 0
    for name in sorted(vectors):
        data = _stored(vectors[name], dtype).view(np.uint8).data
        begin, end = end, end + data.nbytes
        header[name] = {"dtype": _NAMES[dtype], "shape": [vectors[name].size], "data_offsets": [begin, end]}
        parts.append(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return [len(text).to_bytes(8, "little") + text, *parts]


def decode(content: bytes | bytearray) -> dict[str, Vector]:
    """The vectors ``(P,)`` of a safetensors file whose checksum is right, as float32.

    Those stored as float32 are views of ``content``.
    """
    begin = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:begin])
    return {
        name: _loaded(content, entry["dtype"], entry["shape"][0], begin + entry["data_offsets"][0])
        for name, entry in header.items()
        if name != "__metadata__"
    }


def _stored(vector: Vector, dtype: VectorType) -> np.ndarray:
    if dtype == "float32":
        return np.ascontiguousarray(vector, dtype="<f4")
    # numpy has no bfloat16, and torch rounds to nearest even.
    half = torch.from_numpy(np.ascontiguousarray(vector)).to(torch.bfloat16)
    return half.view(torch.int16).numpy().astype("<i2", copy=False)


def _loaded(content: bytes | bytearray, name: str, count: int, offset: int) -> Vector:
    if name == "F32":
        return np.frombuffer(content, "<f4", count, offset)
    bits = np.frombuffer(content, "<u2", count, offset).astype(np.uint32)
    bits <<= 16
    return bits.view(np.float32)
