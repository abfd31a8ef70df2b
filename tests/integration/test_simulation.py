"""``reconsent simulate tiny`` on Flower's real simulation engine, in processes of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from cli.results import Results
from cli.run_directory import RunDirectory
from cli.simulation import assess, found_before
from cli.trials import coordinating
from deploy.ports import find_ports
from reconsent.config import load_consortium
from reconsent.errors import StateError
from server.persistence import RoundLog, StateDirectory
from tests.integration.one_thread import one_thread

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]

MODELS = ("original", "unlearned")


def command(out: Path, *options: str) -> list[str]:
    """The command line, run from the working tree; by a file, as the installed command is one."""
    program = out.parent / "reconsent"
    lines = "import sys", "from cli.main import main", "if __name__ == '__main__':", "    main(sys.argv[1:])"
    program.write_text("\n".join(lines))
    return [sys.executable, str(program), "simulate", "tiny", "--out", str(out), "--json", *options]


def environment() -> dict[str, str]:
    """Nothing of the caller's own Reconsent."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RECONSENT_")}
    return {**kept, "PYTHONPATH": str(ROOT)}


def simulate(out: Path, *options: str) -> dict[str, Any]:
    """The JSON that a simulation prints; nothing that it starts may complain of other people's libraries."""
    done = subprocess.run(
        command(out, *options), env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "DeprecationWarning" not in done.stderr
    return dict(json.loads(done.stdout))


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first run is."""
    return tmp_path_factory.mktemp("simulation") / "first"


@pytest.fixture(scope="module")
def watched(out: Path) -> str:
    """The metrics of a run while it trained; then it was killed."""
    (port,) = find_ports([None])
    with subprocess.Popen(
        command(out, "--metrics-port", str(port)),
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        while process.poll() is None and rounds(out / "state") < 2:
            time.sleep(0.1)
        found = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False, timeout=60).text
        os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert 2 <= rounds(out / "state") < 8
    assert not (out / "results.json").exists()
    return found


@pytest.fixture(scope="module")
def first(out: Path, watched: str) -> dict[str, Any]:
    """What the same command printed, which took the killed run up and ended it."""
    assert watched
    return simulate(out)


def test_results(first: dict[str, Any], out: Path) -> None:
    """What is printed is results.json, it fits its schema, and has every figure under its documented name."""
    assert first == json.loads((out / "results.json").read_text(encoding="utf-8"))
    results = Results.load(out / "results.json")
    assert results.schema_version == 1
    assert results.simulation
    method = "cached-ascent"
    gaps = {"retain_test", "forget_test", "forget_train"}
    assert set(first["oracle_gap"][method]) == set(first["original_gap"]) == gaps
    assert set(first["relearn_gap"][method]) == {"2", "4"}, "the steps in the preset"
    cost = first["cost"][method]
    assert {"rounds_fraction", "client_seconds_fraction", "bytes_fraction"} <= set(cost)
    assert cost["rounds_fraction"] == pytest.approx(2 / 6)
    assert 0.2 < cost["bytes_fraction"] < 0.5, "two of three sites, two of six rounds, and the gate"
    assert set(first["models"]) == {"original", "unlearned", "oracle"}
    for accuracy in first["accuracy"].values():
        for quality in (accuracy[name] for name in gaps):
            assert {"psnr", "ssim", "nmse"} <= set(quality)
    kinds = [(r["line"], r["kind"]) for r in first["rounds"]]
    assert kinds == [("main", "train")] * 6 + [("main", "retain")] * 2 + [("oracle", "retain")] * 6
    assert {site["name"]: site["withdrawn"] for site in first["sites"]} == {
        "brain": False,
        "abdomen": False,
        "knee": True,
    }
    assert first["versions"]["flwr"].startswith("1.39")


def test_evidence(first: dict[str, Any]) -> None:
    """The cheap checks are made on the original and on the unlearned model, each with its limits."""
    evidence = first["evidence"]
    by_model = {
        model: {f["check"]: f for f in evidence["findings"] if f["model"] == model} for model in MODELS
    }
    expected = {
        *(f"gap/{name}" for name in ("retain-test", "forget-test", "forget-train")),
        "relearn", "function-distance", "membership/loss", "error-distribution", "alignment",
        "false-structure/retain-test",
    }  # fmt: skip
    assert {frozenset(findings) for findings in by_model.values()} == {frozenset(expected)}
    assert by_model["original"]["alignment"]["value"] == pytest.approx(1.0)
    assert by_model["original"]["alignment"]["verdict"] == "failed", "nothing was done to it"
    # The mean gap is the one of the accuracies.
    for name in ("retain-test", "forget-test", "forget-train"):
        gap = first["oracle_gap"]["cached-ascent"][name.replace("-", "_")]
        assert by_model["unlearned"][f"gap/{name}"]["value"] == pytest.approx(gap)
    assert evidence["oracles"] == 1
    assert {check.partition("/")[0] for check in expected} <= {
        n.partition("/")[0] for n in evidence["limits"]
    }
    models = {row["model"] for row in evidence["hallucination"]}
    assert models == {"original", "unlearned", "oracle"}
    assert all(row["false_structure"] is not None for row in evidence["hallucination"]), "phantoms are known"
    assert evidence["not_measured"] == []


def test_report(first: dict[str, Any], out: Path) -> None:
    """The report is one self-contained file that says it is a simulation."""
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "SIMULATION" in page
    assert "knee" in page
    assert "<svg" in page or "data:image/png;base64," in page
    for remote in ('src="http', "src='http", 'href="http', "@import"):
        assert remote not in page
    assert first["oracle_gap"]


def test_withdrawal_is_completed(first: dict[str, Any], out: Path) -> None:
    """The withdrawal is completed, marked as simulated, and no contribution of the site is left."""
    (withdrawal,) = first["withdrawals"]
    assert withdrawal["state"] == "completed"
    assert withdrawal["sites"] == ["knee"]
    state = out / "state"
    contributions = [file for file in (state / "contributions").rglob("*") if file.is_file()]
    assert contributions
    assert not [file for file in state.rglob("*knee*") if file.is_file()]
    kept = {file.stem for file in (state / "models").iterdir()}
    named = {model["sha256"] for model in first["models"].values()}
    assert named <= kept
    assert len(kept) <= len(named) + 1, "those models and the initial one"


def test_again_changes_nothing(first: dict[str, Any], out: Path, tmp_path: Path) -> None:
    """The same command with the same --out finds the run done, and prints the same again.

    Only a run that is: of results beside no model, or beside others, nothing is taken.
    """
    assert simulate(out) == first
    directory = RunDirectory(out)
    found = found_before(directory)
    assert found is not None and json.loads(found.model_dump_json()) == first
    for name in ("results.json", "report.html"):
        (tmp_path / name).write_bytes((out / name).read_bytes())
    assert found_before(RunDirectory(tmp_path)) is None, "there is no state"
    with StateDirectory.open(tmp_path / "state"):
        pass
    assert found_before(RunDirectory(tmp_path)) is None, "there is no model"
    other = found.model_copy(deep=True)
    shutil.copytree(out / "state", tmp_path / "copied" / "state")
    (tmp_path / "copied" / "report.html").write_bytes((out / "report.html").read_bytes())
    model = other.models["unlearned"]
    other.models["unlearned"] = model.model_copy(update={"sha256": other.models["original"].sha256})
    other.save(tmp_path / "copied" / "results.json")
    assert found_before(RunDirectory(tmp_path / "copied")) is None, "they are of another model"


def test_a_run_can_be_watched(watched: str) -> None:
    """While it trains, its metrics can be read."""
    (counted,) = re.findall(r"^reconsent_training_rounds ([\d.]+)$", watched, re.MULTILINE)
    assert float(counted) >= 2


def test_killed_run_ends_the_same(first: dict[str, Any], tmp_path: Path) -> None:
    """The run that was SIGKILLed amid training ended with the bit-identical models of one in a single process
    to which nothing happened: one seed gives one result, whatever runs it, and the oracle has no influence.
    """  # noqa: D205 - one sentence
    tiny = load_consortium("tiny")
    alone = tiny.model_copy(update={"assessment": tiny.assessment.model_copy(update={"oracle": False})})
    directory = RunDirectory(tmp_path / "undisturbed")
    with one_thread():
        with coordinating(directory, alone, 0) as coordinator:
            coordinator.run()
        found = assess(alone, directory, lambda *_: None, workers=0)
    again = json.loads(found.model_dump_json())
    for model in MODELS:
        assert again["models"][model]["sha256"] == first["models"][model]["sha256"]
    assert "oracle" not in again["models"]
    # Without an oracle the checks are those that need none, and doing nothing does not pass them.
    changed = [f for f in again["evidence"]["findings"] if f["check"].startswith("changed/")]
    assert {f["verdict"] for f in changed if f["model"] == "original"} <= {"failed", "undecided"}
    assert len(changed) == 4
    assert again["evidence"]["oracles"] == 0
    assert again["accuracy"]["unlearned"] == first["accuracy"]["unlearned"]


def rounds(state: Path) -> int:
    """Rounds that a run has committed so far."""
    try:
        with StateDirectory.open(state, url="", writable=False) as looking:
            return RoundLog(looking).count("main")
    except StateError:
        return 0  # nothing there yet


def test_an_engine_that_cannot_start_ends_the_run(tmp_path: Path) -> None:
    """Ray refuses to start: the run ends with its words and status 1, though the server waits for sites."""
    broken = {**environment(), "RAY_ADDRESS": "127.0.0.1:1"}
    done = subprocess.run(
        command(tmp_path / "out"), env=broken, capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 1
    assert "simulation engine failed" in done.stderr and "takes the run up again" in done.stderr
