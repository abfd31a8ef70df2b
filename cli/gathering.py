"""Gathers what the server wrote and what the observer measured into one ``Results``."""

from __future__ import annotations

import datetime as dt
import math
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version as installed
from typing import Any, Literal

import numpy as np

from cli import results as res
from cli.assessment import Measured
from cli.results_evidence import Evidence
from cli.results_privacy import PrivacyResult
from client.site import Site, site_directory
from mri.directory import list_volumes
from mri.fastmri_file import read_header
from reconsent import __version__
from reconsent.config import ConsortiumConfig
from server.bookkeeping import MAIN, ORACLE, Bookkeeping
from server.persistence import ModelVersion, RoundRecord, SiteStatus, StateDirectory, Withdrawals
from server.privacy import privacy_of, rounds_sat_out
from unlearning.contributions import ContributionCache


@dataclass(slots=True)
class Models:
    """The models a simulation is about.

    Attributes
    ----------
    shorter
        Whether G was trained for fewer rounds than the oracle: it is the model before the first of several
        withdrawals, and the oracle is trained until the last.
    """

    original: ModelVersion
    unlearned: ModelVersion | None = None
    oracle: ModelVersion | None = None
    continued: ModelVersion | None = None
    shorter: bool = False

    def named(self) -> dict[str, ModelVersion]:
        """Those that are there, by name."""
        pairs = {
            "original": self.original,
            "unlearned": self.unlearned,
            "oracle": self.oracle,
            "continued": self.continued,
        }
        return {name: version for name, version in pairs.items() if version is not None}


@dataclass(slots=True)
class Measurements:
    """What the observer measured."""

    quality: list[Measured] = field(default_factory=list)
    relearn: dict[str, dict[int, float]] = field(default_factory=dict)
    rounds: dict[str, list[Measured]] = field(default_factory=dict)
    """Version id → quality on the withdrawn sites' test volumes, for the curves."""
    evidence: Evidence | None = None
    """What the checks beyond the accuracies found."""


def models_of(books: Bookkeeping) -> Models:
    """G, G_U, Ĝ and what was trained on after."""
    main = books.registry.all(MAIN)
    unlearned = [version for version in main if version.kind == "unlearned"]
    if not unlearned:
        return Models(original=main[-1])
    first, last = main.index(unlearned[0]), main.index(unlearned[-1])
    before = [version for version in main[:first] if version.kind in ("train", "initial")]
    later = [v for v in main[last + 1 :] if v.kind == "train"]
    oracle = books.registry.all(ORACLE)
    return Models(
        original=before[-1],
        unlearned=unlearned[-1],
        oracle=oracle[-1] if oracle else None,
        continued=later[-1] if later else None,
        shorter=any(version.kind == "train" for version in main[first:last]),
    )


def gather(
    consortium: ConsortiumConfig,
    state: StateDirectory,
    measurements: Measurements,
    timing: Mapping[str, float],
) -> res.Results:
    """Build the results of a simulation."""
    books = Bookkeeping(state)
    models = models_of(books)
    withdrawals = Withdrawals(state).all()
    left_at = {site: record.at_round or 0 for record in withdrawals for site in record.sites}
    # A withdrawal of sites that took part in no round leaves nothing to unlearn.
    method = consortium.unlearning.method if models.unlearned is not None else None
    accuracy = {
        name: _accuracy([m for m in measurements.quality if m.model == name], left_at)
        for name in models.named()
    }
    gaps = _gaps(accuracy, measurements.relearn, method)
    if models.shorter:
        # G was trained for fewer rounds than the oracle: their difference would be that of the rounds.
        gaps.pop("original_gap", None)
    return res.Results(
        created=dt.datetime.now(dt.UTC),
        versions=res.Versions(
            reconsent=__version__,
            flwr=installed("flwr"),
            torch=installed("torch"),
            fastmri=installed("fastmri"),
            numpy=np.__version__,
            python=platform.python_version(),
        ),
        seed=consortium.seed,
        consortium=consortium.model_dump(mode="json", by_alias=True),
        sites=tuple(
            _site(consortium, site.name, left_at).model_copy(update=_standing(state, books, site.name))
            for site in consortium.sites
        ),
        rounds=tuple(
            _round(record, measurements) for line in (MAIN, ORACLE) for record in books.log.all(line)
        ),
        models={
            name: res.ModelVersion(version=version.id, sha256=version.digest, rounds=version.round)
            for name, version in models.named().items()
        },
        accuracy=accuracy,
        volumes=tuple(_volume(m, left_at) for m in measurements.quality if m.model in accuracy),
        relearn={name: measurements.relearn[name] for name in models.named() if name in measurements.relearn},
        evidence=measurements.evidence,
        noise_floor=_noise_floor(measurements.quality, accuracy, left_at),
        cost={method: _cost(books)} if method else {},
        unlearning=_unlearning(books, consortium) if method else None,
        privacy=_privacy(consortium, books),
        timing=res.Timing(**timing),
        withdrawals=tuple(
            res.WithdrawalResult(
                sites=record.sites,
                patients=record.patients if record.site_stays else None,
                at_round=record.at_round or 0,
                state=record.state.value,
                received_at=record.received_at,
                deadline=record.due_at,
            )
            for record in withdrawals
        ),
        **gaps,
    )


