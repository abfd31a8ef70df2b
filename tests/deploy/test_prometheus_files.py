"""Prometheus' files: it accepts them, every alert is tested and explained, and no query names what is not."""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from client.metrics import METRICS as OF_SITE
from reconsent.exposition import Metric
from server.metrics import METRICS as OF_SERVER
from tests.deploy.deployment_files import DEPLOY, ROOT, yaml_documents

PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")
DIRECTORY = DEPLOY / "prometheus"
RUNBOOK = ROOT / "docs" / "runbook.md"


@cache
def rules() -> list[dict[str, Any]]:
    files = sorted((DIRECTORY / "rules").glob("*.yml"))
    groups = [group for file in files for group in yaml_documents(file)[0]["groups"]]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def exposed(metric: Metric) -> set[str]:
    """Names of the series of a family."""
    suffixes = ("_bucket", "_sum", "_count") if metric.kind == "histogram" else ("",)
    return {metric.name + suffix for suffix in suffixes}


def names_in(query: str) -> set[str]:
    """Names of metrics and of recorded series in a query."""
    without = re.sub(r'"[^"]*"', "", query)
    return set(re.findall(r"[a-z]+:reconsent_[\w:]+|\breconsent_\w+", without))


@cache
def known() -> set[str]:
    series = {name for metric in (*OF_SERVER, *OF_SITE) for name in exposed(metric)}
    return series | {rule["record"] for rule in rules() if "record" in rule}


def promtool(*words: str, cwd: Path = DIRECTORY) -> subprocess.CompletedProcess[str]:
    assert PROMTOOL is not None
    return subprocess.run([PROMTOOL, *words], cwd=cwd, capture_output=True, text=True, check=False)


@needs_promtool
def test_prometheus_accepts_configuration_and_rules() -> None:
    """`promtool check config` finds nothing, in the rules neither."""
    done = promtool("check", "config", "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rules found" in done.stdout


@needs_promtool
def test_a_mistake_in_a_rule_is_found(tmp_path: Path) -> None:
    """The check above can fail."""
    text = (DIRECTORY / "rules" / "server.yml").read_text(encoding="utf-8")
    (tmp_path / "alerts.yml").write_text(text.replace("time() -", "tyme() -", 1), encoding="utf-8")
    assert promtool("check", "rules", "alerts.yml", cwd=tmp_path).returncode != 0


@needs_promtool
@pytest.mark.parametrize("file", sorted((DIRECTORY / "tests").glob("*.yml")), ids=lambda path: path.stem)
def test_alerts_fire_when_they_should(file: Path) -> None:
    """`promtool test rules`: every case of the file holds."""
    done = promtool("test", "rules", str(file))
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_cases_of_both_kinds() -> None:
    """Each is shown to fire at least once, and at least once not to."""
    seen: dict[str, set[bool]] = {}
    for file in (DIRECTORY / "tests").glob("*.yml"):
        for case in yaml_documents(file)[0]["tests"]:
            for check in case["alert_rule_test"]:
                seen.setdefault(check["alertname"], set()).add(bool(check["exp_alerts"]))
    assert seen == {name: {True, False} for name in alerts()}


def test_every_alert_has_its_section_in_the_runbook() -> None:
    """The annotation leads to a heading of that name, with what it means, what to look at, what to do."""
    page = RUNBOOK.read_text(encoding="utf-8")
    sections = dict(re.findall(r"^### (\w+)\n(.*?)(?=^#|\Z)", page, flags=re.MULTILINE | re.DOTALL))
    assert set(sections) == set(alerts())
    for name, rule in alerts().items():
        assert rule["annotations"]["runbook"] == f"docs/runbook.md#{name.lower()}"
        assert rule["labels"]["severity"] in ("warning", "critical", "page")
        for part in ("**Means**", "**Look**", "**Do**"):
            assert part in sections[name], (name, part)


def test_rules_ask_for_metrics_that_exist() -> None:
    """Every name in an expression is one that an exporter shows, or that another rule records."""
    for rule in rules():
        assert names_in(rule["expr"]) <= known(), rule
        assert names_in(rule["expr"]) or "up{" in rule["expr"]


def test_a_hospital_and_a_server_each_load_rules_of_their_own_exporter() -> None:
    """`site.yml` asks for nothing of a server, the others, which a server loads, for nothing of a site."""
    of_site = {name for metric in OF_SITE for name in exposed(metric)}
    of_server = {name for metric in OF_SERVER for name in exposed(metric)}
    asked = {
        file.name: {
            name
            for group in yaml_documents(file)[0]["groups"]
            for rule in group["rules"]
            for name in names_in(rule["expr"])
            if ":" not in name
        }
        for file in (DIRECTORY / "rules").glob("*.yml")
    }
    assert set(asked) == {"recording.yml", "server.yml", "site.yml"}
    assert asked["site.yml"] <= of_site
    assert asked["server.yml"] | asked["recording.yml"] <= of_server
    for configuration in (DIRECTORY / "prometheus.yml", DEPLOY / "compose" / "prometheus.yml"):
        loaded = yaml_documents(configuration)[0]["rule_files"]
        assert loaded == ["rules/recording.yml", "rules/server.yml"]


def test_recorded_series_have_names_of_their_level() -> None:
    """Names of recorded series are level:metric:operations, and of no exporter's."""
    recorded = [rule["record"] for rule in rules() if "record" in rule]
    assert all(re.fullmatch(r"[a-z]+:reconsent_\w+:\w+", name) for name in recorded)


def test_every_recorded_series_is_explained() -> None:
    """The reference has each with a meaning and its expression; seconds and privacy left are among them."""
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+:\w+:\w+)` \| (.+) \|$", page, flags=re.MULTILINE))
    recorded = {rule["record"]: rule["expr"] for rule in rules() if "record" in rule}
    assert set(rows) == set(recorded)
    for name, expression in recorded.items():
        meaning, _, shown = rows[name].partition(" | ")
        assert len(meaning) > 20 and shown == f"`{expression}`"
    asked = "".join(
        path.read_text(encoding="utf-8") for path in (DEPLOY / "grafana").glob("dashboards/*.json")
    )
    for name in ("withdrawal:reconsent_withdrawal_time_left", "site:reconsent_privacy_epsilon_left"):
        assert any(series.startswith(name) for series in recorded) and name in asked
