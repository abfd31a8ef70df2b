"""Runs a whole consortium on this machine: data, Flower's simulation engine, measurements, results."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from reconsent.config import ConsortiumConfig, dump_consortium, load_consortium
from reconsent.environment import (
    CONSORTIUM_VARIABLE,
    LEDGERS_VARIABLE,
    PHANTOMS_VARIABLE,
    STATE_VARIABLE,
)
from reconsent.errors import ConfigError, DataError, ReconsentError, StateError
from reconsent.files import write_atomically
from reconsent.log_lines import FORMAT_VARIABLE, NOTHING

if TYPE_CHECKING:
    from cli.results import Results
    from mri.overlap import KnownVolumes
    from mri.split import Split as PatientSplit
    from server.bookkeeping import Bookkeeping
    from server.persistence import ModelVersion

Progress = Callable[[str, int, int], None]
"""Told what is being done, how far it is, and how far it will go."""

_NAMED = 5
"""Foreign files that an error names."""


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """Where a simulation keeps everything: ``consortium.toml``, ``data/``, ``state/``, and what it found."""

    path: Path

    @property
    def consortium(self) -> Path:
        """The resolved consortium file."""
        return self.path / "consortium.toml"

    @property
    def data(self) -> Path:
        """Phantoms, one directory a site."""
        return self.path / "data"

    @property
    def state(self) -> Path:
        """The server's state directory."""
        return self.path / "state"

    @property
    def privacy(self) -> Path:
        """The sites' privacy ledgers."""
        return self.path / "privacy"

    @property
    def results(self) -> Path:
        """``results.json``."""
        return self.path / "results.json"

    @property
    def report(self) -> Path:
        """``report.html``."""
        return self.path / "report.html"

    def prepare(self, consortium: ConsortiumConfig) -> None:
        """Write the consortium file, or check that a run to be taken up again is the same one.

        Raises
        ------
        ConfigError
            If the directory holds a run of another consortium, or something else than a run.
        ReconsentError
            If it cannot be written to.
        """
        with _writing(self.path):
            self._prepare(consortium)

    def _prepare(self, consortium: ConsortiumConfig) -> None:
        text = dump_consortium(consortium)
        if self.consortium.exists():
            if load_consortium(self.consortium) != consortium:
                raise ConfigError(
                    f"{self.path} holds a run of a different consortium (see {self.consortium}).",
                    "Choose another --out, or remove that directory.",
                )
            return
        if foreign := self._foreign():
            raise ConfigError(
                f"{self.path} holds what is not of a run ({', '.join(foreign)}); nothing was written there.",
                "Choose another --out: a new directory, or that of a run to be taken up again.",
            )
        write_atomically(self.consortium, text.encode())

    def _foreign(self) -> list[str]:
        """What lies there, and no run would have put there; the first few names."""
        own = {place.name for place in (self.data, self.state, self.privacy, self.results, self.report)}
        there = self.path.iterdir() if self.path.is_dir() else iter(())
        found = sorted(each.name for each in there if each.name not in own and not each.name.startswith("."))
        return found if len(found) <= _NAMED else [*found[:_NAMED], f"{len(found) - _NAMED} more"]

    @contextmanager
    def environment(self) -> Iterator[None]:
        """Tell server, sites and workers, in this and in new processes, where all is; undone at the end.

        Whatever this process starts later must not inherit it: a real consortium's sites would take the
        simulation's privacy ledgers for their own.
        """
        changes = {
            CONSORTIUM_VARIABLE: str(self.consortium.resolve()),
            PHANTOMS_VARIABLE: str(self.data.resolve()),
            STATE_VARIABLE: str(self.state.resolve()),
            LEDGERS_VARIABLE: str(self.privacy.resolve()),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
            # The sites' lines would come between the pictures of the progress.
            FORMAT_VARIABLE: os.environ.get(FORMAT_VARIABLE) or NOTHING,
            # Ray starts its workers with niceness 15: on a busy machine they would hardly ever run.
            "RAY_worker_niceness": "0",
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
            "OMP_NUM_THREADS": "1",
            # A training step takes and frees thousands of small arrays: kept by the allocator, not given back
            # to the system and cleared again each time.
            "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
            "MALLOC_TRIM_THRESHOLD_": str(1 << 32),
        }
        before = {name: os.environ.get(name) for name in changes}
        os.environ.update(changes)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


