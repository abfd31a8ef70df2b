"""The tables of the report, as text ready to print."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cli.report.palette import ordered, style_of
from cli.report.verdict import Check, checks_of
from cli.report.words import count, duration, listed, percent, signed, size
from cli.results import Quality, Results, SiteResult
from cli.results_privacy import PrivacyResult
from mri.volume import Provenance

SETS = ("retain_test", "forget_test", "forget_train")
MOST_VOLUMES = 300

_HEADS = {
    "retain-test": "remaining hospitals' test data",
    "forget-test": "withdrawn organ's test data",
    "forget-train": "withdrawn site's own training data",
    "relearn": "largest difference while learning it again",
}
_MODELS = {
    "original": "trained with everybody",
    "oracle": "retrained without the withdrawn site",
    "unlearned": "the result",
    "continued": "the result, trained further",
}
_ORIGINS = {
    "acquired": "acquired by a scanner",
    "retrospective": "retrospective (computed back from magnitude images)",
    "phantom": "phantoms (simulated objects)",
}


@dataclass(frozen=True, slots=True)
class Table:
    """A plain table; the first cell of a row is its head, ``numeric`` marks right-aligned columns."""

    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[bool, ...]


def table(caption: str, heads: str, rows: Sequence[tuple[str, ...]]) -> Table:
    """A table whose heads are given as ``site|organ|>slices``; ``>`` marks a numeric column."""
    names = heads.split("|")
    return Table(
        caption,
        tuple(name.removeprefix(">") for name in names),
        tuple(rows),
        tuple(name.startswith(">") for name in names),
    )


def board(results: Results) -> dict[str, Any]:
    """The verdict table: a row a model, a column an accuracy (and relearning), a gap in each cell."""
    names = [name for name in _HEADS if name != "relearn" or results.relearn_gap]
    heads = [{"name": name, "words": _HEADS[name]} for name in names]
    rows = []
    for model in ordered(results.accuracy):
        style = style_of(model)
        method = results.method if model == "unlearned" else model
        checks = {check.name: check for check in checks_of(results, method or "")}
        cells = [_cell(results, model, name, checks.get(name)) for name in names]
        words = _MODELS.get(model, "another method")
        if model == "unlearned" and results.method:
            words = f"the result of {results.method}"
        label = f"{style.label} {style.symbol}" if model != "continued" else style.label
        rows.append({"model": model, "colour": style.colour, "label": label, "words": words, "cells": cells})
    return {"heads": heads, "rows": rows}


def _cell(results: Results, model: str, name: str, check: Check | None) -> dict[str, Any]:
    cell: dict[str, Any] = {"value": "", "small": "", "check": None, "gap": ""}
    if name != "relearn":
        quality: Quality | None = getattr(results.accuracy[model], name.replace("-", "_"))
        if quality is None:
            return cell
        cell |= {"value": f"{quality.psnr:.2f}", "small": f"SSIM {quality.ssim:.3f}"}
        if model == "original" and results.original_gap:
            cell["gap"] = signed(getattr(results.original_gap, name.replace("-", "_")))
    elif model == "oracle":
        cell["small"] = "reference"
    elif model == "original" and {"original", "oracle"} <= results.relearn.keys():
        oracle = results.relearn["oracle"]
        gaps = [psnr - oracle[step] for step, psnr in results.relearn["original"].items() if step in oracle]
        cell["gap"] = signed(max(gaps, key=abs)) if gaps else ""
    if check:
        cell["check"] = {"sign": signed(check.gap), "within": check.within, "word": check.word}
    return cell


def all_tables(results: Results) -> dict[str, Table | None]:
    """Every plain table of the page by name; ``None`` where there is nothing to show."""
    return {
        "relearn": _relearn(results),
        "refusals": _refusals(results),
        "sites_psnr": _sites_psnr(results),
        "steps": _steps(results),
        "cost": _cost(results),
        "timing": _timing(results),
        "sites": _sites(results),
        "withdrawals": _withdrawals(results),
        "privacy": _privacy(results),
        "models": _models(results),
        "versions": table("Software", "package|version", list(results.versions.model_dump().items())),
        "volumes": _volumes(results),
    }


def origin(results: Results) -> str:
    """Where the data come from, as a sentence."""
    totals: dict[Provenance, int] = {}
    for site in results.sites:
        for kind, number in site.provenance.items():
            totals[kind] = totals.get(kind, 0) + number
    parts = [f"{_ORIGINS[kind]}: {n:,}" for kind, n in totals.items() if n]
    if len(parts) == 1:
        kind = next(kind for kind, n in totals.items() if n)
        return f"All {totals[kind]:,} volumes are {_ORIGINS[kind]}."
    return f"Volumes by origin: {'; '.join(parts)}." if parts else "The origin of the data was not recorded."


def _relearn(results: Results) -> Table | None:
    if not results.relearn:
        return None
    steps = sorted({step for curve in results.relearn.values() for step in curve})
    rows = [
        (style_of(model).label, *(_psnr(results.relearn[model].get(step)) for step in steps))
        for model in ordered(results.relearn)
    ]
    for method, gaps in results.relearn_gap.items():
        name = "unlearned − oracle" if method == results.method else f"{method} − oracle"
        rows.append((name, *(signed(gaps[step]) if step in gaps else "" for step in steps)))
    heads = "model|" + "|".join(f">{step} steps" for step in steps)
    return table("PSNR in dB after fine-tuning on fresh data of the withdrawn organ", heads, rows)


def _psnr(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _refusals(results: Results) -> Table | None:
    rows = [
        (f"{record.round}", record.line, site, part.outcome, part.reason)
        for record in results.rounds
        for site, part in record.sites.items()
        if part.reason
    ]
    return (
        table("Replies that were not accepted", "round|line|site|outcome|reason", rows[:100])
        if rows
        else None
    )


def _sites_psnr(results: Results) -> Table | None:
    models = ordered(results.accuracy)
    rows = [
        (
            site.standing,
            *(
                _psnr(
                    results.accuracy[m].per_site[site.name].psnr
                    if site.name in results.accuracy[m].per_site
                    else None
                )
                for m in models
            ),
        )
        for site in results.sites
    ]
    return table(
        "Test PSNR in dB of each site", "site|" + "|".join(f">{style_of(m).label}" for m in models), rows
    )


def _steps(results: Results) -> Table | None:
    if not results.unlearning or not results.unlearning.steps:
        return None
    rows = [
        (
            str(step.round),
            f"{step.alpha:.3g}",
            f"{step.step_norm:.3g}",
            "✓ kept" if step.accepted else "✗ taken back",
            _loss(step.retain_loss_before),
            _loss(step.retain_loss_after),
        )
        for step in results.unlearning.steps
    ]
    heads = "round|>α|>norm|outcome|>loss before|>after"
    return table("Ascent steps; the loss is the remaining hospitals' mean training loss", heads, rows)


def _loss(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _cost(results: Results) -> Table | None:
    rows = [
        (
            method,
            f"{cost.rounds:,}",
            duration(cost.client_seconds),
            size(cost.bytes_up),
            size(cost.bytes_down),
        )
        for method, cost in results.cost.items()
    ]
    heads = "method|>rounds|>sites' computing time|>sent by sites|>sent to sites"
    return table("What unlearning took", heads, rows) if rows else None


def _timing(results: Results) -> Table:
    timing = results.timing
    names = {"training": timing.train_seconds, "unlearning": timing.unlearn_seconds}
    names |= {"retraining the oracle": timing.oracle_seconds, "the whole run": timing.total_seconds}
    rows = [(name, duration(seconds)) for name, seconds in names.items() if seconds is not None]
    return table("Wall time on the machine that ran the simulation", "part|>time", rows)


def _fate(site: SiteResult) -> str:
    if not site.withdrawn:
        return "remains"
    if site.patients_left is None:
        return f"withdrawn after round {site.withdrawn_at_round}"
    return f"remains; {count(site.patients_left, 'patient')} withdrawn after round {site.withdrawn_at_round}"


def _sites(results: Results) -> Table:
    rows = [
        (
            site.name,
            site.organ,
            listed([f"{kind} ({n})" for kind, n in site.provenance.items() if n]),
            f"{site.train_patients:,} / {site.test_patients:,}",
            f"{site.train_slices:,} / {site.test_slices:,}",
            _fate(site),
        )
        for site in results.sites
    ]
    heads = "site|organ|volumes by origin|>patients, train / test|>slices, train / test|status"
    return table("Sites of the consortium", heads, rows)


def _withdrawals(results: Results) -> Table | None:
    rows = [
        (
            listed(w.sites),
            str(w.at_round),
            w.state,
            f"{w.received_at:%Y-%m-%d %H:%M %Z}",
            f"{w.deadline:%Y-%m-%d %H:%M %Z}",
        )
        for w in results.withdrawals
    ]
    return table("Withdrawals", "sites|>after round|state|received|deadline", rows) if rows else None


def _privacy(results: Results) -> Table | None:
    rows = [
        (
            account.site,
            account.mode,
            f"one {account.unit}",
            "not told" if account.epsilon is None else f"{account.epsilon:.4g}",
            f"{account.delta:g}",
            _ceiling(account),
            f"{account.rounds_sat_out}"
            + (f" (since round {account.sits_out_since})" if account.sits_out_since else ""),
        )
        for account in results.privacy
    ]
    caption = "Differential privacy: what each site has spent, by its own account, and whom that protects"
    heads = "site|mode|unit|>ε spent|>δ|>ceiling of ε|>rounds sat out"
    return table(caption, heads, rows) if rows else None


def _ceiling(account: PrivacyResult) -> str:
    if account.ceiling is not None:
        return f"{account.ceiling:.4g}"
    return "not told" if account.epsilon is None else "no limit"


def _models(results: Results) -> Table:
    rows = [
        (style_of(name).label, model.version, str(model.rounds), model.sha256)
        for name in ordered(results.models)
        for model in (results.models[name],)
    ]
    return table("Models this run kept", "model|version|>rounds|SHA-256", rows)


def _volumes(results: Results) -> Table | None:
    if not results.volumes:
        return None
    rows = [
        (
            v.volume, v.site, v.set.replace("_", "-"), style_of(v.model).label,
            f"{v.psnr:.2f}", f"{v.ssim:.3f}", f"{v.nmse:.4f}", f"{v.hfen:.3f}",
        )
        for v in results.volumes[:MOST_VOLUMES]
    ]  # fmt: skip
    total = len(results.volumes)
    more = f"; the first {MOST_VOLUMES} of {total:,}, all are in results.json" if total > MOST_VOLUMES else ""
    heads = "volume|site|set|model|>PSNR (dB)|>SSIM|>NMSE|>HFEN"
    return table(f"Image quality volume by volume{more}", heads, rows)


def cost_words(results: Results) -> str:
    """Cost of the method that made G_U in a few words; empty if it was not counted."""
    cost = results.cost.get(results.method or "")
    if cost is None:
        return ""
    return (
        f"{percent(cost.rounds_fraction)} of the rounds, {percent(cost.client_seconds_fraction)} of the "
        f"computing time, {percent(cost.bytes_fraction)} of the bytes"
    )
