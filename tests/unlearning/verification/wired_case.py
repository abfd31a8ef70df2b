"""The small federation's measurements in the form in which a simulation hands them to its checks."""

from __future__ import annotations

import numpy as np

from cli.assessment import Measured
from cli.evidence.checks import Checks
from cli.evidence.collect import Material, Subjects
from cli.evidence.examination import Examined
from reconsent.config import ConsortiumConfig, load_consortium
from tests.unlearning.verification.forgetful_case import (
    ROUNDS,
    Case,
    Data,
    Vector,
    accuracy,
    nmse,
    outputs,
)
from unlearning.verification.function_distance import output_distance

LEFT, STAYED = "knee", "brain"
"""Sites of the tiny consortium that stand for the withdrawn site and for all others."""


def wired(case: Case, theta: Vector, *, oracle: bool = True) -> Checks:
    """The checks of a simulation whose unlearned model is ``theta``."""
    models = {"original": case.original, "unlearned": theta}
    oracles = dict(zip(("oracle", "oracle-2", "oracle-3"), (case.oracle, *case.other_oracles), strict=True))
    oracles = oracles if oracle else {}
    everyone = {**models, **oracles}
    subjects = Subjects(
        models={
            name: _arrays(model) for name, model in everyone.items() if name not in ("oracle-2", "oracle-3")
        },
        training={0: _arrays(case.start)},
        left=[LEFT],
        trained=ROUNDS,
        unlearning_rounds=4,
        quality=[row for name, model in everyone.items() for row in _quality(case, name, model)],
        relearn={name: case.curve(model) for name, model in everyone.items()} if oracle else {},
    )
    material = Material(
        oracles={name: _arrays(model) for name, model in oracles.items()},
        examined=[row for name, model in everyone.items() for row in _examined(case, name, model)],
        shadows=[
            {f"{LEFT}/{name}": float(np.exp(-score)) for name, score in zip(_names(case), row, strict=True)}
            for row in case.shadows
        ],
        trained_on=[
            {f"{LEFT}/{name}": bool(inside) for name, inside in zip(_names(case), row, strict=True)}
            for row in case.trained_on
        ],
        continued=_rows("continued", LEFT, "test", case.trained_on_without(theta), case.held_out),
        continued_rounds=2,
        directions=case.directions,
        query=[row for row in _examined(case, "query", case.query) if row.split == "train"],
    )
    return Checks(_consortium(), subjects, material)


def _consortium() -> ConsortiumConfig:
    config = load_consortium("tiny")
    return config.model_copy(
        update={"assessment": config.assessment.model_copy(update={"membership": "lira"})}
    )


def _arrays(theta: Vector) -> dict[str, Vector]:
    return {"theta": theta}


def _names(case: Case) -> list[str]:
    return [*case.members, *case.others]


def _quality(case: Case, name: str, theta: Vector) -> list[Measured]:
    return [
        *_rows(name, STAYED, "test", theta, case.retain_test),
        *_rows(name, LEFT, "test", theta, case.held_out),
        *_rows(name, LEFT, "train", theta, case.forget),
    ]


def _rows(name: str, site: str, split: str, theta: Vector, data: Data) -> list[Measured]:
    return [
        Measured(name, site, split, patient, f"{split}-{i}", float(psnr), 0.0, 0.0, 0.0)  # type: ignore[arg-type]
        for i, (patient, psnr) in enumerate(zip(data.patients, accuracy(theta, data), strict=True))
    ]


def _examined(case: Case, name: str, theta: Vector) -> list[Examined]:
    rows: list[Examined] = []
    for split, data in (("test", case.held_out), ("train", case.forget)):
        images = zip(outputs(theta, data), outputs(case.oracle, data), strict=True)
        distances = [output_distance(own, ideal) for own, ideal in images]
        for i, (patient, error) in enumerate(zip(data.patients, nmse(theta, data).tolist(), strict=True)):
            rows.append(Examined(name, LEFT, split, patient, f"{split}-{i}", (error,), error, distances[i]))
    return rows
