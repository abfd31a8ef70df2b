"""Where the time of a round over gRPC goes: Flower's stock set-up, and ours.

    python -m bench.grpc_round [--rounds 6] [--out bench/results/grpc_round.json]

A real consortium of three sites on this machine (the preset ``tiny``: TLS, registered keys, one SuperLink,
three SuperNodes) is started twice:

``stock``
    Flower's ``FedAvg`` and its ``send_and_receive``, the default interval at which a SuperExec looks for
    work, a new process with its imports for every message, and an evaluation phase of its own in every round.
    The ClientApp is ours.
``ours``
    ``reconsent train``, evaluation in every round, fused into the training message; a message's process is
    forked from one that has the imports.

Medians over the rounds but the first and the last: ``wall`` from the end of one round to the end of the next;
``work``, the longest time that a site itself worked on the round's messages, training and evaluation, as its
log says; ``rest``, the difference; and the whole life of a ClientApp process.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import tomli_w

from deploy import commands
from deploy.application import assemble
from deploy.flower_control import RunValue
from deploy.layout import SUPERLINK, Layout
from deploy.local_consortium import LocalConsortium
from deploy.processes import tail
from reconsent.config import ConsortiumConfig, load_consortium
from reconsent.errors import DeployError, StateError
from server.bookkeeping import MAIN
from server.persistence import RoundLog, StateDirectory

CLIENT = ("flwr-clientapp", "knock.py")
"""Flower's program for a message, and ours."""
RUN_SECONDS = 500.0


def main() -> None:
    """Measure both, print, and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--only", choices=("stock", "ours"))
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    found: dict[str, Any] = {"rounds": args.rounds, "cores": os.cpu_count(), "sites": 3}
    for kind, measure in (("stock", _stock), ("ours", _ours)):
        if args.only in (None, kind):
            with tempfile.TemporaryDirectory(prefix="grpc-round-") as directory:
                found[kind] = measure(Path(directory), args.rounds) | {"load": round(os.getloadavg()[0], 2)}
    text = json.dumps(found, indent=2)
    sys.stdout.write(text + "\n")
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")


def _config(rounds: int) -> ConsortiumConfig:
    tiny = load_consortium("tiny")
    training = tiny.training.model_copy(
        update={"rounds": rounds, "evaluate_every": 1, "join_seconds": 300.0, "local_steps": 3}
    )
    return tiny.model_copy(update={"withdrawals": (), "training": training})


def _ours(directory: Path, rounds: int) -> dict[str, Any]:
    from deploy.application import application_directory

    with _consortium(directory, rounds) as local:
        app = application_directory(local.layout.app)
        settings: dict[str, RunValue] = {"task": "train", "rounds": rounds, "state": str(local.layout.state)}
        lives = _run(local, app, settings, lambda: _rounds_done(local.layout) >= rounds)
        work = _work(local.layout, rounds)
        with StateDirectory.open(local.layout.state, writable=False) as state:
            records = list(RoundLog(state).all(MAIN))
    ends = [record.created_at.timestamp() for record in records if record.created_at]
    return _summary(ends, work, lives) | {
        "server": {
            step: round(statistics.median(float(r.metrics["steps"][step]) for r in records[1:-1]), 3)
            for step in ("prepare", "replies", "average")
        }
    }


def _stock(directory: Path, rounds: int) -> dict[str, Any]:
    # As Flower does by default; the consortium sets its own interval otherwise.
    interval = dict(commands.POLLING)
    commands.POLLING.clear()
    try:
        out = directory / "rounds.json"
        with _consortium(directory, rounds) as local:
            for site in _config(rounds).sites:
                (local.layout.programs(site.name) / "flwr-clientapp").unlink()
            settings: dict[str, RunValue] = {"rounds": rounds, "out": str(out)}
            lives = _run(local, _stock_app(directory / "app"), settings, out.exists)
            work = _work(local.layout, rounds)
        told = json.loads(out.read_text(encoding="utf-8"))
    finally:
        commands.POLLING.update(interval)
    return _summary(told["ends"], work, lives)


def _rounds_done(layout: Layout) -> int:
    try:
        with StateDirectory.open(layout.state, writable=False) as state:
            return RoundLog(state).count(MAIN)
    except StateError:  # There is none yet.
        return 0


def _work(layout: Layout, rounds: int) -> list[float]:
    """Of each round, the longest that a site worked: the sum over training and evaluation of the longest."""
    longest: dict[tuple[int, str], float] = {}
    for site in _config(rounds).sites:
        for line in layout.site_log(site.name).read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            if entry.get("event") == "worked" and entry.get("round"):
                key = int(entry["round"]), str(entry["type"])
                longest[key] = max(longest.get(key, 0.0), float(entry["seconds"]))
    return [sum(s for (number, _), s in longest.items() if number == n) for n in range(1, rounds + 1)]


def _stock_app(target: Path) -> Path:
    """Our ClientApp with a ServerApp of Flower's own strategy."""
    assemble(target)
    file = target / "pyproject.toml"
    table = tomllib.loads(file.read_text(encoding="utf-8"))
    app = table["tool"]["flwr"]["app"]
    app["components"]["serverapp"] = "bench_stock:app"
    app["fab-include"].append("bench_stock.py")
    app["config"]["out"] = ""
    file.write_text(tomli_w.dumps(table), encoding="utf-8")
    source = Path(__file__).with_name("stock_server.py").read_text(encoding="utf-8")
    (target / "bench_stock.py").write_text(source, encoding="utf-8")
    return target


