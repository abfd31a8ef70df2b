"""What the server's exporter shows of a state, against the state itself."""

from __future__ import annotations

import datetime as dt
import json
import math
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from client.metrics import METRICS as OF_SITE
from deploy.certificates import AUTHORITY, SERVER, certificate_statuses, make_certificates
from reconsent.exposition import Samples
from server.metrics import METRICS, StateCollector, privacy, quality, rounds, sites, withdrawals
from server.metrics import catalogue as names
from server.metrics.refusals import REASONS, reason_code
from server.metrics.view import View
from server.names import MAIN
from server.persistence import (
    ModelRegistry,
    PrivacyDesk,
    RoundLog,
    RoundRecord,
    SiteOutcome,
    StateDirectory,
    Withdrawals,
)
from server.persistence.state import DATABASE
from server.privacy import privacy_of, rounds_sat_out
from server.status import status_of
from strategies import messages as msg
from strategies.screening import UpdateScreen
from tests.server.hospitals import SITES, consortium, grid, opened
from tests.server.metrics.scrapes import exposed
from unlearning.parameters import ParameterLayout
from unlearning.request import RequestDetails
from unlearning.withdrawal import WithdrawalState

PROMTOOL = shutil.which("promtool")


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a run in which a site left, and the oracle was trained."""
    path = tmp_path_factory.mktemp("metrics")
    config = consortium(withdrawals=[{"sites": ["gamma"], "at-round": 4}])
    with opened(path, config) as run:
        run.coordinator.run()
    return path / "state"


def test_values_are_those_of_the_status(state: Path, collector: StateCollector) -> None:
    """Rounds, sites, withdrawals and refused replies agree with what `reconsent status` says."""
    samples = collector.samples()
    with StateDirectory.open(state, writable=False) as opened_state:
        status = status_of(opened_state, consortium())
        log = RoundLog(opened_state).all("main")
    assert samples.value(rounds.ROUNDS, "train", "completed") == status["round"] == 6
    assert samples.value(rounds.ROUNDS, "unlearn", "completed") == sum(r.kind == "retain" for r in log)
    by_status = [site["status"] for site in status["sites"]]
    for name in ("active", "restricted", "withdrawn"):
        assert samples.value(sites.SITES, name) == by_status.count(name)
    assert samples.value(withdrawals.STATES, "completed") == 1
    for site in SITES:
        sent = sum(record.sites[site].bytes_down for record in log if site in record.sites)
        assert samples.value(rounds.BYTES, site, "train", "down") == sent > 0
        failed = sum(
            samples.value(rounds.REPLIES, site, phase, outcome) or 0
            for phase in rounds.PHASES
            for outcome in rounds.OUTCOMES[1:]
        )
        assert failed == status["refused_replies"].get(site, 0)
    last = log[-1].sites["alpha"].update_norm
    assert last is not None and math.isclose(samples.value(rounds.NORM, "alpha") or 0, last)


def test_models_that_are_sent_for_no_round_count_as_well(tmp_path: Path) -> None:
    """Bytes of evaluations, of the loss before and after an ascent step, and of the untrained model."""
    nodes = grid()
    settings = {"alpha": 0.5, "tolerance": 10.0}
    unlearning = {"method": "cached-ascent", "rounds-fraction": 0.34, "settings": settings}
    config = consortium(withdrawals=[{"sites": ["gamma"]}], unlearning=unlearning)
    with opened(tmp_path, config, nodes) as run:
        run.coordinator.run()
        (oracle,) = [text for text in run.sent_at if "the oracle" in text]
        sent = nodes.sent[: run.sent_at[oracle]]
        model = msg.payload_bytes(run.books.arrays(run.books.version(MAIN)))
        measured = sum(bool(record.metrics["evaluation"]) for record in run.books.log.all(MAIN))
    collector = StateCollector(tmp_path / "state")
    samples = collector.samples()
    collector.close()
    for node, site in enumerate(SITES, start=1):
        asked = [
            m for m in sent if m.metadata.dst_node_id == node and m.metadata.message_type == msg.EVALUATE
        ]
        assert len(asked) > measured or site == "gamma", "the loss is asked for as well"
        assert samples.value(rounds.BYTES, site, "evaluate", "down") == len(asked) * model > 0
        assert samples.value(rounds.BYTES, site, "evaluate", "up") == 0
        assert samples.value(rounds.BYTES, site, "initialise", "up") == (model if site == SITES[0] else 0)


def test_who_has_left_has_a_history_and_nothing_else(collector: StateCollector) -> None:
    """Counters of a withdrawn site stay, and that it has left; all other gauges are of active sites alone."""
    samples = collector.samples()
    assert samples.value(rounds.REPLIES, "gamma", "train", "ok") == 4
    assert samples.value(sites.INFO, "gamma", "brain", "withdrawn") == 1
    for metric in (rounds.NORM, rounds.LOSS, rounds.LAST_REPLY, rounds.MISSED, sites.SLICES):
        assert samples.value(metric, "gamma") is None
        assert samples.value(metric, "alpha") is not None
    gauges = {metric.name for metric in METRICS if metric.kind == "gauge"} - {sites.INFO.name}
    told = {line.partition("{")[0] for line in exposed(collector).splitlines() if 'site="gamma"' in line}
    assert told and not told & gauges
    assert 'reconsent_evaluation_psnr_decibels{organ="brain",site="alpha"}' in exposed(collector)
    assert samples.value(sites.RESIDUAL) == 0


def test_only_declared_metrics_are_exposed(collector: StateCollector) -> None:
    """Every family has its declaration's name and type, and Prometheus' own linter finds nothing."""
    text = exposed(collector)
    families = {line.split()[2]: line.split()[3] for line in text.splitlines() if line.startswith("# TYPE")}
    declared = {metric.name: metric.kind for metric in METRICS}
    assert families.items() <= declared.items()
    assert len(declared) == len(METRICS)
    assert all(name.startswith("reconsent_") for name in declared)
    assert all((kind == "counter") == name.endswith("_total") for name, kind in declared.items())
    if PROMTOOL is None:
        pytest.skip("promtool is not installed")
    done = subprocess.run(
        [PROMTOOL, "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_each_help_stands_by_itself() -> None:
    """Prometheus shows one at a time: none begins where another ends, or speaks of "that disk"."""
    pointing = (
        r"The same\b|When (it|that|those) |.*\b(that|those) (disk|certificate|figures|unlearning|results)\b"
    )
    assert [m.name for m in (*METRICS, *OF_SITE) if re.match(pointing, m.help)] == []


def test_a_state_that_is_not_there_is_unknown(tmp_path: Path) -> None:
    """Without a state nothing is shown but that, no zeros; once there is one, it is shown."""
    collector = StateCollector(tmp_path / "state")
    text = exposed(collector)
    assert "reconsent_state_readable 0.0" in text
    assert "reconsent_rounds_total" not in text and "reconsent_sites" not in text
    assert "no state directory" in collector.unready()
    StateDirectory.open(tmp_path / "state").close()
    assert collector.unready() == ""
    assert "reconsent_state_readable 1.0" in exposed(collector)
    collector.close()


def test_counters_go_on_where_they_were(tmp_path: Path) -> None:
    """Between scrapes only new rounds are read; another exporter on the same state counts the same."""
    collector = StateCollector(tmp_path / "state")
    with StateDirectory.open(tmp_path / "state") as state:
        log = RoundLog(state)
        for number in range(1, 6):
            outcome = SiteOutcome(outcome="ok", update_norm=float(number), bytes_up=10, seconds=1.5)
            log.append(
                RoundRecord(line="main", kind="train", round=number, sites={"a": outcome}, seconds=2.0)
            )
            assert collector.samples().value(rounds.BYTES, "a", "train", "up") == 10 * number
        late = SiteOutcome(outcome="timeout", reason="no answer within 5 s")
        log.append(RoundRecord(line="main", kind="train", round=6, sites={"a": late}))
        found = collector.samples()
        assert found.value(rounds.UNUSABLE, "a", "timeout") == 1
        assert found.value(rounds.ROUNDS, "train", "partial") == 1
    assert "\n".join(_lasting(exposed(collector))) == "\n".join(
        _lasting(exposed(StateCollector(tmp_path / "state")))
    )
    collector.close()


def _lasting(text: str) -> list[str]:
    passing = ("reconsent_collection_duration", "reconsent_state_disk_free", "reconsent_ledger_")
    return [line for line in text.splitlines() if not line.startswith(("#", *passing))]


def test_a_restored_state_is_read_anew(state: Path, tmp_path: Path) -> None:
    """When a backup takes the database's place, what was counted is forgotten and counted again."""
    StateDirectory.open(tmp_path / "state").close()
    empty = (tmp_path / "state" / DATABASE).read_bytes()
    collector = StateCollector(tmp_path / "state")
    shutil.copytree(state, tmp_path / "full")
    for content, expected in (((tmp_path / "full" / DATABASE).read_bytes(), 6), (empty, 0)):
        (tmp_path / "new").write_bytes(content)
        (tmp_path / "new").replace(tmp_path / "state" / DATABASE)
        assert collector.samples().value(rounds.ROUNDS, "train", "completed") == expected
    collector.close()


