"""What a site's exporter shows of its log and policy, and what it never shows."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from client.metrics import METRICS, SiteCollector, write_textfile
from client.metrics import catalogue as names
from client.site_log import SiteLog
from deploy.certificates import AUTHORITY, certificate_statuses, make_certificates
from reconsent.errors import ConfigError

PROMTOOL = shutil.which("promtool")
PATIENT = "Doe^Jane-1970-01-31"


@pytest.fixture
def log(tmp_path: Path) -> SiteLog:
    return SiteLog(tmp_path / "policy.log.jsonl")


@pytest.fixture
def worked(log: SiteLog) -> SiteLog:
    """A log of two trainings, an evaluation, a refusal and a failure."""
    for round_ in (1, 2):
        entry = {"type": "train", "round": round_, "bytes-received": 100}
        log.append("received", entry)
        log.append("worked", entry | {"seconds": 0.75, "bytes-sent": 90})
    log.append("worked", {"type": "evaluate", "seconds": 2.0, "bytes-received": 100, "bytes-sent": 0})
    log.append("refused", {"type": "train", "reason": "not-allowed"})
    log.append("failed", {"type": "train", "reason": "DataError", "reference": "0a1b2c3d"})
    return log


def exposed(collector: SiteCollector) -> str:
    registry = CollectorRegistry()
    registry.register(collector)
    return generate_latest(registry).decode()


def test_counts_are_those_of_the_log(worked: SiteLog) -> None:
    """Messages by type and outcome, bytes both ways, the last round, durations, a day's trainings."""
    samples = SiteCollector("north", log=worked.path).samples()
    assert [samples.value(names.MESSAGES, "train", o) for o in ("worked", "refused", "failed")] == [2, 1, 1]
    assert samples.value(names.MESSAGES, "evaluate", "worked") == 1
    assert samples.value(names.REFUSALS, "not-allowed") == 1
    assert samples.value(names.BYTES, "received") == 300
    assert samples.value(names.BYTES, "sent") == 180
    assert samples.value(names.ROUND) == 2
    assert samples.value(names.TRAINED) == 2 == worked.trainings(since=time.time() - 86400)
    text = exposed(SiteCollector("north", log=worked.path))
    assert 'reconsent_site_message_duration_seconds_bucket{le="1",type="train"} 2.0' in text


def test_the_log_is_followed(worked: SiteLog) -> None:
    """Appended lines are added, a line that is still being written waits, a new log begins anew."""
    collector = SiteCollector("north", log=worked.path)
    assert collector.samples().value(names.MESSAGES, "train", "worked") == 2
    worked.append("worked", {"type": "train", "round": 3})
    line = json.dumps({"event": "worked", "type": "train", "time": 1.0}).encode()
    with worked.path.open("ab") as file:
        file.write(line[:10])
        file.flush()
        assert collector.samples().value(names.MESSAGES, "train", "worked") == 3
        file.write(line[10:] + b"\n")
    assert collector.samples().value(names.MESSAGES, "train", "worked") == 4
    worked.path.rename(worked.path.with_suffix(".old"))
    assert collector.samples().value(names.MESSAGES, "train", "worked") == 0
    worked.append("worked", {"type": "train", "round": 4})
    assert collector.samples().value(names.MESSAGES, "train", "worked") == 1
    os.truncate(worked.path, 0)
    assert collector.samples().value(names.MESSAGES, "train", "worked") == 0


@pytest.fixture
def hostile(log: SiteLog) -> Iterator[dict[str, Any]]:
    """A line in whose every field somebody wrote a patient's name."""
    yield dict.fromkeys(("type", "reason", "round", "seconds", "bytes-sent", "site", "message"), PATIENT)


def test_no_patient_is_ever_shown(log: SiteLog, hostile: dict[str, Any], tmp_path: Path) -> None:
    """Whatever a line of the log holds, only closed sets of words become labels."""
    for event in ("worked", "refused", "failed", PATIENT):
        log.append(event, hostile)
    with log.path.open("a", encoding="utf-8") as file:
        file.write(f"{PATIENT}\n[1, 2]\n" + json.dumps({"event": [PATIENT], "time": PATIENT}) + "\n")
    (tmp_path / "policy.toml").write_text(f'trusted-code = ["{PATIENT}"]\n', encoding="utf-8")
    text = exposed(SiteCollector("north", log=log.path, policy=tmp_path / "policy.toml"))
    assert "Doe" not in text and "Jane" not in text
    assert 'reconsent_site_messages_total{outcome="worked",type="other"} 1.0' in text
    assert 'reconsent_site_refusals_total{reason="other"} 1.0' in text
    assert "reconsent_site_policy_readable 0.0" in text


