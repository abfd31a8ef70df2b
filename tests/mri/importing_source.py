"""What is imported in tests, and how."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from mri.importing import ImportOptions, ImportReport, import_directory


def head(slices: int = 3, rows: int = 64, columns: int = 48) -> npt.NDArray[np.float32]:
    """Slices of an ellipse with a bright spot off the centre, another one in each slice."""
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    images = np.zeros((slices, rows, columns), dtype=np.float32)
    for index in range(slices):
        images[index] = 100.0 * ((y / 0.8) ** 2 + (x / 0.7) ** 2 < 1)
        images[index] += 100.0 * ((y + 0.4 - 0.1 * index) ** 2 + (x - 0.3) ** 2 < 0.02)
    return images


def options(tmp_path: Path, **changes: object) -> ImportOptions:
    """For brains, with a key of its own."""
    return ImportOptions(organ="brain", key_file=tmp_path / "secret" / "key", **changes)  # type: ignore[arg-type]


def run(source: Path, tmp_path: Path, **changes: object) -> ImportReport:
    """Import into ``out``."""
    return import_directory(source, tmp_path / "out", options(tmp_path, **changes))


def correlation(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    """Pearson's, over all pixels."""
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])