def retained(state: StateDirectory, counted: rounds.Rounds) -> list[float | None]:
    """What the remaining site a had before the newest unlearning, and has since."""
    samples = Samples(METRICS)
    with state.reading() as session:
        counted.read(View(state, session, None))
    counted.quality.collect(samples, {"a": "brain"}, frozenset("a"))
    return [samples.value(quality.RETAIN, "a", "brain", model) for model in ("before", "since")]


def test_what_an_unlearning_cost_is_of_the_newest_alone(tmp_path: Path) -> None:
    """Of two unlearnings, one right after the other, the second begins with what the first came to."""
    counted = rounds.Rounds()
    with StateDirectory.open(tmp_path / "state") as state:
        log, registry, number = RoundLog(state), ModelRegistry(state), 0
        model = {"w": np.zeros(1, np.float32)}
        parent = registry.add(model, line="main", kind="initial", round=0, parent=None, sites={}).id
        for kind, values in (("train", [34.0]), ("retain", [33.5, 33.4]), ("retain", [32.8, 32.7])):
            for psnr in values:
                number += 1
                metrics = {"evaluation": {"a": {msg.PSNR: psnr}}}
                log.append(RoundRecord(line="main", kind=kind, round=number, sites={}, metrics=metrics))
            if kind == "retain":
                end = {"line": "main", "kind": "unlearned", "round": number, "forgets": ["b"]}
                parent = registry.add(model, parent=parent, sites={}, **end).id
            assert retained(state, counted) == {1: [None, None], 3: [34.0, 33.4], 5: [33.4, 32.7]}[number]


