"""The hash of a model in a message, the same that the server's registry calls the model's digest."""

from __future__ import annotations

import hashlib

import numpy as np
from flwr.app import ArrayRecord

from strategies import messages as msg


def model_digest(record: ArrayRecord) -> str:
    """SHA-256 over name, dtype, shape and little-endian bytes of every array, in the order of the names.

    Each array enters as ``name NUL dtype NUL shape NUL length NUL bytes``, with the shape as ``2,3`` and the
    length in bytes, all but the last as UTF-8 text. So a site can prove with its log which of the server's
    models it was sent, and a test checks that both sides count alike.
    """
    digest = hashlib.sha256()
    arrays = msg.named_arrays(record)
    for name in sorted(arrays):
        array = arrays[name]
        plain = np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")
        shape = ",".join(map(str, plain.shape))
        digest.update(f"{name}\0{plain.dtype.name}\0{shape}\0{plain.nbytes}\0".encode())
        digest.update(plain.tobytes())
    return digest.hexdigest()