def test_the_policy_is_shown(worked: SiteLog, tmp_path: Path) -> None:
    """What the policy allows is shown as it is at the moment, and one that is broken as unreadable."""
    policy = tmp_path / "policy.toml"
    policy.write_text("may-train = false\nmax-rounds-a-day = 7\n", encoding="utf-8")
    collector = SiteCollector("north", log=worked.path, policy=policy)
    samples = collector.samples()
    assert samples.value(names.MAY, "train") == 0
    assert samples.value(names.MAY, "evaluate") == 1
    assert samples.value(names.LIMIT) == 7
    policy.write_text("may-train = perhaps\n", encoding="utf-8")
    samples = collector.samples()
    assert samples.value(names.POLICY) == 0
    assert samples.value(names.MAY, "train") is None


def test_a_site_without_a_log_is_not_ready(tmp_path: Path) -> None:
    """Without a log there is nothing to show, and that is said; a log that is yet to come is no fault."""
    assert "keeps no log" in SiteCollector("north").unready()
    assert "reconsent_site_messages_total" not in exposed(SiteCollector("north"))
    assert SiteCollector("north", log=tmp_path / "to-come.jsonl").unready() == ""
    (tmp_path / "directory.jsonl").mkdir()
    broken = SiteCollector("north", log=tmp_path / "directory.jsonl")
    assert "cannot be read" in broken.unready()
    assert broken.samples().value(names.READABLE) == 0


def test_the_authority_ends_when_it_says(worked: SiteLog, tmp_path: Path) -> None:
    """The end of the certificate by which the site knows the server is that of the file."""
    make_certificates(tmp_path)
    collector = SiteCollector("north", log=worked.path, authority=tmp_path / AUTHORITY)
    expires = certificate_statuses(tmp_path)[0].expires.timestamp()
    assert collector.samples().value(names.CA_EXPIRY) == expires
    (tmp_path / AUTHORITY).write_text("none", encoding="utf-8")
    assert collector.samples().value(names.CA_EXPIRY) is None


def test_the_textfile_is_whole_and_readable(worked: SiteLog, tmp_path: Path) -> None:
    """A node exporter of another user can read the file; a name it would ignore is refused."""
    target = tmp_path / "reconsent.prom"
    write_textfile(SiteCollector("north", log=worked.path), target)
    assert 'reconsent_site_build_info{site="north"' in target.read_text(encoding="utf-8")
    assert target.stat().st_mode & 0o777 == 0o644
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    with pytest.raises(ConfigError, match=r"\.prom"):
        write_textfile(SiteCollector("north", log=worked.path), tmp_path / "reconsent.txt")


def test_a_file_says_how_old_it_is(worked: SiteLog, tmp_path: Path) -> None:
    """The moment at which it was written is in it, and stays when nobody writes it again."""
    target = tmp_path / "reconsent.prom"
    collector = SiteCollector("north", log=worked.path)
    before = time.time()
    write_textfile(collector, target)
    (written,) = re.findall(r"^reconsent_site_collected\S* (.*)$", target.read_text(), re.MULTILINE)
    assert before <= float(written) <= time.time()
    assert (collector.samples().value(names.COLLECTED) or 0) > float(written)


def test_only_declared_metrics_are_exposed(worked: SiteLog) -> None:
    """Every family has its declaration's name and type, and Prometheus' own linter finds nothing."""
    text = exposed(SiteCollector("north", log=worked.path))
    families = {line.split()[2]: line.split()[3] for line in text.splitlines() if line.startswith("# TYPE")}
    assert families.items() <= {metric.name: metric.kind for metric in METRICS}.items()
    if PROMTOOL is None:
        pytest.skip("promtool is not installed")
    done = subprocess.run(
        [PROMTOOL, "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