def test_a_cancelled_unlearning_leaves_no_figures(tmp_path: Path) -> None:
    """The next one begins with those of the model before; without a next one, the one before it counts."""
    counted = rounds.Rounds()
    with StateDirectory.open(tmp_path / "state") as state:
        log, registry = RoundLog(state), ModelRegistry(state)
        model = {"w": np.zeros(1, np.float32)}

        def version(kind: str, number: int, parent: str | None) -> str:
            more = {"forgets": ["b"]} if kind == "unlearned" else {}
            at = {"line": MAIN, "kind": kind, "round": number}
            return registry.add(model, parent=parent, sites={}, **at, **more).id

        def done(kind: str, number: int, parent: str, psnr: float) -> str:
            ended = version(kind, number, parent)
            metrics = {"evaluation": {"a": {msg.PSNR: psnr}}}
            log.append(
                RoundRecord(
                    line=MAIN, kind=kind, round=number, sites={}, metrics=metrics, model_version=ended
                )
            )
            return ended

        trained = done("train", 1, version("initial", 0, None), 34.0)
        unlearned = version("unlearned", 2, done("retain", 2, trained, 33.4))
        assert retained(state, counted) == [34.0, 33.4]
        done("retain", 4, done("retain", 3, unlearned, 30.5), 30.0)
        assert retained(state, counted) == [33.4, 30.0], "it is not known yet that it will be"
        other = done("retain", 5, unlearned, 33.0)
        assert retained(state, counted) == [33.4, 33.0]
        done("retain", 6, other, 32.5)
        assert retained(state, counted) == [33.4, 32.5]
        done("train", 7, unlearned, 33.6)
        assert retained(state, counted) == [34.0, 33.6], "that of the last one that was not cancelled"


def test_a_legal_hold_has_the_day_it_is_looked_at_again(tmp_path: Path) -> None:
    """The newest day given, from midnight in the withdrawal's time zone; gone with the hold."""
    with opened(tmp_path, consortium()) as run:
        run.coordinator.meet()
        state = run.coordinator.state
        tokyo = RequestDetails(zone="Asia/Tokyo")
        record = Withdrawals(state).file(["beta"], reason="asked", requested_by="dpo", details=tokyo)
        desk, collector = PrivacyDesk(state, "officer"), StateCollector(tmp_path / "state")

        def until() -> float | None:
            return collector.samples().value(withdrawals.HOLD_UNTIL, record.id)

        assert until() is None
        desk.hold(record.id, "a trial")
        assert until() is None, "no day was given"
        desk.hold(record.id, "a trial", dt.date(2031, 3, 2))
        assert until() == dt.datetime(2031, 3, 1, 15, tzinfo=dt.UTC).timestamp()
        desk.hold(record.id, "it lasts", dt.date(2032, 3, 2))
        assert until() == dt.datetime(2032, 3, 1, 15, tzinfo=dt.UTC).timestamp()
        desk.release(record.id, "it has ended")
        assert until() is None
        collector.close()


