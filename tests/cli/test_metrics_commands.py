"""``reconsent metrics``: its server as a process, its file, its list, and a simulation that is watched."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest

from cli.main import main
from cli.metrics import serving
from cli.simulated_gaps import GapsFile
from client.policy import POLICY_VARIABLE
from client.site_log import SiteLog
from deploy.certificates import AUTHORITY, certificate_statuses, make_certificates
from deploy.exporters import METRICS as METRICS_PORT
from deploy.exporters import exporter, exporter_command
from deploy.layout import Layout
from deploy.ports import find_ports
from reconsent.errors import ConfigError
from server.metrics import METRICS, StateCollector, catalogue, simulated
from server.names import MAIN
from server.persistence import ModelRegistry, StateDirectory
from tests.cli.results_builder import build_results

MODEL = {"w": np.zeros(1, np.float32)}
RECONSENT = str(Path(sys.executable).parent / "reconsent")


def run(*arguments: str) -> None:
    """Run the command line in this process, to its good end."""
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert not end.value.code


def test_the_exporter_serves_until_it_is_told_to_stop(tmp_path: Path) -> None:
    """It says where it is, shows the state and its own process, and ends well on SIGTERM."""
    StateDirectory.open(tmp_path / "state").close()
    command = [RECONSENT, "metrics", "serve", "--state", str(tmp_path / "state"), "--address", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as exporter:
        assert exporter.stdout is not None
        (url,) = re.findall(r"http://127\.0\.0\.1:\d+/metrics", exporter.stdout.readline())
        page = httpx.get(url, trust_env=False).text
        assert "reconsent_state_readable 1.0" in page
        assert "process_resident_memory_bytes" in page and "python_info" in page
        assert httpx.get(url.replace("/metrics", "/readyz"), trust_env=False).status_code == 200
        exporter.send_signal(signal.SIGTERM)
        assert exporter.wait(20) == 0


def test_a_site_is_named_by_file_or_by_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --name and --log the values go to a file; with neither these nor a SITE.toml nothing is done."""
    log = SiteLog(tmp_path / "site.jsonl")
    log.append("worked", {"type": "train", "round": 1, "seconds": 1.0})
    target = tmp_path / "reconsent.prom"
    run("metrics", "site", "--name", "north", "--log", str(log.path), "--textfile", str(target))
    assert 'reconsent_site_messages_total{outcome="worked",type="train"} 1.0' in target.read_text()
    with pytest.raises(SystemExit):
        main(["metrics", "site", "--name", "north"])
    assert "which site" in capsys.readouterr().err


def test_a_site_of_a_local_consortium_shows_its_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `reconsent up` starts for a site shows its node's policy and certificate, where it has them."""
    layout = Layout(tmp_path / "state")
    layout.make()
    make_certificates(layout.tls)
    (tmp_path / "policy.toml").write_text("may-train = false\nmax-rounds-a-day = 3\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    target = tmp_path / "reconsent.prom"
    shown = {}
    for insecure, environment in ((False, {POLICY_VARIABLE: "policy.toml"}), (True, {})):
        command = exporter_command(
            layout, exporter("north"), {METRICS_PORT: 0}, insecure=insecure, environment=environment
        )
        run(*command[1:], "--textfile", str(target))
        shown[insecure] = target.read_text(encoding="utf-8")
    assert 'reconsent_site_allowed{work="train"} 0.0' in shown[False]
    assert "reconsent_site_trainings_per_day_limit 3.0" in shown[False]
    (authority,) = [s for s in certificate_statuses(layout.tls) if s.path.name == AUTHORITY]
    (ends,) = re.findall(
        r"^reconsent_site_authority_expiry_timestamp_seconds (.*)$", shown[False], re.MULTILINE
    )
    assert float(ends) == authority.expires.timestamp()
    assert "reconsent_site_allowed{" not in shown[True] and "authority" not in shown[True]


def test_the_list_has_every_metric(capsys: pytest.CaptureFixture[str]) -> None:
    """Names and types of all metrics are printed, for people and for programs."""
    run("metrics", "list")
    printed = capsys.readouterr().out
    assert all(metric.name in printed for metric in METRICS)
    run("metrics", "list", "--site", "--json")
    assert "reconsent_site_messages_total" in {e["name"] for e in json.loads(capsys.readouterr().out)}


def test_a_simulation_is_watched_from_before_its_state_is_there(tmp_path: Path) -> None:
    """Metrics are served within the block, also before there is a state; a taken port is refused."""
    (port,) = find_ports([None])
    url = f"http://127.0.0.1:{port}/metrics"
    with serving(tmp_path / "state", tmp_path / "consortium.toml", port):
        assert "reconsent_state_readable 0.0" in httpx.get(url, trust_env=False).text
        StateDirectory.open(tmp_path / "state").close()
        assert "reconsent_state_readable 1.0" in httpx.get(url, trust_env=False).text
        with pytest.raises(ConfigError, match="cannot be served"), serving(tmp_path, tmp_path, port):
            pass
    with pytest.raises(httpx.TransportError):
        httpx.get(url, trust_env=False)


def test_the_gaps_of_a_simulation_are_shown_without_a_certificate(tmp_path: Path) -> None:
    """Those of results.json, if they are of the model that was unlearned last, and of no other."""
    collector = StateCollector(tmp_path / "state", gaps=GapsFile.beside(tmp_path / "state"))
    results = build_results()
    with StateDirectory.open(tmp_path / "state") as state:
        registry = ModelRegistry(state)
        first = registry.add(MODEL, line=MAIN, kind="initial", round=0, parent=None, sites={})
        end = {"line": MAIN, "kind": "unlearned", "round": 6, "sites": {}, "forgets": ["knee"]}
        unlearned = registry.add(MODEL, parent=first.id, **end)
        models = results.models | {
            "unlearned": results.models["unlearned"].model_copy(update={"sha256": unlearned.digest})
        }
        assert collector.samples().value(simulated.ORACLE, "forget-test") is None
        results.save(tmp_path / "results.json")
        assert collector.samples().value(simulated.ORACLE, "forget-test") is None, "of another model"
        results.model_copy(update={"models": models}).save(tmp_path / "results.json")
        samples = collector.samples()
        gap = results.oracle_gap["cached-ascent"]
        for part in ("retain-test", "forget-test", "forget-train"):
            assert samples.value(simulated.ORACLE, part) == getattr(gap, part.replace("-", "_"))
        for steps, value in results.relearn_gap["cached-ascent"].items():
            assert samples.value(simulated.RELEARN, str(steps)) == value
        assert samples.value(simulated.AT) == results.created.timestamp()
        (tmp_path / "results.json").write_text("{", encoding="utf-8")
        assert collector.samples().value(simulated.ORACLE, "forget-test") is None
        assert collector.samples().value(catalogue.READABLE) == 1
    collector.close()
