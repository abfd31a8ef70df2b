"""Runs a whole consortium on this machine: Flower's simulation engine, measurements, results."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, NoReturn

from cli.consortium_data import Progress
from cli.run_directory import RunDirectory, writing
from reconsent.config import ConsortiumConfig
from reconsent.errors import ConfigError, ReconsentError, StateError

if TYPE_CHECKING:
    from cli.results import Results
    from server.bookkeeping import Bookkeeping
    from server.persistence import ModelVersion


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
        with writing(directory.path):
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