def _gaps(
    accuracy: Mapping[str, res.Accuracy], relearn: Mapping[str, Mapping[int, float]], method: str | None
) -> dict[str, Any]:
    if method is None or "oracle" not in accuracy:
        return {}
    gaps: dict[str, Any] = {
        "original_gap": _gap(accuracy["original"], accuracy["oracle"]),
        "oracle_gap": {method: _gap(accuracy["unlearned"], accuracy["oracle"])},
    }
    if "oracle" in relearn:
        curve, oracle = relearn["unlearned"], relearn["oracle"]
        gaps["relearn_gap"] = {method: {steps: curve[steps] - oracle[steps] for steps in oracle}}
    return gaps


def _noise_floor(
    rows: Sequence[Measured], accuracy: Mapping[str, res.Accuracy], left: Mapping[str, int]
) -> res.Gap | None:
    """Gap of the second oracle to the first; ``None`` if there is only one."""
    second = [row for row in rows if row.model == "oracle-2"]
    return _gap(_accuracy(second, left), accuracy["oracle"]) if second and "oracle" in accuracy else None


def _gap(model: res.Accuracy, oracle: res.Accuracy) -> res.Gap:
    def difference(name: str) -> float:
        ours, theirs = getattr(model, name), getattr(oracle, name)
        return float(ours.psnr - theirs.psnr)

    return res.Gap(
        retain_test=difference("retain_test"),
        forget_test=difference("forget_test"),
        forget_train=difference("forget_train"),
    )


def _accuracy(rows: Sequence[Measured], left: Mapping[str, int]) -> res.Accuracy:
    test = [row for row in rows if row.split == "test"]
    forgotten = [row for row in test if row.site in left]
    trained = [row for row in rows if row.split == "train"]
    return res.Accuracy(
        retain_test=_mean([row for row in test if row.site not in left]),
        forget_test=_mean(forgotten) if forgotten else None,
        forget_train=_mean(trained) if trained else None,
        per_site={
            site: _mean([r for r in test if r.site == site]) for site in sorted({r.site for r in test})
        },
    )


def _mean(rows: Iterable[Measured]) -> res.Quality:
    table = [(row.psnr, row.ssim, row.nmse, row.hfen) for row in rows]
    psnr, ssim, nmse, hfen = (float(value) for value in np.mean(table, axis=0))
    return res.Quality(psnr=psnr, ssim=ssim, nmse=nmse, hfen=hfen)


def _volume(row: Measured, left: Mapping[str, int]) -> res.VolumeResult:
    kind = "retain_test" if row.site not in left else f"forget_{row.split}"
    return res.VolumeResult(
        model=row.model,
        set=kind,
        site=row.site,
        patient=row.patient,
        volume=row.volume,
        psnr=row.psnr,
        ssim=row.ssim,
        nmse=row.nmse,
        hfen=row.hfen,
    )


def _site(consortium: ConsortiumConfig, name: str, left: Mapping[str, int]) -> res.SiteResult:
    config = consortium.site(name)
    site = Site(consortium, config)
    split = site.split()
    lost = consortium.patients_leaving(name) if name in left else frozenset()
    headers = [read_header(path) for path in list_volumes(site_directory(consortium.seed, config))]
    used = [header for header in headers if header.patient in {*split.train, *split.test}]
    provenance: dict[Any, int] = {}
    for header in used:
        provenance[header.provenance] = provenance.get(header.provenance, 0) + 1
    return res.SiteResult(
        name=name,
        organ=config.organ,
        provenance=provenance,
        train_patients=len(split.train),
        test_patients=len(split.test),
        train_slices=sum(header.slices for header in used if header.patient in split.train),
        test_slices=sum(header.slices for header in used if header.patient in split.test),
        withdrawn=name in left,
        withdrawn_at_round=left.get(name),
        patients_left=len(lost & set(split.train)) if lost else None,
    )


def _standing(state: StateDirectory, books: Bookkeeping, site: str) -> dict[str, Any]:
    """What the server has of a site at the end of the run."""
    entry = next((entry for entry in books.roster.all() if entry.site == site), None)
    cache = ContributionCache(state.contributions_dir, state.session, line=MAIN)
    return {
        "active": None if entry is None else entry.status is SiteStatus.ACTIVE,
        "first_round": None if entry is None else entry.first_round,
        "contributions_from": min(cache.shares(site), default=None),
    }


