"""Figures for a certificate, from files: a simulation's results, or findings of checks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from cli.results import Results
from reconsent.errors import ConfigError, DataError
from server.accountability import ORACLE_GAP, RELEARN_GAP
from unlearning.certificate.evidence import About, Figure
from unlearning.verification.bootstrap import Interval, bootstrap_mean
from unlearning.verification.limits import limits_of

_SAME_DB = 5e-3
"""A mean and the figures of single volumes that differ by less are of the same measurement."""


class _FigureFile(BaseModel):
    """One figure of a file; fields as of :class:`Figure`.

    ``volumes`` has the figure of each volume, whose mean is the value, and ``patients`` whose volume each is:
    from them the interval is computed. Neither is kept.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    name: str
    about: About
    value: float
    unit: str
    before: float | None = None
    words: str = ""
    limits: str = ""
    volumes: list[float] = []
    patients: list[str] | None = None


def figures_of_results(path: Path, after_sha256: str | None) -> list[Figure]:
    """The gaps that a simulation measured, if they are those of this very model.

    Raises
    ------
    ConfigError
        If the file is no results file, or of another model.
    """
    results = Results.load(path)
    unlearned = results.models.get("unlearned")
    if unlearned is None or unlearned.sha256 != after_sha256:
        raise ConfigError(
            f"{path} was measured on another model than the one this withdrawal ended with.",
            "Give the results of this run, or none.",
        )
    method = results.method or ""
    gap, original = results.oracle_gap.get(method), results.original_gap
    found = []
    names = {"retain_test": About.UTILITY, "forget_test": About.FORGETTING, "forget_train": About.FORGETTING}
    for name, about in names.items():
        if gap is not None:
            value = float(getattr(gap, name))
            before = None if original is None else float(getattr(original, name))
            words = f"PSNR {value:+.2f} dB beside the model retrained without the site."
            label = f"{ORACLE_GAP}/{name.replace('_', '-')}"
            interval = _gap_interval(results, name, value)
            found.append(
                Figure(name=label, about=about, value=value, unit="dB", before=before, words=words,
                       limits=limits_of("gap"), interval=interval)
            )  # fmt: skip
    curves = results.relearn
    for steps, value in sorted(results.relearn_gap.get(method, {}).items()):
        both = curves.get("original", {}).get(steps), curves.get("oracle", {}).get(steps)
        before = None if both[0] is None or both[1] is None else both[0] - both[1]
        words = (
            f"After {steps} steps on fresh images of its organ: {value:+.2f} dB beside the retrained model."
        )
        found.append(
            Figure(name=f"{RELEARN_GAP}/{steps}-steps", about=About.FORGETTING, value=value, unit="dB",
                   before=before, words=words, limits=limits_of("relearn"))
        )  # fmt: skip
    return found


def figures_of_file(path: Path) -> list[Figure]:
    """Figures from a JSON list of objects with the fields of :class:`Figure`.

    Raises
    ------
    ConfigError
        If the file cannot be read, or is anything else.
    """
    try:
        table: Any = json.loads(path.read_text(encoding="utf-8"))
        entries = TypeAdapter(list[_FigureFile]).validate_python(table)
    except OSError as error:
        raise ConfigError(
            f"The evidence {path} cannot be read: {error.strerror}.", "Check the path."
        ) from None
    except ValidationError as error:
        item = error.errors()[0]
        place = ".".join(map(str, item["loc"]))
        raise ConfigError(
            f"{path} does not hold figures: {place}: {item['msg']}.", "See docs/withdrawals.md."
        ) from None
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}.", "See docs/withdrawals.md.") from None
    return [_figure(entry, path) for entry in entries]


def _figure(entry: _FigureFile, path: Path) -> Figure:
    try:
        interval = _interval(entry.volumes, entry.patients, entry.value)
    except DataError as error:
        raise ConfigError(f"{path}: {entry.name}: {error.problem}", error.remedy) from None
    if entry.volumes and interval is None:
        raise ConfigError(
            f"{path}: {entry.name}: its volumes do not have the mean {entry.value:g}, or are of one patient.",
            "Give the figure of each volume, whose mean is the value, or none.",
        )
    return Figure(**entry.model_dump(exclude={"volumes", "patients"}), interval=interval)


def _gap_interval(results: Results, name: str, value: float) -> Interval | None:
    """Of a gap, volume by volume, patients of different sites apart."""
    psnr = {
        (row.model, row.site, row.volume): (row.psnr, f"{row.site}/{row.patient}")
        for row in results.volumes
        if row.set == name
    }
    pairs = [
        (ours - psnr["oracle", site, volume][0], patient)
        for (model, site, volume), (ours, patient) in psnr.items()
        if model == "unlearned" and ("oracle", site, volume) in psnr
    ]
    return _interval([gap for gap, _ in pairs], [patient for _, patient in pairs], value)


def _interval(values: list[float], patients: list[str] | None, mean: float) -> Interval | None:
    """The interval of a mean; ``None`` without values, or if they are of another mean or of one patient."""
    if not values:
        return None
    found = bootstrap_mean(values, patients)
    return found if found.patients > 1 and abs(found.mean - mean) < _SAME_DB else None
