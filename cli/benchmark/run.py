"""Runs a benchmark: trains, searches settings, reports the chosen ones; each attempt is kept at once."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cli.benchmark.floor import ANOTHER, other_oracles, settings_of
from cli.benchmark.plan import Case, Plan
from cli.benchmark.score import best
from cli.benchmark.store import Record, Stage, Store
from cli.trials import TrainedConsortium, train, trained
from reconsent import __version__
from reconsent.errors import ConfigError, DataError, ReconsentError

Progress = Callable[[str, int, int], None]
"""Told what is being done, how far it is, and how far it will go."""


class Benchmark:
    """A plan, where its consortia are trained, and what was found so far.

    Parameters
    ----------
    plan
        What is compared.
    work
        Directory of the trained consortia; large, and may be removed afterwards.
    store
        Where each attempt is recorded.
    workers
        Processes.
    """

    def __init__(self, plan: Plan, work: Path, store: Store, *, workers: int) -> None:
        self.plan = plan
        self.work = work
        self.store = store
        self._workers = workers
        self._digests = {case.name: case.digest for case in (*plan.search, *plan.report)}

    def run(self, progress: Progress) -> None:
        """Do whatever has not been done yet.

        Raises
        ------
        ReconsentError
            If a consortium cannot be trained. A method that fails is recorded as failed, and is no error.
        """
        # The strategies' own words would break the progress bar; what they say is in the records' notes.
        logging.getLogger("flwr").setLevel(logging.ERROR)
        search = [(case, m, s) for case in self.plan.search for m in self._methods for s in self._tried(m)]
        varied = sum(map(len, self.varied().values()))
        total = len(search) + len(self.plan.report) * (len(self._methods) + varied)
        total += len(self._floor())
        self._attempts("search", search, progress, 0, total)
        wanted = [(m, self.chosen(m)) for m in self._methods]
        wanted += [(m, settings) for m, values in self.varied().items() for settings in values.values()]
        report = [(case, m, s) for case in self.plan.report for m, s in wanted if s is not None]
        total = len(search) + len(report) + len(self._floor())
        self._attempts("report", report, progress, len(search), total)
        self._others(progress, len(search) + len(report), total)

    @property
    def unfinished(self) -> int:
        """Attempts still to be made; of a method whose every setting failed, none is."""
        missing = sum(self._untried(method) for method in self._methods)
        expected = [(method, self.reported(method)) for method in self._methods]
        expected += [
            (method, found) for method, values in self.ablated().items() for found in values.values()
        ]
        for method, found in expected:
            if self._untried(method) or self.chosen(method) is not None:
                missing += len(self.plan.report) - len(found)
        return missing + len(self._floor_missing())

    def other_oracles(self) -> list[Record]:
        """What was found of oracles that were trained besides those that methods are compared with."""
        return self._found("floor", self._floor())

    def _floor(self) -> list[tuple[Case, str, dict[str, Any]]]:
        numbers = range(1, self.plan.config.other_oracles + 1)
        return [(case, ANOTHER, settings_of(number)) for case in self.plan.report for number in numbers]

    def _floor_missing(self) -> list[tuple[Case, str, dict[str, Any]]]:
        """Not those of a case in which no method is to be reported: nothing would be held against them."""
        if not any(self._untried(m) or self.chosen(m) is not None for m in self._methods):
            return []
        return [attempt for attempt in self._floor() if self._find("floor", attempt) is None]

    def _others(self, progress: Progress, done: int, total: int) -> None:
        """Train them in the cases of which the oracle is known."""
        missing = self._floor_missing()
        done += len(self._floor()) - len(missing)
        known = {r.case: r for m in self._methods for r in self.reported(m)}
        for case in self.plan.report:
            numbers = [settings["oracle"] for c, _, settings in missing if c is case]
            if not numbers or case.name not in known:
                continue

            def keep(record: Record, digest: str = self._digests[case.name]) -> None:
                nonlocal done
                self.store.add(replace(record, digest=digest, versions=_versions()))
                done += 1

            progress(f"{case.name}: other oracles", done, total)
            place = self.work / f"{case.name}-others"
            other_oracles(case, known[case.name], place, numbers, workers=self._workers, found=keep)
        progress("other oracles", done, total)

    def _untried(self, method: str) -> int:
        return len(self._tried(method)) * len(self.plan.search) - len(self.searched(method))

    @property
    def foreign(self) -> int:
        """Records of other consortia that have the names of this plan's: they are not used."""
        return self.store.foreign(self._digests)

    def varied(self) -> dict[str, dict[str, dict[str, Any] | None]]:
        """Method → value of the ablation → the settings with it; ``None`` before any were chosen."""
        ablation = self.plan.config.ablation
        if ablation is None:
            return {}
        chosen = {method: self.chosen(method) for method in ablation.methods}
        return {
            method: {
                str(value): None if settings is None else {**settings, ablation.setting: value}
                for value in ablation.values
            }
            for method, settings in chosen.items()
        }

    @property
    def _methods(self) -> list[str]:
        return list(self.plan.config.methods)

    def _tried(self, method: str) -> list[dict[str, Any]]:
        return list(self.plan.candidates(method))

    def chosen(self, method: str) -> dict[str, Any] | None:
        """The settings that were best on the search cases; ``None`` if every one failed."""
        found = best(self.searched(method))
        return None if found is None else dict(found.settings)

    def searched(self, method: str) -> list[Record]:
        """What was found for ``method`` on the search cases."""
        return self._found("search", [(c, method, s) for c in self.plan.search for s in self._tried(method)])

    def all_searched(self, method: str) -> list[Record]:
        """The same with settings that the plan had once and has no more."""
        names = {case.name for case in self.plan.search}
        found = [
            r for r in self.store.records if r.stage == "search" and r.method == method and r.case in names
        ]
        return [record for record in found if record.digest in ("", self._digests[record.case])]

    def reported(self, method: str) -> list[Record]:
        """What was found for ``method`` at its chosen settings."""
        return self._at(method, self.chosen(method))

    def ablated(self) -> dict[str, dict[str, list[Record]]]:
        """Method → value of the ablation → what was found with it."""
        return {
            method: {value: self._at(method, settings) for value, settings in values.items()}
            for method, values in self.varied().items()
        }

    def _at(self, method: str, settings: dict[str, Any] | None) -> list[Record]:
        if settings is None:
            return []
        return self._found("report", [(case, method, settings) for case in self.plan.report])

    def _found(self, stage: Stage, wanted: Sequence[tuple[Case, str, dict[str, Any]]]) -> list[Record]:
        found = (self._find(stage, attempt) for attempt in wanted)
        return [record for record in found if record is not None]

    def _find(self, stage: Stage, attempt: tuple[Case, str, dict[str, Any]]) -> Record | None:
        return self.store.find(stage, _key(*attempt), self._digests[attempt[0].name])

    def _attempts(
        self,
        stage: Stage,
        wanted: Sequence[tuple[Case, str, dict[str, Any] | None]],
        progress: Progress,
        done: int,
        total: int,
    ) -> None:
        by_case: dict[str, list[tuple[Case, str, dict[str, Any]]]] = {}
        for case, method, settings in wanted:
            if settings is not None:
                by_case.setdefault(case.name, []).append((case, method, settings))
        for attempts in by_case.values():
            missing = [attempt for attempt in attempts if self._find(stage, attempt) is None]
            done += len(attempts) - len(missing)
            if not missing:
                continue
            case = missing[0][0]
            progress(f"training {case.name}", done, total)
            with self._trained(case) as consortium:
                _check_relearning(case, consortium)
                for _, method, settings in missing:
                    progress(f"{case.name}: {method}", done, total)
                    record = _attempt(stage, case, consortium, method, settings)
                    self.store.add(replace(record, digest=self._digests[case.name], versions=_versions()))
                    done += 1
        progress(stage, done, total)

    @contextmanager
    def _trained(self, case: Case) -> Iterator[TrainedConsortium]:
        base, place = self.work / case.base_name, self.work / case.name
        if not place.exists():
            train(base, case.base, workers=self._workers)
        with trained(place, case.consortium, workers=self._workers, like=base) as consortium:
            yield consortium


def _attempt(
    stage: Stage, case: Case, consortium: TrainedConsortium, method: str, settings: dict[str, Any]
) -> Record:
    try:
        attempt, error = consortium.attempt(method, settings), ""
    except ConfigError:
        raise
    except ReconsentError as failure:
        # A model that diverges is a finding about the method, not a fault of the benchmark.
        attempt, error = None, str(failure)
    return Record(stage, case.name, method, settings, consortium.original, consortium.oracle, attempt, error)


def _check_relearning(case: Case, consortium: TrainedConsortium) -> None:
    if not consortium.oracle.relearn:
        raise DataError(
            f"{case.name}: '{case.withdrawn}' has no fresh patient to relearn from, so nothing could be "
            "compared.",
            "Give its data directory more patients than train and test, or let another site leave.",
        )


def _versions() -> dict[str, str]:
    return {
        "reconsent": __version__,
        **{name: version(name) for name in ("torch", "fastmri", "flwr", "numpy")},
    }


def _key(case: Case, method: str, settings: dict[str, Any]) -> tuple[str, str, str]:
    return case.name, method, json.dumps(settings, sort_keys=True)