def test_open_withdrawals_have_their_deadline(tmp_path: Path) -> None:
    """Receipt, deadline and last step of an open one are shown until it is closed; no deadline on hold."""
    with opened(tmp_path, consortium()) as run:
        run.coordinator.meet()
        register = Withdrawals(run.coordinator.state)
        record = register.file(["beta"], reason="leaves", requested_by="officer")
        collector = StateCollector(tmp_path / "state")
        samples = collector.samples()
        assert samples.value(withdrawals.DEADLINE, record.id) == record.due_at.timestamp()
        assert samples.value(withdrawals.RECEIVED, record.id) == record.received_at.timestamp()
        assert samples.value(withdrawals.STATE, record.id, "received") == 1
        register.advance(record.id, WithdrawalState.LEGAL_HOLD, note="a court asks for the data")
        samples = collector.samples()
        assert samples.value(withdrawals.DEADLINE, record.id) is None, "a hold is an answer"
        assert samples.value(withdrawals.STATE, record.id, "legal_hold") == 1
        register.advance(record.id, WithdrawalState.RESTRICTED, note="released")
        assert collector.samples().value(withdrawals.DEADLINE, record.id) == record.due_at.timestamp()
        register.advance(record.id, WithdrawalState.CANCELLED, note="stays after all")
        samples = collector.samples()
        assert samples.value(withdrawals.DEADLINE, record.id) is None
        assert samples.value(withdrawals.ENTERED, "cancelled") == 1
        collector.close()


def test_certificates_end_when_they_say(state: Path, tmp_path: Path) -> None:
    """The end of each certificate is that of its file; one that cannot be read is left out."""
    make_certificates(tmp_path)
    (tmp_path / "broken.pem").write_text("no certificate", encoding="utf-8")
    files = [tmp_path / AUTHORITY, tmp_path / SERVER, tmp_path / "broken.pem", tmp_path / "none.pem"]
    collector = StateCollector(state, certificates=files)
    text = exposed(collector)
    for status in certificate_statuses(tmp_path):
        line = f'reconsent_certificate_expiry_timestamp_seconds{{file="{status.path.name}"}}'
        (value,) = [row.split()[-1] for row in text.splitlines() if row.startswith(line)]
        assert float(value) == status.expires.timestamp()
    assert text.count("reconsent_certificate_expiry_timestamp_seconds{") == 2
    collector.close()


def test_a_site_tells_of_its_privacy_budget() -> None:
    """What it has spent and may spend is shown by unit; a site that tells nothing is left out."""
    told = {msg.EPSILON["patient"]: 2.5, msg.EPSILON_CEILING: 8.0, msg.EPSILON["site"]: 1.0}
    found = privacy.Privacy()
    found.take("a", told)
    found.take("b", {})
    samples = Samples(METRICS)
    found.collect(samples, frozenset({"a", "b"}))
    assert samples.value(privacy.SPENT, "a", "patient") == 2.5
    assert samples.value(privacy.BUDGET, "a", "patient") == 8.0
    assert samples.value(privacy.SPENT, "a", "site") == 1.0
    assert samples.value(privacy.BUDGET, "a", "site") is None
    assert samples.value(privacy.SITS_OUT, "a") == 0
    assert len(list(samples.families())) == 3


def test_a_site_sits_out_until_it_trains(tmp_path: Path) -> None:
    """Status and metrics say so after the refusal, and no more after a round with privacy or without."""
    refused = SiteOutcome(outcome="refused", reason=f"{msg.REFUSED_BY_SITE}: {msg.BUDGET_SPENT}: No more.")
    private = SiteOutcome(outcome="ok", privacy={msg.EPSILON["patient"]: 1.0, msg.PRIVACY_DELTA: 1e-5})
    plain = SiteOutcome(outcome="ok")
    counted = rounds.Rounds()
    with StateDirectory.open(tmp_path / "state") as state:
        log = RoundLog(state)
        for number, (a, b) in enumerate([(refused, refused), (private, plain)], 1):
            log.append(RoundRecord(line="main", kind="train", round=number, sites={"a": a, "b": b}))
            samples = Samples(METRICS)
            with state.reading() as session:
                counted.read(View(state, session, None))
            counted.privacy.collect(samples, frozenset("ab"))
            shown = [samples.value(privacy.SITS_OUT, site) for site in "ab"]
            told = [(entry["site"], entry["sits_out_since"]) for entry in privacy_of(log)]
            assert shown == ([1, 1] if number == 1 else [0, None])
            assert told == ([("a", 1), ("b", 1)] if number == 1 else [("a", None)])
            assert rounds_sat_out(log) == {"a": 1, "b": 1}


