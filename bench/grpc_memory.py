"""Memory of the server's two processes with a large model over gRPC.

    python -m bench.grpc_memory [--sites 8] [--rounds 1] [--out bench/results/grpc_memory.json]

A real consortium on this machine (TLS, registered keys) trains fastMRI's full-size VarNet (12 cascades of 18
channels, 29.9 million parameters, 114 MiB) on phantoms of 48 x 48 with two coils, one optimiser step a round.
Measured are the SuperLink and the ServerApp: peak memory in a run, less what they had when the first
ClientApp was started, before any model was sent; sampled four times a second. Resident memory counts pages of
mapped files, of which the SuperLink has many, since Flower has SQLite map its database: the system drops them
when it needs the room. Anonymous memory leaves them out; it is what a process cannot do without. Model sizes
count 4 bytes a parameter.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from deploy.application import application_directory
from deploy.layout import SUPERLINK
from deploy.local_consortium import LocalConsortium
from deploy.processes import tail
from deploy.scaling import with_sites
from reconsent.config import ConsortiumConfig, ReconstructorConfig, load_consortium
from reconsent.errors import DeployError
from server.bookkeeping import MAIN
from server.persistence import ModelRegistry, RoundLog, StateDirectory

RUN_SECONDS = 480.0
MIB = 2**20

Peaks = dict[str, dict[str, tuple[int, int]]]
"""Process → kind of memory → what it had before, and at its peak, in bytes."""


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sites", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="grpc-memory-") as directory:
        found = _measure(Path(directory), args.sites, args.rounds)
    text = json.dumps(found, indent=2)
    sys.stdout.write(text + "\n")
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")


def _config(sites: int, rounds: int) -> ConsortiumConfig:
    tiny = with_sites(load_consortium("tiny"), sites)
    model = ReconstructorConfig(
        name="varnet", cascades=12, channels=18, pools=4, sensitivity_channels=8, sensitivity_pools=4
    )
    training = tiny.training.model_copy(
        update={
            "rounds": rounds,
            "local_steps": 1,
            "batch_size": 1,
            "evaluate_every": 0,
            "join_seconds": 400.0,
        }
    )
    return tiny.model_copy(update={"withdrawals": (), "training": training, "model": model})


def _measure(directory: Path, sites: int, rounds: int) -> dict[str, Any]:
    local = LocalConsortium(directory / "state")
    try:
        local.up(_config(sites, rounds))
        peaks = _run(local, rounds)
    finally:
        local.down()
    with StateDirectory.open(local.layout.state, writable=False) as state:
        latest = ModelRegistry(state).latest(MAIN)
        records = list(RoundLog(state).all(MAIN))
    assert latest is not None  # noqa: S101 - the run was completed
    size = latest.bytes / MIB
    measured: dict[str, Any] = {
        "sites": sites,
        "rounds": len(records),
        "model_mib": round(size, 1),
        "replies": [sum(o.outcome == "ok" for o in record.sites.values()) for record in records],
        "round_seconds": [round(record.seconds, 1) for record in records],
        "cores": os.cpu_count(),
    }
    for name, found in peaks.items():
        measured[name] = {
            kind: {
                "before_mib": round(before / MIB, 1),
                "peak_mib": round(peak / MIB, 1),
                "models_above": round((peak - before) / latest.bytes, 2),
            }
            for kind, (before, peak) in found.items()
        }
    return measured


def _run(local: LocalConsortium, rounds: int) -> Peaks:
    """Watch both processes while the rounds run."""
    parts = local.describe()
    link = psutil.Process(next(c.pid for c in parts if c.name == SUPERLINK and c.pid))
    nodes = [psutil.Process(c.pid) for c in parts if c.site and c.pid]
    peaks: Peaks = {}
    ended = threading.Event()
    watcher = threading.Thread(target=_watch, args=(link, nodes, ended, peaks))
    watcher.start()
    try:
        settings: dict[str, bool | int | float | str] = {
            "task": "train",
            "rounds": rounds,
            "state": str(local.layout.state),
            "consortium": str(local.layout.consortium),
        }
        number = local.control.submit_run(application_directory(local.layout.app), settings)
        deadline = time.monotonic() + RUN_SECONDS
        while not (run := next(r for r in local.control.list_runs() if r.run_id == number)).finished:
            if time.monotonic() > deadline:
                raise DeployError("The run has not ended.", f"See {local.layout.log(SUPERLINK)}.")
            time.sleep(5)
        if run.status != "finished:completed":
            raise DeployError(f"The run is {run.status}: {tail(local.layout.log(SUPERLINK), 30)}")
    finally:
        ended.set()
        watcher.join()
    return peaks


def _watch(
    link: psutil.Process,
    nodes: list[psutil.Process],
    ended: threading.Event,
    peaks: Peaks,
) -> None:
    server: psutil.Process | None = None
    while not ended.wait(0.25):
        if server is None:
            server = _child(link, "flwr-serverapp")
        if not peaks and not any(_child(node, "knock.py") for node in nodes):
            continue
        for name, process in (("superlink", link), ("serverapp", server)):
            if process is not None:
                try:
                    memory = process.memory_info()
                except psutil.Error:
                    continue
                for kind, now in (("resident", memory.rss), ("anonymous", memory.rss - memory.shared)):
                    before, peak = peaks.setdefault(name, {}).get(kind, (now, now))
                    peaks[name][kind] = before, max(peak, now)


def _child(parent: psutil.Process, name: str) -> psutil.Process | None:
    for child in parent.children(recursive=True):
        try:
            if any(name in word for word in child.cmdline()[:4]):
                return child
        except psutil.Error:
            continue
    return None


if __name__ == "__main__":
    main()
