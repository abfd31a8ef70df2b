"""Makes every check of the evidence on the original and on the unlearned model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from cli import results_evidence as res
from cli.assessment import Measured, Observer, Split, result_of
from cli.evidence.checks import Checks
from cli.evidence.examination import Examined, examine
from cli.evidence.retraining import cached_update, federate, training_rate
from client.site import Site
from mri import false_structure, hallucination
from reconsent.config import ConsortiumConfig
from reconsent.errors import ReconsentError
from reconsent.seeds import derive_seed
from unlearning.parameters import Arrays
from unlearning.verification.likelihood_ratio import balanced_memberships
from unlearning.verification.limits import LIMITS
from unlearning.verification.membership import patient_means

CANDIDATES = ("original", "unlearned")
"""Whom the checks are made on. The original is the control: nothing was done to it, so it must not pass."""

DIRECTIONS = 5
"""Cached updates that are computed again for the alignment."""


@dataclass(slots=True)
class Subjects:
    """What the evidence is about.

    Attributes
    ----------
    models
        ``original``, ``unlearned`` and, where it was trained, ``oracle``, by name.
    training
        The untrained model (0), and the kept models of the training by the number of their round.
    left, trained, unlearning_rounds
        Who withdrew, after how many training rounds, and how long the unlearning took.
    quality
        What the observer measured of the models.
    relearn
        Model → steps → PSNR in dB.
    """

    models: Mapping[str, Arrays]
    training: Mapping[int, Arrays]
    left: Sequence[str]
    trained: int
    unlearning_rounds: int
    quality: list[Measured]
    relearn: dict[str, dict[int, float]]


@dataclass(slots=True)
class Material:
    """What was trained and measured for the checks beyond the subjects."""

    oracles: dict[str, Arrays] = field(default_factory=dict)
    examined: list[Examined] = field(default_factory=list)
    shadows: list[dict[str, float]] = field(default_factory=list)
    trained_on: list[dict[str, bool]] = field(default_factory=list)
    continued: list[Measured] = field(default_factory=list)
    continued_rounds: int = 0
    directions: list[np.ndarray] = field(default_factory=list)
    query: list[Examined] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def work_of(consortium: ConsortiumConfig) -> int:
    """Pieces of work :func:`collect` will report, for a progress bar."""
    wanted = consortium.assessment
    extra = wanted.noise_floor_seeds + int(wanted.continuation) + int(wanted.query_model)
    shadows = wanted.shadow_models if wanted.membership == "lira" else 0
    return len(consortium.sites) + extra + shadows


def collect(
    consortium: ConsortiumConfig, observer: Observer, subjects: Subjects, progress: Callable[[], None]
) -> res.Evidence:
    """Train what the settings ask for, measure, and check.

    Parameters
    ----------
    consortium
        Its ``[assessment]`` says what is measured, its ``[compliance]`` by which margins it is judged.
    observer
        Whose processes do the work.
    subjects
        Models and what is known of them.
    progress
        Called after each piece of work.

    Raises
    ------
    ReconsentError
        If a training diverges, or a site's data cannot be used.
    """
    material = _prepare(consortium, observer, subjects, progress)
    checks = Checks(consortium, subjects, material)
    findings = [
        res.FindingResult(
            model=name,
            **{key: getattr(finding, key) for key in res.FindingResult.model_fields if key != "model"},
        )
        for name in CANDIDATES
        if name in subjects.models
        for finding in checks.findings(name)
    ]
    names = {finding.check for finding in findings}
    limits = {key: text for key, text in LIMITS.items() if any(_covers(key, name) for name in names)}
    hallucination_rows = tuple(checks.hallucination())
    if hallucination_rows:
        limits |= {"hallucination": hallucination.LIMITS}
    if any(row.false_structure is not None for row in hallucination_rows):
        limits |= {"false structure": false_structure.LIMITS}
    return res.Evidence(
        oracles=len(material.oracles),
        findings=tuple(findings),
        attacks=tuple(checks.attacks()),
        hallucination=hallucination_rows,
        limits=limits,
        not_measured=tuple(material.missing + checks.missing),
    )


def _covers(limit: str, check: str) -> bool:
    return limit in (check, check.partition("/")[0])


def taking_part(consortium: ConsortiumConfig, left: Sequence[str]) -> list[str]:
    """The sites that take part in every further training, those among them that only patients left."""
    return [s.name for s in consortium.sites if s.name not in left or consortium.patients_leaving(s.name)]


def _prepare(
    consortium: ConsortiumConfig, observer: Observer, subjects: Subjects, progress: Callable[[], None]
) -> Material:
    wanted, source = consortium.assessment, observer.source
    material = Material()
    if "oracle" in subjects.models:
        material.oracles["oracle"] = subjects.models["oracle"]
    losing = {name: consortium.patients_leaving(name) for name in subjects.left}
    stayed = taking_part(consortium, subjects.left)
    budget = subjects.trained
    seeds = wanted.noise_floor_seeds if "oracle" in subjects.models else 0
    if consortium.privacy.mode != "none" or any(site.privacy for site in consortium.sites):
        wanted = wanted.model_copy(
            update={"continuation": False, "query_model": False, "alignment": False, "membership": "loss"}
        )
        seeds = 0
        material.missing.append("whatever needs further training: sites train with differential privacy")
    jobs = {
        f"oracle-{number}": observer.submit(federate, source, stayed, rounds=budget, salt=f"oracle-{number}")
        for number in range(2, 2 + seeds)
    }
    if wanted.continuation and "unlearned" in subjects.models:
        material.continued_rounds = max(1, math.ceil(subjects.unlearning_rounds / 2))
        jobs["continued"] = observer.submit(
            federate,
            source,
            stayed,
            rounds=material.continued_rounds,
            salt="continuation",
            start=subjects.models["unlearned"],
            first_round=subjects.trained + 1,
            learning_rate=training_rate(consortium, subjects.trained),
        )
    if wanted.query_model:
        jobs["query"] = observer.submit(
            federate,
            source,
            list(subjects.left),
            rounds=budget,
            salt="query",
            patients={
                name: sorted(patients & set(Site(consortium, consortium.site(name)).split().train))
                for name, patients in losing.items()
                if patients
            },
        )
    shadows = _shadow_plans(consortium, subjects, material) if wanted.membership == "lira" else []
    for number, patients in enumerate(shadows):
        jobs[f"shadow-{number}"] = observer.submit(
            federate,
            source,
            sorted({*stayed, *subjects.left}),
            rounds=budget,
            salt=f"shadow-{number}",
            patients=patients,
        )
    trained: dict[str, Arrays] = {}
    for name, job in jobs.items():
        arrays = result_of(job)
        trained[name] = arrays
        progress()
    material.oracles |= {name: arrays for name, arrays in trained.items() if name.startswith("oracle-")}
    _measure(consortium, observer, subjects, material, trained, progress)
    if any(losing.values()):
        material.missing.append("alignment: contributions are kept of sites, not of patients")
    elif wanted.alignment and 0 in subjects.training:
        _directions(observer, subjects, material)
    return material


def _measure(
    consortium: ConsortiumConfig,
    observer: Observer,
    subjects: Subjects,
    material: Material,
    trained: Mapping[str, Arrays],
    progress: Callable[[], None],
) -> None:
    """Examine all models on all sites; the other oracles' quality and relearning; shadow models' errors."""
    wanted, source = consortium.assessment, observer.source
    oracle = "oracle" if "oracle" in subjects.models and wanted.function_distance else None
    subjected = {name: subjects.models[name] for name in (*CANDIDATES, "oracle") if name in subjects.models}
    everyone = {**subjected, **material.oracles}
    jobs = {}
    for site in consortium.sites:
        left = site.name in subjects.left
        for split in ("test", "train") if left else ("test",):
            jobs[site.name, split] = observer.submit(
                examine,
                source,
                everyone if left else subjected,
                site.name,
                split,
                oracle=oracle if left else None,
                hallucination=wanted.hallucination and split == "test",
            )
    for (_, split), job in jobs.items():
        examined = result_of(job)
        material.examined += examined
        if split == "test":
            progress()
    others = {name: arrays for name, arrays in material.oracles.items() if name != "oracle"}
    splits: list[tuple[str, Split]] = [(site.name, "test") for site in consortium.sites]
    splits += [(site, "train") for site in subjects.left]
    wish = [(name, arrays, site, split) for name, arrays in others.items() for site, split in splits]
    relearned = observer.relearn(others if subjects.relearn else {}, list(subjects.left))
    subjects.quality += observer.quality(wish)()
    subjects.relearn.update(relearned())
    if "continued" in trained:
        wish = [("continued", trained["continued"], site, "test") for site in subjects.left]
        material.continued = observer.quality(wish)()
    if "query" in trained:
        material.query = _errors(observer, {"query": trained["query"]}, subjects.left, ("train",))
    names = sorted(name for name in trained if name.startswith("shadow-"))
    if names:
        rows = _errors(observer, {n: trained[n] for n in names}, subjects.left, ("train", "test"))
        for name in sorted(names, key=lambda n: int(n.rpartition("-")[2])):
            material.shadows.append(patient_errors([row for row in rows if row.model == name]))


def _errors(
    observer: Observer, models: Mapping[str, Arrays], sites: Sequence[str], splits: Sequence[str]
) -> list[Examined]:
    jobs = [
        observer.submit(examine, observer.source, models, site, split, oracle=None, hallucination=False)
        for site in sites
        for split in splits
    ]
    return [row for job in jobs for row in result_of(job)]


def patient_errors(rows: Sequence[Examined]) -> dict[str, float]:
    """Site and patient → mean NMSE over the volumes, of one model's rows."""
    return patient_means([row.nmse for row in rows], [f"{row.site}/{row.patient}" for row in rows])