@contextmanager
def _writing(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ReconsentError(
            f"The run cannot be written to {directory}: {error}.",
            "Choose with --out a directory that is writable and has room; the same command with the same "
            "--out takes an interrupted run up again.",
        ) from None


def prepare_data(consortium: ConsortiumConfig, progress: Progress) -> None:
    """Make the phantoms of sites without data, and read every site's patients once.

    Raises
    ------
    DataError
        If a site's data cannot be used, or two sites would share patients.
    """
    from client.site import site_directory, site_split
    from mri.overlap import KnownVolumes

    seen: dict[str, tuple[Path, set[str], KnownVolumes]] = {}
    for site in consortium.sites:

        def step(done: int, total: int, name: str = site.name) -> None:
            progress(f"data of {name}", done, total)

        directory = site_directory(consortium.seed, site, progress=step).resolve()
        split = site_split(consortium.seed, site)
        patients = {*split.train, *split.test}
        _refuse_unknown_leavers(consortium, site.name, split)
        known = KnownVolumes(directory, patients)
        for other, (place, theirs, volumes) in seen.items():
            if place == directory and (shared := len(patients & theirs)):
                raise DataError(
                    f"The sites '{other}' and '{site.name}' share {shared} patients of {directory}.",
                    "Give each site a directory of its own, or name its patients with `patients`.",
                )
            if place != directory:
                _refuse_overlap(other, volumes, site.name, known)
        seen[site.name] = directory, patients, known


def _refuse_unknown_leavers(consortium: ConsortiumConfig, site: str, split: PatientSplit) -> None:
    leaving = consortium.patients_leaving(site)
    remedy = "`reconsent data check` lists the patients of a directory."
    if unknown := sorted(leaving - {*split.train, *split.test}):
        raise DataError(f"Site '{site}' has no patients {', '.join(unknown)} who could withdraw.", remedy)
    if leaving and leaving.isdisjoint(split.train):
        raise DataError(
            f"Site '{site}' only tests on the patients who withdraw: there is nothing to unlearn.",
            f"It trains on {', '.join(split.train[:5])}{', …' if len(split.train) > 5 else ''}.",
        )
    if leaving >= set(split.train) or leaving >= set(split.test):
        raise DataError(
            f"Without the patients who withdraw site '{site}' would have none to train, or none to test on.",
            "Withdraw the site as a whole.",
        )


def _refuse_overlap(first: str, theirs: KnownVolumes, second: str, own: KnownVolumes) -> None:
    """Patients of two sites in one consortium: whoever withdraws would stay in the other's contributions."""
    remedy = "Leave each patient at one site only, or name a site's patients with `patients`."
    if shared := sorted(theirs.pseudonyms & own.pseudonyms):
        shown = ", ".join(shared[:3]) + (", …" if len(shared) > 3 else "")
        raise DataError(
            f"The sites '{first}' and '{second}' share {len(shared)} patients, in different directories: "
            f"{shown}.",
            remedy,
        )
    if same := theirs.same_files(own):
        raise DataError(
            f"The sites '{first}' and '{second}' share {len(same)} volumes: {same[0][0]} and {same[0][1]} "
            "hold the same bytes.",
            remedy,
        )


def run_consortium(consortium: ConsortiumConfig, *, workers: int) -> None:
    """Run the ServerApp and as many ClientApps as there are sites on Flower's simulation engine.

    Raises
    ------
    ReconsentError
        Whatever the server raised.

    Notes
    -----
    Ctrl-C ends the process at once with status 130: the server's thread would go on waiting for its sites,
    and whatever it has committed is safe. So does an engine that fails while that thread runs, with status 1.
    """
    import logging
    import threading
    import warnings

    from flwr.simulation import run_simulation

    import client.app
    import server.app
    from client.device import gpu_share

    logging.getLogger("flwr").setLevel(logging.ERROR)
    server.app.last_error.clear()
    gpus = gpu_share(os.environ, workers)
    threads = set(threading.enumerate())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            run_simulation(
                server_app=server.app.app,
                client_app=client.app.app,
                num_supernodes=len(consortium.sites),
                backend_config={
                    "client_resources": {"num_cpus": 1, "num_gpus": gpus},
                    "init_args": {"num_cpus": workers, "include_dashboard": False, "log_to_driver": False},
                },
            )
        except KeyboardInterrupt:
            _end_at_once("Interrupted. The same command with the same --out takes the run up again.", 130)
        except Exception as error:
            if server.app.last_error:
                raise server.app.last_error[0] from None
            failed = ReconsentError(
                f"Flower's simulation engine failed: {error}",
                "Its own words are above. The same command with the same --out takes the run up again.",
            )
            if any(not thread.daemon for thread in set(threading.enumerate()) - threads):
                _end_at_once(f"Error: {failed.problem}\n       {failed.remedy}", 1)
            raise failed from error
    if server.app.last_error:
        raise server.app.last_error[0]


def _end_at_once(text: str, status: int) -> NoReturn:
    sys.stderr.write(f"\n{text}\n")
    sys.stderr.flush()
    os._exit(status)


def assess(
    consortium: ConsortiumConfig, directory: RunDirectory, progress: Progress, *, workers: int
) -> Results:
    """Measure the models, and write ``results.json`` and ``report.html``; then keep those models only.

    A run that was assessed before is not measured again.
    """
    from cli.assessment import Observer, Split
    from cli.evidence.collect import collect, work_of
    from cli.evidence.subjects import subjects
    from cli.gathering import Measurements, gather, models_of
    from cli.report import render_report
    from server.bookkeeping import MAIN, ORACLE, Bookkeeping
    from server.persistence import StateDirectory

    began = time.time()
    with StateDirectory.open(directory.state) as state:
        books = Bookkeeping(state)
        models = models_of(books)
        if (found := _assessed(directory, models.named())) is not None:
            return found
        left = [site for withdrawal in consortium.withdrawals for site in withdrawal.sites]
        splits: list[tuple[str, Split]] = [(site.name, "test") for site in consortium.sites]
        splits += [(site, "train") for site in left]
        wanted = [(n, v, site, split) for n, v in models.named().items() for site, split in splits]
        measured_rounds = [
            books.registry.get(record.model_version)
            for line in (MAIN, ORACLE)
            for record in books.log.all(line)
            if record.model_version and record.metrics.get("evaluation") and record.kind == "retain"
        ]
        curves = [(v.id, v, site) for v in measured_rounds if not v.pruned for site in left]
        relearning = {n: v for n, v in models.named().items() if n != "continued"} if left else {}
        total = len(wanted) + len(curves) + len(relearning) * len(left) + len(consortium.sites)
        total += work_of(consortium) if models.unlearned else 0
        done = 0

        def step() -> None:
            nonlocal done
            done += 1
            progress("measuring", done, total)

        with Observer(directory.consortium, books.registry, workers=workers) as observer:
            relearned = observer.relearn(relearning, left, step)
            quality = observer.quality(wanted, step)
            rounds = observer.quality([(i, v, site, "test") for i, v, site in curves], step)
            drawn = observer.pictures(models.named(), left, step)
            measured = Measurements(relearn=relearned(), quality=quality())
            for row in rounds():
                measured.rounds.setdefault(row.model, []).append(row)
            if models.unlearned:
                measured.evidence = collect(consortium, observer, subjects(books, measured, left), step)
            pictures = drawn()
        results = gather(consortium, state, measured, _timing(books, time.time() - began))
        with _writing(directory.path):
            render_report(results, pictures, directory.report)
            results.save(directory.results)
        # Only now that nothing more is to be measured.
        books.retention.prune_to(models.named().values())
    return results


def found_before(directory: RunDirectory) -> Results | None:
    """What an earlier run of the same command found, if it came to its end: then nothing is to be done."""
    from cli.gathering import models_of
    from server.bookkeeping import MAIN, Bookkeeping
    from server.persistence import StateDirectory

    if not directory.results.is_file():
        return None
    try:
        with StateDirectory.open(directory.state, writable=False) as state:
            books = Bookkeeping(state)
            return _assessed(directory, models_of(books).named()) if books.registry.all(MAIN) else None
    except StateError:
        # Whatever is wrong with it, the server will say.
        return None


def _assessed(directory: RunDirectory, models: Mapping[str, ModelVersion]) -> Results | None:
    """The results of an earlier run of the same command, if they are of the same models."""
    from cli.results import Results

    if not (directory.results.is_file() and directory.report.is_file()):
        return None
    try:
        found = Results.load(directory.results)
    except ConfigError:
        return None
    digests = {name: version.digest for name, version in models.items()}
    return found if {name: model.sha256 for name, model in found.models.items()} == digests else None


def _timing(books: Bookkeeping, measuring: float) -> dict[str, float]:
    from server.bookkeeping import MAIN, ORACLE

    train = books.log.cost(MAIN, {"train"}).seconds
    unlearn = books.log.cost(MAIN, {"retain"}).seconds
    oracle = books.log.cost(ORACLE, {"retain"}).seconds
    return {
        "train_seconds": train,
        "unlearn_seconds": unlearn,
        "oracle_seconds": oracle,
        "total_seconds": train + unlearn + oracle + measuring,
    }