def test_a_restarted_exporter_says_the_same_of_privacy(tmp_path: Path) -> None:
    """A round that failed long ago does not count more than one that succeeded since."""
    refused = SiteOutcome(outcome="refused", reason=f"{msg.REFUSED_BY_SITE}: {msg.BUDGET_SPENT}: No more.")

    def spent(epsilon: float) -> SiteOutcome:
        return SiteOutcome(outcome="ok", privacy={msg.EPSILON["patient"]: epsilon, msg.PRIVACY_DELTA: 1e-5})

    def shown(counted: rounds.Rounds) -> list[float | None]:
        samples = Samples(METRICS)
        with state.reading() as session:
            counted.read(View(state, session, None))
        counted.privacy.collect(samples, frozenset("ab"))
        return [samples.value(privacy.SPENT, "a", "patient"), samples.value(privacy.SITS_OUT, "b")]

    following = rounds.Rounds()
    with StateDirectory.open(tmp_path / "state") as state:
        log = RoundLog(state)
        first = {"a": spent(1.0), "b": refused}
        log.append_failed(RoundRecord(line="main", kind="train", round=1, sites=first))
        assert shown(following) == [1.0, 1]
        second = {"a": spent(7.5), "b": spent(2.0)}
        log.append(RoundRecord(line="main", kind="train", round=1, sites=second))
        assert shown(following) == shown(rounds.Rounds()) == [7.5, 0]


def test_every_refusal_of_the_screen_has_its_reason() -> None:
    """Replies that the screen refuses for different reasons are told apart by closed codes."""
    from flwr.app import Message, RecordDict

    layout = ParameterLayout.of({"w": np.zeros(3, np.float32)})
    screen = UpdateScreen(max_norm=1.0)
    base = {"w": np.zeros(3, np.float32)}

    def refused(arrays: dict[str, np.ndarray] | None, examples: float = 4) -> str:
        record = None if arrays is None else msg.array_record(arrays)
        content: RecordDict = msg.content(arrays=record, metrics={msg.NUM_EXAMPLES: examples})
        sent = Message(msg.content(config={}), dst_node_id=1, message_type=msg.TRAIN)
        found = screen.screen("a", Message(content, reply_to=sent), layout, base)
        assert isinstance(found, str), found
        return reason_code("refused", found)

    good = np.zeros(3, np.float32)
    assert refused({"w": np.full(3, np.nan, np.float32)}) == "not_finite"
    assert refused({"w": np.full(3, 9.0, np.float32)}) == "norm"
    assert refused({"w": np.zeros(4, np.float32)}) == "shape"
    assert refused({"v": good}) == "shape"
    assert refused({"w": good}, examples=0.5) == "examples"
    assert refused(None) == "no_model"
    assert reason_code("failed", "app_error: failed-at-site: DataError: …") == "failed_at_site"
    assert reason_code("failed", "app_error: refused-by-site: not-allowed: …") == "refused_by_site"
    spent = "refused-by-site: budget-spent: The round would take this site to ε = 9 …"
    assert reason_code("refused", spent) == "privacy_budget"
    assert reason_code("failed", "node_unavailable: gone") == "unreachable"
    assert reason_code("timeout", "no answer within 5 s") == "timeout"
    assert reason_code("failed", "something new") == "other"
    assert {"not_finite", "other"} <= set(REASONS)


def test_reading_changes_nothing(state: Path, collector: StateCollector) -> None:
    """After a scrape the database's file is as it was."""
    before = (state / DATABASE).read_bytes()
    assert collector.samples().value(names.READABLE) == 1
    assert (state / DATABASE).read_bytes() == before


def test_the_page_is_what_the_code_declares() -> None:
    """docs/metrics.md is current (`make docs`)."""
    from cli.metrics_reference import reference

    page = Path(__file__).parents[3] / "docs" / "metrics.md"
    assert page.read_text(encoding="utf-8") == reference()


def test_the_list_can_be_read_by_programs(capsys: pytest.CaptureFixture[str]) -> None:
    """`reconsent metrics list --json` has every metric of the catalogue."""
    from cli.metrics import list_metrics

    list_metrics(of_site=False, json_output=True)
    found = json.loads(capsys.readouterr().out)
    assert [entry["name"] for entry in found] == [metric.name for metric in METRICS]