def _shadow_plans(
    consortium: ConsortiumConfig, subjects: Subjects, material: Material
) -> list[dict[str, list[str]]]:
    """For each shadow model, the withdrawn sites' patients that it is trained on: half of all there are."""
    pool = {
        name: sorted([*split.train, *split.test])
        for name in subjects.left
        for split in (Site(consortium, consortium.site(name)).split(),)
    }
    if min(len(patients) for patients in pool.values()) < 4:
        material.missing.append("membership/lira: a withdrawn site has fewer than four patients")
        return []
    count = consortium.assessment.shadow_models
    plans: list[dict[str, list[str]]] = [{} for _ in range(count)]
    material.trained_on = [{} for _ in range(count)]
    for name, patients in pool.items():
        table = balanced_memberships(len(patients), count, seed=derive_seed(consortium.seed, "shadows", name))
        for number, inside in enumerate(table):
            plans[number][name] = [p for p, yes in zip(patients, inside, strict=True) if yes]
            material.trained_on[number] |= {
                f"{name}/{p}": bool(yes) for p, yes in zip(patients, inside, strict=True)
            }
    return plans


def _directions(observer: Observer, subjects: Subjects, material: Material) -> None:
    """Updates of the withdrawn sites in some rounds, computed again from the models that were kept."""
    kept = sorted(number for number in subjects.training if number < subjects.trained)
    if not kept:
        material.missing.append("alignment: no model of the training was kept")
        return
    places = np.unique(np.linspace(0, len(kept) - 1, min(DIRECTIONS, len(kept))).round().astype(int))
    jobs = [
        observer.submit(cached_update, observer.source, site, subjects.training[kept[i]], kept[i] + 1)
        for site in subjects.left
        for i in places
    ]
    try:
        material.directions = [result_of(job) for job in jobs]
    except ReconsentError as error:
        material.missing.append(f"alignment: {error.problem}")