@contextmanager
def _consortium(directory: Path, rounds: int) -> Iterator[LocalConsortium]:
    local = LocalConsortium(directory / "state")
    try:
        local.up(_config(rounds))
        yield local
    finally:
        local.down()


def _run(
    local: LocalConsortium, app: Path, settings: dict[str, RunValue], done: Callable[[], bool]
) -> list[float]:
    """Submit, wait for the end; returns how long each ClientApp process lived."""
    settings["consortium"] = str(local.layout.consortium)
    nodes = [c.pid for c in local.describe() if c.site and c.pid]
    ended, lives = threading.Event(), dict[int, tuple[float, float]]()
    watcher = threading.Thread(target=_watch, args=(nodes, ended, lives))
    watcher.start()
    try:
        number = local.control.submit_run(app, settings)
        deadline = time.monotonic() + RUN_SECONDS
        while time.monotonic() < deadline:
            time.sleep(1)
            # To ask Flower starts a program, which would take time from what is measured.
            if not done() and time.monotonic() < deadline - 30:
                continue
            run = next(run for run in local.control.list_runs() if run.run_id == number)
            if run.finished:
                break
        else:
            raise DeployError("The run has not ended.", f"See {local.layout.log(SUPERLINK)}.")
        if run.status != "finished:completed":
            raise DeployError(f"The run is {run.status}: {tail(local.layout.log(SUPERLINK), 30)}")
    finally:
        ended.set()
        watcher.join()
    return [last - first for first, last in lives.values()]


def _watch(nodes: list[int], ended: threading.Event, lives: dict[int, tuple[float, float]]) -> None:
    """Note the beginning and the end of every ClientApp process, to a quarter of a second."""
    while not ended.wait(0.25):
        for node in nodes:
            for child in psutil.Process(node).children(recursive=True):
                try:
                    if child.pid in lives or _is_client(child):
                        lives[child.pid] = (child.create_time(), time.time())
                except psutil.Error:
                    continue


def _is_client(process: psutil.Process) -> bool:
    return any(name in word for word in process.cmdline()[:4] for name in CLIENT)


def _summary(ends: list[float], work: list[float], lives: list[float]) -> dict[str, Any]:
    walls = [later - earlier for earlier, later in pairwise(ends)][: len(ends) - 2]
    kept = work[1 : len(walls) + 1]
    return {
        "wall": round(statistics.median(walls), 2),
        "work": round(statistics.median(kept), 2),
        "rest": round(statistics.median(w - k for w, k in zip(walls, kept, strict=True)), 2),
        "walls": [round(wall, 2) for wall in walls],
        "client_process": round(statistics.median(lives), 2),
        "client_processes": len(lives),
    }


if __name__ == "__main__":
    main()
