"""A server that is killed in the middle of its work loses nothing it said was done."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from server.persistence import ModelRegistry, Roster, RoundLog, RunProgress, StateDirectory

KILLS = 8

# For each line on its input it forks a server that commits rounds and acknowledges each, and reports its end.
# Forking saves importing everything for each of the servers.
SERVER = """
import os, sys
from pathlib import Path
import numpy as np
from server.persistence import *

def serve(path):
    with StateDirectory.open(path) as state:
        registry, log = ModelRegistry(state), RoundLog(state)
        roster, progress = Roster(state), RunProgress(state)
        roster.start_run()
        roster.enrol("north", os.getpid(), "knee", 10, round=1)
        version = registry.latest("main")
        arrays = registry.load(version.id) if version else {"w": np.zeros(20000, np.float32)}
        if version is None:
            version = registry.add(arrays, line="main", round=0, kind="initial", parent=None, sites={})
        while True:
            number = version.round + 1
            arrays = {"w": arrays["w"] + 1}
            with state.session() as session:
                version = registry.add(
                    arrays, line="main", round=number, kind="train", parent=version.id,
                    sites={"north": 1.0}, session=session,
                )
                outcome = SiteOutcome(outcome="ok", num_examples=10)
                record = RoundRecord(
                    line="main", kind="train", round=number, sites={"north": outcome},
                    model_version=version.id,
                )
                log.append(record, session=session)
                roster.took_part(["north"], number, session=session)
                progress.put("strategy", {"round": number}, session=session)
                registry.prune("main", 3, session=session)
            os.write(1, f"{number}\\n".encode())

for _ in sys.stdin:
    child = os.fork()
    if child == 0:
        serve(Path(sys.argv[1]))
    os.write(1, f"pid {child}\\n".encode())
    os.waitpid(child, 0)
    os.write(1, b"end\\n")
"""


def test_killed_servers_lose_no_acknowledged_round(tmp_path: Path) -> None:
    """After each SIGKILL at a random moment, all tables agree on a last round that is not before the
    acknowledged one, every file verifies, and the next server goes on from there.
    """  # noqa: D205 - one sentence
    rng, path = random.Random(7), tmp_path / "state"
    root = Path(__file__).parents[3]
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    ) as servers:
        assert servers.stdin
        assert servers.stdout
        acknowledged = 0
        for rounds_before_kill in rng.sample([0, 0, 1, 2, 2, 3, 4, 5], KILLS):
            servers.stdin.write("serve\n")
            servers.stdin.flush()
            pid, lines = None, []
            for line in servers.stdout:
                lines.append(line)
                if line.startswith("pid"):
                    pid = int(line.split()[1])
                if pid and len(lines) > rounds_before_kill:
                    break
            assert pid
            time.sleep(rng.uniform(0, 0.04))
            os.kill(pid, signal.SIGKILL)
            for line in servers.stdout:
                lines.append(line)
                if line == "end\n":
                    break
            said = [int(line) for line in lines if line[0].isdigit()]
            assert said == list(range(said[0], said[0] + len(said))) if said else True
            acknowledged = max([acknowledged, *said])
            acknowledged = check(path, acknowledged)
        servers.stdin.close()
    assert acknowledged >= 17, "the servers hardly did anything"


def check(path: Path, acknowledged: int) -> int:
    """Check the state that a killed server left; returns its last round."""
    with StateDirectory.open(path) as state:
        registry = ModelRegistry(state)
        rounds = [record.round for record in RoundLog(state).all("main")]
        assert rounds == list(range(1, len(rounds) + 1))
        last = len(rounds)
        assert acknowledged <= last <= acknowledged + 1, (
            "more was done than the one round not yet acknowledged"
        )
        versions = registry.all("main")
        assert [version.round for version in versions] in (list(range(last + 1)), [])
        assert [entry.last_round or 0 for entry in Roster(state).all()] in ([last], [])
        assert RunProgress(state).get("strategy", {"round": 0}) == {"round": last}
        assert registry.verify() == []
        if not versions:
            return last
        (value,) = set(registry.load(versions[-1].id)["w"].tolist())
        assert value == last
        registry.sweep()
        kept = {registry.path(version).name for version in versions if not version.pruned}
        assert {file.name for file in state.models_dir.iterdir()} == kept
        return last
