"""Figures for a certificate: their intervals come from single volumes, where these are on record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cli.certificate.figures import figures_of_file, figures_of_results
from cli.certificate.page import bundle_page
from reconsent.errors import ConfigError
from server.certifying import _item
from tests.cli.results_builder import build_results
from tests.unlearning.test_signed_certificate import certificate
from unlearning.certificate.evidence import Figure, Limit, judge
from unlearning.certificate.statement import Certificate


def of_results(path: Path, **changes: Any) -> dict[str, Figure]:
    """The figures of plausible results, by name."""
    results = build_results(**changes)
    results.save(path)
    return {figure.name: figure for figure in figures_of_results(path, results.models["unlearned"].sha256)}


def test_gaps_have_intervals_over_patients_where_volumes_are_on_record(tmp_path: Path) -> None:
    """Of the paired differences, as an independent resampling has them; relearning has means only."""
    found = of_results(tmp_path / "results.json")
    gap = found["oracle-gap/forget-train"]
    assert gap.interval is not None
    table = {(v.model, v.patient): v.psnr for v in build_results().volumes if v.set == "forget_train"}
    patients = sorted({patient for model, patient in table if model == "oracle"})
    gaps = np.array([table["unlearned", p] - table["oracle", p] for p in patients])
    assert gap.interval.patients == len(patients) > 1
    assert np.mean(gaps) == pytest.approx(gap.value, abs=1e-6)
    means = np.random.default_rng(99).choice(gaps, (20_000, len(gaps))).mean(axis=1)
    assert (gap.interval.low, gap.interval.high) == pytest.approx(
        tuple(np.percentile(means, [2.5, 97.5])), abs=0.1
    )
    assert "resampling 5 patients (too narrow for so few)" in gap.uncertainty
    relearn = found["relearn-gap/4-steps"]
    assert relearn.interval is None
    assert relearn.uncertainty.startswith("No confidence interval")


def test_no_interval_without_volumes_of_that_very_measurement(tmp_path: Path) -> None:
    """Volumes that are missing, of one patient, or of another mean: none is made up."""
    whole = build_results().volumes
    knee = [v for v in whole if v.set == "forget_train"]
    one = [v for v in knee if v.patient == knee[0].patient]
    other = [v.model_copy(update={"psnr": v.psnr + (v.model == "unlearned")}) for v in knee]
    for volumes in ([], one, other, [v for v in knee if v.model == "unlearned"]):
        found = of_results(tmp_path / "results.json", volumes=[v.model_dump() for v in volumes])
        assert found["oracle-gap/forget-train"].interval is None


def test_a_file_of_figures_may_give_volumes(tmp_path: Path) -> None:
    """The interval is computed from them, by patient; a mean that is not theirs is refused."""
    file = tmp_path / "figures.json"
    figure: dict[str, Any] = {"name": "oracle-gap/x", "about": "forgetting", "value": 0.5, "unit": "dB"}

    def read(**changes: Any) -> Figure:
        file.write_text(json.dumps([figure | changes]))
        return figures_of_file(file)[0]

    assert read().interval is None
    by_volume = read(volumes=[0.0, 1.0, 0.0, 1.0]).interval
    by_patient = read(volumes=[0.0, 1.0, 0.0, 1.0], patients=["a", "a", "b", "b"]).interval
    assert by_volume is not None
    assert by_patient is not None
    assert (by_volume.patients, by_patient.patients) == (4, 2)
    assert (by_patient.low, by_patient.high) == (0.5, 0.5)
    assert by_volume.low < 0.5 < by_volume.high
    for wrong in (
        {"volumes": [0.0, 2.0]},
        {"volumes": [0.0, 1.0], "patients": ["a", "a"]},
        {"volumes": [0.0, 1.0], "patients": ["a"]},
        {"volumes": [0.0, float("nan")]},
        {"patients": "all"},
    ):
        with pytest.raises(ConfigError, match=r"figures\.json"):
            read(**wrong)


def test_the_certificate_says_how_sure_a_figure_is(tmp_path: Path) -> None:
    """Signed, shown beside the value, and marked where it reaches beyond the limit; or why there is none."""
    found = of_results(tmp_path / "results.json")
    names = ("oracle-gap/forget-train", "relearn-gap/4-steps")
    limits = {"oracle-gap": Limit(-0.1, 0.1), "relearn-gap": Limit(-1.0, 1.0)}
    items = tuple(_item(item) for item in judge([found[name] for name in names], limits))
    made: Certificate = certificate(evidence=items)
    assert items[0].interval is not None
    assert items[0].passed
    assert items[0].interval.high > 0.1
    page = bundle_page(made).decode()
    assert page.count("The interval reaches beyond the limit.") == 1
    assert items[0].uncertainty in page
    assert items[1].uncertainty in page
