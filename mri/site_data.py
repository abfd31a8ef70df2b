"""A directory of phantoms for a site that brings no data of its own."""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import mri.phantoms
from mri.directory import list_volumes
from mri.fastmri_file import write_volume
from mri.phantoms import synthesise_volume
from reconsent.config import PhantomConfig
from reconsent.errors import DataError
from reconsent.files import write_atomically


def synthesise_directory(
    directory: Path,
    organ: str,
    config: PhantomConfig,
    *,
    seed: int,
    prefix: str,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Fill a directory with phantoms ``<prefix>-000.h5``, ``<prefix>-001.h5``, …, one patient each.

    A directory that already holds phantoms of the same parameters is left as it is, and completed if
    some are missing; phantoms of other parameters, or of another version of the phantoms' code, are
    replaced. Several processes may call this at once: one works, the others wait and find it done.

    The parameters are kept in a hidden file beside the directory, not in it: fastMRI's ``SliceDataset``
    opens every entry of a directory and fails on one that is no volume.

    Parameters
    ----------
    directory
        Made if it does not exist.
    organ, config, seed
        As in :func:`~mri.phantoms.synthesise_volume`.
    prefix
        Of the file names; with the number it is the patient's pseudonym.
    progress
        Called with the number of phantoms there are and the number of all.

    Returns
    -------
    list of Path
        The volumes, by number.

    Raises
    ------
    DataError
        If the directory holds volumes that are no phantoms of ours, or cannot be written.
    ConfigError
        If there is no phantom of this organ.
    """
    directory = directory.resolve()
    manifest = _manifest(organ, config, seed, prefix)
    paths = [directory / f"{name}.h5" for name in manifest["volumes"]]
    if _read_manifest(directory) == manifest and all(path.is_file() for path in paths):
        _refuse_others(directory, manifest)
        return paths
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with _locked(directory):
            _make_room(directory, manifest)
            for count, path in enumerate(paths):
                if progress is not None:
                    progress(count, len(paths))
                # Files are renamed into place as a whole, so one that is there is complete.
                if not path.is_file():
                    write_volume(path, synthesise_volume(organ, config, seed=seed, name=path.stem))
    except OSError as error:
        raise DataError(
            f"Phantoms cannot be written to {directory}: {error}.",
            "Choose a directory that is writable and has room.",
        ) from None
    if progress is not None:
        progress(len(paths), len(paths))
    return paths


def _make_room(directory: Path, manifest: dict[str, Any]) -> None:
    found = _read_manifest(directory)
    if found == manifest:
        _refuse_others(directory, manifest)
        return
    _refuse_others(directory, found)
    # Old volumes go before the new manifest comes: a crash in between leaves files to make, not files
    # of the wrong parameters.
    for path in list_volumes(directory):
        path.unlink()
    write_atomically(_beside(directory, "json"), json.dumps(manifest, indent=2).encode())


def _refuse_others(directory: Path, manifest: dict[str, Any] | None) -> None:
    ours = set(manifest["volumes"]) if manifest else set()
    others = [path.name for path in list_volumes(directory) if path.stem not in ours]
    if others:
        shown = ", ".join(others[:3]) + (", …" if len(others) > 3 else "")
        raise DataError(
            f"{directory} holds {len(others)} volumes that are no phantoms made here: {shown}.",
            "Choose another directory; phantoms are never mixed with other data.",
        )


def _manifest(organ: str, config: PhantomConfig, seed: int, prefix: str) -> dict[str, Any]:
    return {
        "format": 1,
        "organ": organ,
        "phantom": config.model_dump(mode="json", by_alias=True),
        "seed": seed,
        "code": _fingerprint(),
        "volumes": [f"{prefix}-{index:03d}" for index in range(config.patients)],
    }


def _read_manifest(directory: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(_beside(directory, "json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("volumes"), list) else None


def _beside(directory: Path, kind: str) -> Path:
    return directory.with_name(f".{directory.name}.phantoms.{kind}")


@lru_cache(maxsize=1)
def _fingerprint() -> str:
    """SHA-256 of the phantoms' code: another version of it draws other patients from the same seed."""
    digest = hashlib.sha256()
    for path in sorted(Path(mri.phantoms.__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    with _beside(directory, "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