def _round(record: RoundRecord, measurements: Measurements) -> res.RoundResult:
    evaluation = dict(record.metrics.get("evaluation") or {})
    for row in _by_site(measurements.rounds.get(record.model_version or "", [])):
        evaluation.setdefault(row[0], row[1])
    return res.RoundResult(
        line=record.line,
        kind=record.kind,
        round=record.round,
        sites={
            site: res.SiteRound(
                num_examples=outcome.num_examples,
                train_loss=_finite(outcome.loss),
                update_norm=_finite(outcome.update_norm),
                seconds=outcome.seconds,
                bytes_up=outcome.bytes_up,
                bytes_down=outcome.bytes_down,
                outcome=outcome.outcome,
                reason=outcome.reason,
            )
            for site, outcome in record.sites.items()
        },
        evaluation={
            site: res.RoundQuality(psnr=values["psnr"], ssim=values["ssim"], nmse=values["nmse"])
            for site, values in evaluation.items()
            if all(_finite(values.get(name)) is not None for name in ("psnr", "ssim", "nmse"))
        }
        or None,
    )


def _finite(value: float | None) -> float | None:
    """``value``, or ``None`` where a site told something that is no number: results hold numbers only."""
    return value if value is not None and math.isfinite(value) else None


def _by_site(rows: Sequence[Measured]) -> list[tuple[str, dict[str, float]]]:
    found = []
    for site in sorted({row.site for row in rows}):
        mean = _mean([row for row in rows if row.site == site])
        found.append((site, {"psnr": mean.psnr, "ssim": mean.ssim, "nmse": mean.nmse}))
    return found


def _unlearning(books: Bookkeeping, consortium: ConsortiumConfig) -> res.UnlearningResult:
    steps = []
    for record in books.log.all(MAIN):
        notes = record.metrics.get("notes") or {}
        if "alpha" in notes:  # other methods move the model as well, and not by a step of that length
            steps.append(
                res.UnlearningStep(
                    round=record.round,
                    alpha=notes["alpha"],
                    step_norm=notes["step-norm"],
                    accepted=bool(record.metrics.get("accepted", True)),
                    retain_loss_before=_finite(notes.get("retain-loss-before")),
                    retain_loss_after=_finite(notes.get("retain-loss-after")),
                )
            )
    return res.UnlearningResult(
        method=consortium.unlearning.method, settings=consortium.unlearning.settings, steps=tuple(steps)
    )


def _privacy(consortium: ConsortiumConfig, books: Bookkeeping) -> tuple[PrivacyResult, ...]:
    """Each site's last word on its budget; one that has sat out from the start has told of no ε."""
    sat_out = rounds_sat_out(books.log)
    found = []
    for told in privacy_of(books.log):
        own = consortium.privacy_of(consortium.site(told["site"]))
        planned: list[Literal["patient", "slice", "site"]] = [own.unit] if own.by_sample else []
        planned += ["site"] if own.by_site else []
        found += [
            PrivacyResult(
                site=told["site"],
                mode=own.mode,
                unit=unit,
                epsilon=_finite(told["spent"]),
                delta=own.delta if told["delta"] is None else told["delta"],
                ceiling=_finite(told["ceiling"]),
                round=told["round"],
                rounds_sat_out=sat_out.get(told["site"], 0),
                sits_out_since=told["sits_out_since"],
                reason=told["reason"] or "",
            )
            for unit in ([told["unit"]] if told["unit"] else planned)
        ]
    return tuple(found)


def _cost(books: Bookkeeping) -> res.Cost:
    """Of the unlearning over the training before it; the watching of the remaining sites' loss counts."""
    records = books.log.all(MAIN)
    unlearning = [record for record in records if record.kind == "retain"]
    last = max((record.round for record in unlearning), default=0)
    training = [record for record in records if record.kind == "train" and record.round < last]
    seconds, up, down = _spent(unlearning)
    watched_seconds, watched_bytes = watching([record.metrics.get("notes") or {} for record in unlearning])
    seconds, down = seconds + watched_seconds, down + watched_bytes
    trained_seconds, trained_up, trained_down = _spent(training)
    return res.Cost(
        rounds_fraction=len(unlearning) / len(training),
        client_seconds_fraction=seconds / trained_seconds,
        bytes_fraction=(up + down) / (trained_up + trained_down),
        rounds=len(unlearning),
        client_seconds=seconds,
        bytes_up=up,
        bytes_down=down,
    )


def watching(notes: Sequence[Mapping[str, Any]]) -> tuple[float, int]:
    """Client-seconds, and bytes down, for the remaining sites' losses that the rounds' notes speak of."""
    seconds = sum(_finite(note.get("gate-seconds")) or 0.0 for note in notes)
    return seconds, int(sum(note.get("gate-bytes", 0) for note in notes))


def _spent(records: Sequence[RoundRecord]) -> tuple[float, int, int]:
    """Client-seconds, bytes up, bytes down."""
    sites = [outcome for record in records for outcome in record.sites.values()]
    seconds = sum(outcome.seconds for outcome in sites)
    return seconds, sum(o.bytes_up for o in sites), sum(o.bytes_down for o in sites)
