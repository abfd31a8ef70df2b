"""How far two oracles are apart: the distance below which a method's says nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from cli.assessment import Observer, result_of
from cli.benchmark.plan import Case
from cli.benchmark.score import GAPS
from cli.benchmark.sizes import remaining_share
from cli.benchmark.store import Record
from cli.consortium_data import prepare_data
from cli.evidence.collect import taking_part
from cli.evidence.retraining import federate
from cli.gauge import Figures, Gauge
from cli.run_directory import RunDirectory
from cli.trials import Attempt, leaving
from reconsent.errors import ReconsentError

ANOTHER = "(another oracle)"
"""As a method's name in a record."""


def settings_of(number: int) -> dict[str, int]:
    """By which its record is known."""
    return {"oracle": number}


def other_oracles(
    case: Case,
    like: Record,
    place: Path,
    numbers: Sequence[int],
    *,
    workers: int,
    found: Callable[[Record], None],
) -> None:
    """Train further oracles of a case, each from another start and in another order, and measure them.

    Parameters
    ----------
    case
        Whose data, and who leaves.
    like
        Any record of the case: it tells the oracle that methods are compared with.
    place
        Directory for the data.
    numbers
        Of the oracles; each is another one.
    workers
        Processes; each trains one of them.
    found
        Told each record, also of a training that diverged.

    Raises
    ------
    DataError
        If a site's data cannot be used.
    """
    directory, consortium = RunDirectory(place), case.consortium
    directory.prepare(consortium)
    left = leaving(consortium)
    with directory.environment():
        prepare_data(consortium, lambda *_: None)
        with Observer(directory.consortium, workers=workers) as observer:
            gauge = Gauge(observer, consortium, left)
            tasks = {
                number: observer.submit(
                    federate,
                    observer.source,
                    taking_part(consortium, left),
                    rounds=consortium.training.rounds,
                    salt=f"other-oracle-{number}",
                )
                for number in numbers
            }
            for number, task in tasks.items():
                try:
                    arrays = result_of(task)
                    attempt, error = _beside(like.oracle, gauge.measure(arrays), remaining_share(case)), ""
                except ReconsentError as failure:
                    # A training that diverges is a finding, not the end of the others.
                    attempt, error = None, str(failure)
                settings = settings_of(number)
                found(
                    Record("floor", case.name, ANOTHER, settings, like.original, like.oracle, attempt, error)
                )


def _beside(oracle: Figures, figures: Figures, slices: float) -> Attempt:
    return Attempt(
        figures,
        {name: figures.psnr[name] - oracle.psnr[name] for name in GAPS},
        {steps: value - oracle.relearn[steps] for steps, value in figures.relearn.items()},
        {"slices": slices, "rounds": 1.0},
    )
