"""A real Prometheus on a real consortium, through a training and a withdrawal: values, panels, rules."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from client.policy import POLICY_VARIABLE
from client.site_log import SiteLog
from deploy import processes
from deploy.local_consortium import LocalConsortium
from deploy.ports import find_ports
from reconsent.config import dump_consortium, load_consortium
from reconsent.log_lines import FORMAT_VARIABLE
from reconsent.privacy import PrivacyConfig
from server.app import LOG_FILE
from tests.cli.console.console_at_work import PASSWORD, Visitor
from tests.deploy.deployment_files import DEPLOY
from tests.integration.operator_at_work import RECONSENT, Operator
from unlearning.signing import SigningKey

PROMETHEUS = shutil.which("prometheus")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(PROMETHEUS is None, reason="prometheus is not installed"),
]

LEAVING, NOISY = "knee", "brain"
ROUNDS, MOST_ROUNDS = 2, 1000
PANELS = [
    pytest.param(panel["title"], target["expr"], id=f"{path.stem}-{panel['title']}-{target['refId']}")
    for path in sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))
    for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]
    for target in panel.get("targets", [])
]
VARIABLES = sorted(
    {
        variable["query"]
        for path in (DEPLOY / "grafana" / "dashboards").glob("*.json")
        for variable in json.loads(path.read_text(encoding="utf-8"))["templating"]["list"]
        if variable["type"] == "query"
    }
)


@dataclass
class Watched:
    """A consortium, and the Prometheus that watches it."""

    reconsent: Operator
    url: str
    began: float
    request: str = ""

    @property
    def local(self) -> LocalConsortium:
        """The consortium's processes."""
        return self.reconsent.local

    def ask(self, path: str, **parameters: Any) -> Any:
        """The data of an answer of Prometheus' HTTP API."""
        answer = httpx.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=30, trust_env=False)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    def value(self, query: str) -> float | None:
        """The present value of a query with one series."""
        found = self.ask("query", query=query)["result"]
        assert len(found) <= 1, found
        return float(found[0]["value"][1]) if found else None

    def wait(self, query: str, wanted: Callable[[float], bool], seconds: float = 60) -> float:
        """Ask until the value is as wanted."""
        deadline = time.monotonic() + seconds
        while (found := self.value(query)) is None or not wanted(found):
            assert time.monotonic() < deadline, (query, found)
            time.sleep(0.5)
        return found


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A training of three sites, one of them with site-level noise, and a withdrawal; all of it scraped."""
    directory = tmp_path_factory.mktemp("metrics")
    tiny = load_consortium("tiny")
    # A site that adds noise tells no loss, since that would be without any; so only one does.
    noise = PrivacyConfig(mode="site", site_noise_multiplier=2.0, site_clip=0.05, site_ceiling=60.0)
    config = tiny.model_copy(
        update={
            "withdrawals": (),
            "sites": tuple(
                site.model_copy(
                    update={
                        "privacy": noise if site.name == NOISY else None,
                        "phantom": site.phantom.model_copy(update={"slices": 1, "matrix": (32, 32)}),
                    }
                )
                for site in tiny.sites
            ),
            "model": tiny.model.model_copy(update={"channels": 2, "pools": 1, "sensitivity_pools": 1}),
            "training": tiny.training.model_copy(
                update={"local_steps": 1, "evaluate_every": 1, "join_seconds": 300.0}
            ),
            "unlearning": tiny.unlearning.model_copy(update={"rounds_fraction": 0.5}),
        }
    )
    file = directory / "consortium.toml"
    file.write_text(dump_consortium(config), encoding="utf-8")
    found = Watched(Operator(directory / "state"), "", time.time())
    local = found.local
    server = None
    try:
        policy = directory / "policy.toml"
        policy.write_text(f"max-rounds-a-day = {MOST_ROUNDS}\n", encoding="utf-8")
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv(POLICY_VARIABLE, str(policy))
            found.reconsent("up", str(file))
        server, found.url = started(directory, local)
        found.reconsent("train", "--rounds", str(ROUNDS), "--quiet")
        found.request = filed_in_the_console(found, directory / "console.log")
        found.wait('reconsent_withdrawal_state{state=~"received|restricted"}', lambda value: value == 1)
        found.wait("withdrawal:reconsent_withdrawal_time_left:seconds", lambda value: value > 0)
        found.reconsent("unlearn", "--quiet")
        found.wait('reconsent_withdrawals{state="completed"}', lambda value: value == 1)
        certified(found, directory)
        found.wait("reconsent_certificates_issued_total", lambda value: value == 1)
        yield found
    finally:
        if server is not None:
            server.terminate()
            server.wait(30)
        local.down()
        assert processes.strays(str(local.layout.root)) == []


def filed_in_the_console(watched: Watched, log: Path) -> str:
    """An officer logs in to a real console and files the withdrawal; the number of that request."""
    with pytest.MonkeyPatch.context() as told:
        told.setattr(sys, "stdin", io.StringIO(f"{PASSWORD}\n"))
        watched.reconsent("console", "user", "add", "ada", "--role", "officer")
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", FORMAT_VARIABLE: "json"}
    state = str(watched.local.layout.state)
    command = [RECONSENT, "console", "--address", "127.0.0.1:0", "--state", state]
    with (
        log.open("wb") as said,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True, env=environment) as console,
    ):
        try:
            assert console.stdout is not None
            officer = Visitor(console.stdout.readline().split()[-1])
            officer.log_in("ada")
            answer = officer.confirm(officer.file(LEAVING))
        finally:
            console.terminate()
    return str(answer.headers["x-request-id"])


def certified(watched: Watched, directory: Path) -> None:
    """Issue the certificate with gaps that were measured elsewhere: here nothing was retrained."""
    gaps = [
        {"name": name, "about": "forgetting", "value": 0.25, "unit": "dB"}
        for name in ("oracle-gap/forget-test", "relearn-gap/4-steps")
    ]
    (directory / "gaps.json").write_text(json.dumps(gaps), encoding="utf-8")
    officer = SigningKey.generate().public
    (directory / "officer.pub").write_bytes(officer.pem())
    given = ("--officer", str(directory / "officer.pub"), "--evidence", str(directory / "gaps.json"))
    watched.reconsent("certificate", "issue", "W-", *given, "--out", str(directory / "certificate"))


def started(directory: Path, local: LocalConsortium) -> tuple[subprocess.Popen[bytes], str]:
    """Prometheus with the rules of the tree and the targets that `reconsent up` wrote, every two seconds."""
    assert PROMETHEUS is not None
    table = {
        "global": {"scrape_interval": "2s", "evaluation_interval": "2s"},
        "rule_files": [str(DEPLOY / "prometheus" / "rules" / "*.yml")],
        "scrape_configs": [
            {
                "job_name": "reconsent-local",
                "file_sd_configs": [{"files": [str(local.layout.metrics_targets)]}],
            }
        ],
    }
    config = directory / "prometheus.yml"
    config.write_text(yaml.safe_dump(table), encoding="utf-8")
    (port,) = find_ports([None])
    with (directory / "prometheus.log").open("wb") as log:
        server = subprocess.Popen(
            [
                PROMETHEUS,
                f"--config.file={config}",
                f"--storage.tsdb.path={directory / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--log.level=warn",
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 60
    while True:
        try:
            if httpx.get(f"{url}/-/ready", trust_env=False).status_code == 200:
                return server, url
        except httpx.TransportError:
            pass
        said = (directory / "prometheus.log").read_text(encoding="utf-8")
        assert server.poll() is None and time.monotonic() < deadline, said
        time.sleep(0.2)


def test_values_are_those_of_the_status(watched: Watched) -> None:
    """What Prometheus has scraped agrees with what `reconsent status --json` says."""
    status = watched.reconsent.status()
    assert watched.value("reconsent_training_rounds") == status["round"] == ROUNDS
    assert watched.value("reconsent_training_rounds_target") == status["target"]
    assert watched.value("reconsent_run_active") == (status["run"]["status"] == "running") == 0
    states = [site["status"] for site in status["sites"]]
    for state in ("active", "restricted", "withdrawn"):
        assert watched.value(f'reconsent_sites{{status="{state}"}}') == states.count(state)
    for site in status["sites"]:
        assert watched.value(f'reconsent_site_info{{site="{site["name"]}"}}') == 1
        unusable = watched.value(f'sum(reconsent_replies_unusable_total{{site="{site["name"]}"}})')
        assert unusable == status["refused_replies"].get(site["name"], 0)
        if site["status"] == "active":
            slices = watched.value(f'reconsent_site_training_slices{{site="{site["name"]}"}}')
            assert slices == site["num_examples"]
    assert watched.value(f'reconsent_model_info{{version="{status["model"]["version"]}"}}') == 1
    assert watched.value("reconsent_model_forgotten_sites") == len(status["model"]["forgotten"]) == 1
    assert watched.value("reconsent_model_round") == status["model"]["round"]
    kept = watched.value("sum(reconsent_contribution_cache_bytes)")
    assert kept == status["contributions"]["bytes"]
    for entry in status["withdrawals"]:
        assert watched.value(f'reconsent_withdrawals{{state="{entry["state"]}"}}') == 1


def test_who_has_left_is_gone_from_the_cache(watched: Watched) -> None:
    """After the withdrawal nothing is kept of the site, and its gauges end; before, they were there."""
    assert watched.value("reconsent_residual_contributions") == 0
    for query in (
        f'reconsent_contribution_cache_bytes{{site="{LEAVING}"}}',
        f'reconsent_training_loss{{site="{LEAVING}"}}',
    ):
        assert watched.value(query) is None
        assert ranged(watched, query)


def ranged(watched: Watched, query: str) -> list[float]:
    """Every value that a query had since the consortium was started, one a second."""
    span = {"start": watched.began, "end": time.time(), "step": "1s"}
    series = watched.ask("query_range", query=query, **span)["result"]
    return [float(value) for one in series for _, value in one["values"] if value not in ("NaN",)]


@pytest.mark.parametrize(("title", "query"), PANELS)
def test_every_panel_has_something_to_show(watched: Watched, title: str, query: str) -> None:
    """The panel's query, with all exporters chosen, returned values in the life of this consortium."""
    assert ranged(watched, query.replace("$job", ".+").replace("$instance", ".+")), f"{title}: {query}"


