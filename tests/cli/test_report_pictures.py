"""The report's reconstructions: small, on one scale, and refused if they cannot be shown."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cli.report import PictureRow, Pictures, render_report
from cli.report.reconstructions import gallery
from cli.report.render import page
from reconsent.errors import ConfigError, DataError
from tests.cli.results_builder import build_results


def _decoded(source: str) -> bytes:
    return base64.b64decode(source.partition(",")[2], validate=True)


def test_many_large_pictures_stay_small(tmp_path: Path) -> None:
    """Sixteen sites with noisy 320 × 320 slices still give a report below 6 MB, which says so."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(16):
        truth = rng.random((320, 320))
        names = ("zero_filled", "original", "unlearned", "oracle")
        images = {name: truth + 0.1 * rng.standard_normal(truth.shape) for name in names}
        row = PictureRow(
            site=f"s{number}", organ="knee", withdrawn=False, volume="v", slice=0, truth=truth, images=images
        )
        rows.append(row)
    path = tmp_path / "report.html"
    render_report(build_results(), Pictures(rows=tuple(rows)), path)
    assert path.stat().st_size < 6_000_000
    assert "shown smaller" in path.read_text()


def test_error_maps_share_one_scale() -> None:
    """The same error gives the same colour in every row, whatever the unit of the truth."""
    truth = np.zeros((32, 32))
    truth[8:24, 8:24] = 1.0
    rows = [
        PictureRow(
            site=f"s{unit}", organ="knee", withdrawn=False, volume="v", slice=0, truth=truth * unit,
            images={"original": truth * unit + error * unit},
        )
        for unit, error in ((1.0, 0.1), (1e-4, 0.1), (7.0, 0.05))
    ]  # fmt: skip
    shown = gallery(Pictures(rows=tuple(rows)))
    assert shown is not None
    maps = [_decoded(error.source) for strip in shown.strips for _, error in strip.columns if error]
    assert maps[0] == maps[1]
    brightest = [np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).sum() for png in maps]
    assert brightest[2] < brightest[1]
    assert rows[0].psnr("original") == pytest.approx(20.0)


@pytest.mark.parametrize(
    ("truth", "image", "message"),
    [
        (np.zeros((8, 8)), np.zeros((8, 8)), "not a finite image"),
        (np.ones((8, 8)), np.ones((8, 9)), r"\(8, 9\)"),
        (np.ones((8, 8)), np.full((8, 8), np.nan), "NaN"),
    ],
)
def test_bad_pictures_are_refused(truth: Any, image: Any, message: str) -> None:
    """An empty truth, another shape or NaN is refused with the site, volume and slice."""
    with pytest.raises(DataError, match=message) as caught:
        PictureRow(
            site="s",
            organ="knee",
            withdrawn=False,
            volume="v7",
            slice=3,
            truth=truth,
            images={"oracle": image},
        )
    assert "slice 3 of volume 'v7' of site 's'" in caught.value.problem


def test_original_is_required() -> None:
    """Without the original's accuracy there is nothing to report, and the error says so."""
    with pytest.raises(ConfigError, match="original model"):
        page(build_results(accuracy={}), None)
