"""Which code a site is running: one digest over the packages a ClientApp consists of."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from reconsent.errors import ConfigError

PACKAGES = ("client", "mri", "reconsent", "strategies", "unlearning")
"""What a site's process imports of Reconsent."""


@lru_cache(maxsize=1)
def code_digest() -> str:
    """SHA-256 over every Python file of :data:`PACKAGES` as this process runs them, hexadecimal.

    The files enter in the order of their paths, each as ``path NUL sha256 LF`` with the path relative to the
    packages' common directory; so the same code has the same digest in a bundle, a wheel and a checkout.
    """
    digest = hashlib.sha256()
    for package in PACKAGES:
        root = _directory(package)
        for path in sorted(root.rglob("*.py"), key=lambda p: p.relative_to(root).as_posix()):
            name = f"{package}/{path.relative_to(root).as_posix()}"
            digest.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def _directory(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(f"The package '{package}' is not there.", "Install Reconsent again.")
    return Path(spec.submodule_search_locations[0])