@pytest.mark.parametrize("query", VARIABLES)
def test_every_variable_has_something_to_choose(watched: Watched, query: str) -> None:
    """What Grafana asks to fill a dashboard's menus is answered with at least one label."""
    selector, label = re.fullmatch(r"label_values\((.+), (\w+)\)", query).groups()  # type: ignore[union-attr]
    found = watched.ask(f"label/{label}/values", **{"match[]": selector.replace("$job", ".+")})
    assert found, query


def test_rules_are_evaluated(watched: Watched) -> None:
    """Every rule is evaluated without an error, and nothing that must be acted on at once fires."""
    groups = watched.ask("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) > 20
    assert {rule["name"]: rule.get("lastError", "") for rule in rules if rule["health"] != "ok"} == {}
    firing = {rule["name"] for rule in rules if rule["type"] == "alerting" and rule["state"] == "firing"}
    assert not firing & {"ReconsentWithdrawalOverdue", "ReconsentUnlearningFailed", "ReconsentRunFailed"}
    assert not firing & {"ReconsentResidualContributions", "ReconsentLedgerVerificationFailed"}


def test_sites_show_their_own_log_and_no_patients(watched: Watched) -> None:
    """A site's exporter counts what its log has; no exporter shows a file or a patient."""
    layout = watched.local.layout
    for site in ("brain", "abdomen"):
        worked = watched.value(
            f'reconsent_site_messages_total{{site="{site}", type="train", outcome="worked"}}'
        )
        assert worked == SiteLog(layout.site_log(site)).trainings(since=0) > ROUNDS
        for there, here in (("received", "down"), ("sent", "up")):
            at_site = f'reconsent_site_model_bytes_total{{site="{site}", direction="{there}"}}'
            at_server = f'sum(reconsent_model_bytes_total{{site="{site}", direction="{here}"}})'
            # A scrape that a busy machine did not answer in time leaves a gap.
            watched.wait(at_site, lambda found, at_server=at_server: found == watched.value(at_server))
        limit = f'reconsent_site_trainings_per_day_limit{{site="{site}"}}'
        watched.wait(limit, lambda found: found == MOST_ROUNDS)
        ends = watched.value('reconsent_certificate_expiry_timestamp_seconds{file="ca.crt"}')
        assert watched.value(f'reconsent_site_authority_expiry_timestamp_seconds{{site="{site}"}}') == ends
    patients = {path.stem for path in layout.sites.rglob("*.h5")}
    assert len(patients) >= 9
    for file in (layout.state / LOG_FILE, *layout.logs.iterdir()):
        said = file.read_text(encoding="utf-8", errors="replace")
        assert not [patient for patient in patients if re.search(rf"\b{re.escape(patient)}\b", said)], file
    for group in json.loads(layout.metrics_targets.read_text(encoding="utf-8")):
        page = httpx.get(f"http://{group['targets'][0]}/metrics", trust_env=False).text
        assert not [patient for patient in patients if re.search(rf"\b{re.escape(patient)}\b", page)]


def test_a_request_is_followed_to_the_sites_log_lines(watched: Watched) -> None:
    """Lines of server and sites name what the work was for: the run's request, then the withdrawal."""
    layout = watched.local.layout
    (withdrawal,) = watched.reconsent.status()["withdrawals"]
    server = (layout.state / LOG_FILE).read_text(encoding="utf-8")
    line = r"answered correlation=(\S+) run=(\S+)(?: withdrawal=(\S+))? round=\d+ site=brain type=train"
    asked = re.findall(line, server)
    unlearned = withdrawal["id"]
    assert {found[2] for found in asked if found[0] == unlearned} == {unlearned}
    (request,) = {found[0] for found in asked if not found[2]}
    assert request.startswith("R-")
    logged = [json.loads(line) for line in layout.site_log("brain").read_text(encoding="utf-8").splitlines()]
    seen = [(entry["correlation"], entry["run"]) for entry in logged if entry.get("type") == "train"]
    assert set(seen) == {(found[0], found[1]) for found in asked}
    node = layout.log("supernode-brain").read_text(encoding="utf-8", errors="replace")
    assert f"worked correlation={unlearned}" in node and f"worked correlation={request}" in node


def test_a_request_to_the_console_is_followed_to_the_sites_log_lines(watched: Watched) -> None:
    """From the number that the browser got, by the console's line, to lines of server and sites."""
    layout = watched.local.layout
    said = (layout.state.parent / "console.log").read_text(encoding="utf-8").splitlines()
    (line,) = [entry for entry in map(json.loads, said) if entry.get("request") == watched.request]
    correlation = line["correlation"]
    assert line["withdrawal"] == correlation and line["user"].startswith("U-")
    (on_record,) = [
        entry["body"]
        for entry in json.loads(watched.reconsent("ledger", "show", "--kind", "console-action", "--json"))
        if entry["body"]["request"] == watched.request
    ]
    assert (on_record["subject"], on_record["user"]) == (correlation, line["user"])
    assert f"answered correlation={correlation} " in (layout.state / LOG_FILE).read_text(encoding="utf-8")
    for site in ("brain", "abdomen"):
        logged = map(json.loads, layout.site_log(site).read_text(encoding="utf-8").splitlines())
        assert "train" in {entry.get("type") for entry in logged if entry.get("correlation") == correlation}
        node = layout.log(f"supernode-{site}").read_text(encoding="utf-8", errors="replace")
        assert f"worked correlation={correlation}" in node


def test_exporters_come_and_go_with_the_consortium(watched: Watched) -> None:
    """`status` shows them; one that was killed is started again at its address; without metrics they end."""
    local = watched.local
    before = {c.name: c for c in local.describe() if c.name.startswith("metrics")}
    assert set(before) == {"metrics", "metrics-brain", "metrics-abdomen", "metrics-knee"}
    shown = {p["name"]: p["status"] for p in watched.reconsent.status()["processes"]}
    assert shown["metrics"] == shown["metrics-brain"] == "running"
    killed = processes.ProcessTable.load(local.layout.processes).processes["metrics"]
    found = processes.find(killed, str(local.layout.root))
    assert found is not None
    found.kill()
    found.wait(10)
    watched.reconsent("up", "--quiet")
    after = {c.name: c for c in local.describe() if c.name.startswith("metrics")}
    assert after["metrics"].pid not in (None, before["metrics"].pid)
    assert after["metrics"].ports == before["metrics"].ports
    watched.reconsent("up", "--quiet", "--no-metrics")
    assert not [c for c in local.describe() if c.name.startswith("metrics") and c.pid is not None]
    assert json.loads(local.layout.metrics_targets.read_text(encoding="utf-8")) == []
