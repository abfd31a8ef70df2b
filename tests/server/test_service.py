"""Tasks of a deployed consortium, with withdrawals filed by others while it runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from reconsent.errors import ConfigError, ReconsentError, WithdrawalError
from server.bookkeeping import MAIN
from server.persistence import Roster, RunEvents, RunProgress, SiteStatus, StateDirectory, Withdrawals
from server.persistence.withdrawal_acts import WithdrawalActs
from server.recipients import recipients_of
from server.service import RUN, Service, Task, recording
from strategies.local_grid import LocalGrid
from strategies.outcomes import Moved
from tests.server.hospitals import Run, consortium, grid, opened
from unlearning.withdrawal import WithdrawalState

FINE_TUNING = consortium(
    unlearning={"method": "retain-ft", "settings": {}, "rounds-fraction": 0.5},
    training={"evaluate-every": 0},
)


class Watched(LocalGrid):
    """Tells a listener of every message before it is sent, and may hold back replies."""

    def __init__(self, inner: LocalGrid) -> None:
        self.__dict__ = inner.__dict__
        self.before_push: Callable[[str, int], None] = lambda _type, _round: None
        self.after_push: Callable[[str, int], None] = lambda _type, _round: None
        self.silent: set[int] = set()
        self._to: dict[str, int] = {}

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Tell, then send."""
        listed = list(messages)
        if not listed:
            return []
        kind, group = listed[0].metadata.message_type, listed[0].metadata.group_id
        told = kind, int(group) if group.isdigit() else 0
        self.before_push(*told)
        taken = super().push_messages(listed)
        self._to |= {m.metadata.message_id: m.metadata.dst_node_id for m in listed}
        self.after_push(*told)
        return taken

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Nothing from those who are silent."""
        return super().pull_messages([i for i in message_ids if self._to.get(i) not in self.silent])


def watched(**nodes: dict[str, Any]) -> Watched:
    return Watched(grid(**nodes))


def carry_out(run: Run, kind: Any, rounds: int = 0) -> None:
    Service(run.coordinator).carry_out(Task(kind, rounds))


def serving(path: Path, nodes: LocalGrid | None = None, config: Any = FINE_TUNING) -> Any:
    return opened(path, config, nodes, simulated=False)


def file_from_elsewhere(path: Path, *sites: str, restrict: bool = True) -> None:
    """File a withdrawal as the command line does: in another thread, through another connection."""

    def work() -> None:
        with StateDirectory.open(path / "state", url="", exclusive=False) as state:
            Withdrawals(state).file(sites, reason="asked", requested_by="officer", restrict=restrict)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def rounds_of(run: Run) -> list[tuple[str, str]]:
    """Kind of each round, and the sites whose update is in it, by their first letters."""
    return [
        (r.kind, "".join(sorted(site[0] for site, o in r.sites.items() if o.outcome == "ok")))
        for r in run.books.log.all(MAIN)
    ]


def check_gone(run: Run, *sites: str) -> None:
    """Nothing of ``sites`` is left, and every withdrawal is completed."""
    assert all(r.state is WithdrawalState.COMPLETED for r in run.coordinator.withdrawals.all())
    state = run.coordinator.state.path
    for site in sites:
        assert run.books.roster.get(site).status is SiteStatus.WITHDRAWN
        assert list(state.rglob(f"*{site}*")) == []
        assert not run.books.version(MAIN).depends_on(site)
    assert list(state.rglob("*.part")) == []
    assert list((state / "unlearning").glob("*")) == []


def test_train_resume_and_train_again(tmp_path: Path) -> None:
    """Each task adds the rounds it asks for; resuming a finished one adds none."""
    with serving(tmp_path) as run:
        carry_out(run, "train", 2)
        carry_out(run, "resume")
        assert run.books.log.count(MAIN) == 2
        carry_out(run, "train", 3)
        assert rounds_of(run) == [("train", "abdg")] * 5
        assert run.texts("done") == ["The run has ended."] * 3


def test_withdrawal_in_the_middle_of_a_round(tmp_path: Path) -> None:
    """The barred site's reply is refused by name, its unlearning comes next; training reaches its target."""
    nodes = watched()

    def file(message_type: str, number: int) -> None:
        if (message_type, number) == ("train", 2):
            file_from_elsewhere(tmp_path, "delta")

    nodes.after_push = file
    with serving(tmp_path, nodes) as run:
        carry_out(run, "train", 4)
        assert rounds_of(run) == [
            ("train", "abdg"),
            ("train", "abg"),
            ("retain", "abg"),
            *[("train", "abg")] * 2,
        ]
        late = run.books.log.all(MAIN)[1].sites["delta"]
        assert (late.outcome, late.update_norm) == ("withdrawn", None)
        assert "barred while the round ran" in late.reason
        check_gone(run, "delta")


def test_a_round_does_not_wait_for_a_barred_site(tmp_path: Path) -> None:
    """A site that is barred while it says nothing costs a second or so, not its timeout."""
    nodes = watched()
    patient = consortium(
        training={"timeout-seconds": 60, "evaluate-every": 0},
        unlearning={"method": "retain-ft", "settings": {}},
    )
    with serving(tmp_path, nodes, patient) as run:
        carry_out(run, "train", 1)

        def hang(message_type: str, _number: int) -> None:
            if message_type == "train" and not nodes.silent:
                nodes.silent.add(4)
                threading.Timer(0.3, file_from_elsewhere, (tmp_path, "delta")).start()

        nodes.before_push = hang
        began = time.monotonic()
        carry_out(run, "train", 1)
        assert time.monotonic() - began < 20
        assert run.books.log.all(MAIN)[1].sites["delta"].outcome == "withdrawn"
        check_gone(run, "delta")


def test_barred_between_averaging_and_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A round with an update of a site that was barred since is dropped whole, and done again without it."""
    with serving(tmp_path) as run:
        real = run.coordinator.evaluate

        def evaluate(*args: Any, **kwargs: Any) -> Any:
            run.books.moved("trial", {"alpha": Moved(3, 1)})
            if run.books.log.count(MAIN) == 1 and not run.coordinator.withdrawals.all():
                file_from_elsewhere(tmp_path, "delta")
            return real(*args, **kwargs)

        monkeypatch.setattr(run.coordinator, "evaluate", evaluate)
        carry_out(run, "train", 3)
        assert rounds_of(run) == [("train", "abdg"), ("retain", "abg"), *[("train", "abg")] * 2]
        told = [record.metrics["moved"].get("trial") for record in run.books.log.all(MAIN)]
        once, twice = ({"alpha": {"down": 3 * n, "up": n}} for n in (1, 2))
        assert told == [once, twice, once, once], "what was moved for the dropped round goes with the next"
        assert "delta" in run.texts("notice")[0]
        (dropped,) = run.books.log.failed(MAIN)
        assert (dropped.round, dropped.sites["delta"].bytes_down > 0) == (2, True)
        (record,) = run.coordinator.withdrawals.all()
        sent = {r.name: r.versions for r in recipients_of(run.coordinator.state, record)}
        assert sent["site:delta"] == (run.books.log.all(MAIN)[0].model_version,), "it was sent, and is told"
        check_gone(run, "delta")
        named = {v.filename for v in run.books.registry.all() if not v.pruned}
        assert {f.name for f in run.coordinator.state.models_dir.iterdir()} == named


def test_newcomer_barred_in_its_first_round_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A site that is barred before its first update is kept has nothing to be unlearned, and no file left."""
    with serving(tmp_path) as run:
        real = run.coordinator.evaluate

        def evaluate(*args: Any, **kwargs: Any) -> Any:
            if not run.coordinator.withdrawals.all():
                file_from_elsewhere(tmp_path, "delta")
            return real(*args, **kwargs)

        monkeypatch.setattr(run.coordinator, "evaluate", evaluate)
        Service(run.coordinator).carry_out(Task("train", 1))
        assert rounds_of(run) == [("train", "abg")]
        check_gone(run, "delta")


def test_withdrawals_filed_while_nothing_runs(tmp_path: Path) -> None:
    """The task unlearn carries out what was filed, one after the other, and trains no further."""
    with serving(tmp_path) as run:
        carry_out(run, "train", 2)
    file_from_elsewhere(tmp_path, "delta")
    file_from_elsewhere(tmp_path, "gamma", restrict=False)
    with serving(tmp_path) as run:
        carry_out(run, "unlearn")
        assert rounds_of(run)[2:] == [("retain", "ab")] * 2 or rounds_of(run)[2:] == [
            ("retain", "abg"),
            ("retain", "ab"),
        ]
        check_gone(run, "delta", "gamma")
        assert set(run.books.version(MAIN, "unlearned").forgotten) == {"delta", "gamma"}
    with serving(tmp_path) as run:
        carry_out(run, "unlearn")
        assert run.texts("round") == []


@pytest.mark.parametrize("restrict", [True, False])
def test_second_withdrawal_during_the_first_ones_unlearning(tmp_path: Path, restrict: bool) -> None:
    """A site that leaves while another is unlearned is out of the rounds that follow, and unlearned next."""
    nodes = watched()
    config = FINE_TUNING.model_copy(
        update={"unlearning": FINE_TUNING.unlearning.model_copy(update={"rounds_fraction": 1.0})}
    )
    with serving(tmp_path, nodes, config) as run:
        carry_out(run, "train", 3)
        filed: list[bool] = []

        def file(message_type: str, number: int) -> None:
            if (message_type, number) == ("train", 5) and not filed:
                filed.append(True)
                file_from_elsewhere(tmp_path, "gamma", restrict=restrict)

        nodes.before_push = file
        file_from_elsewhere(tmp_path, "delta")
        carry_out(run, "train", 1)
        kinds = rounds_of(run)
        assert [kind for kind, _ in kinds] == ["train"] * 3 + ["retain"] * 6 + ["train"]
        assert kinds[3] == ("retain", "abg")
        if restrict:
            assert kinds[4] == ("retain", "ab")
        assert kinds[6:] == [*[("retain", "ab")] * 3, ("train", "ab")]
        check_gone(run, "delta", "gamma")


def test_resume_goes_on_to_the_stored_target(tmp_path: Path) -> None:
    """What a run that ended with an error had left to do is done by the next, to the same model."""
    nodes = watched()

    def cut(message_type: str, number: int) -> None:
        if (message_type, number) == ("train", 3):
            raise ReconsentError("The power is out.")

    nodes.before_push = cut
    with serving(tmp_path / "cut", nodes) as run:
        with pytest.raises(ReconsentError, match="power"):
            carry_out(run, "train", 4)
        assert run.books.log.count(MAIN) == 2
    with serving(tmp_path / "cut") as run:
        carry_out(run, "resume")
        resumed = run.digests()
        assert run.books.log.count(MAIN) == 4
    with serving(tmp_path / "whole") as run:
        carry_out(run, "train", 4)
        assert run.digests() == resumed


def test_readmission(tmp_path: Path) -> None:
    """A site that comes back takes part as a newcomer, and can withdraw again; it is unlearned anew."""
    with serving(tmp_path) as run:
        carry_out(run, "train", 2)
        file_from_elsewhere(tmp_path, "delta")
        carry_out(run, "train", 1)
        with StateDirectory.open(tmp_path / "state", url="", exclusive=False) as state:
            Roster(state).return_of("delta")
        file_from_elsewhere(tmp_path, "delta")
        carry_out(run, "unlearn")
        assert rounds_of(run) == [*[("train", "abdg")] * 2, ("retain", "abg"), ("train", "abg")], (
            "it had not taken part again, so there was nothing to unlearn"
        )
        check_gone(run, "delta")
        Roster(run.coordinator.state).return_of("delta")
        carry_out(run, "train", 1)
        assert rounds_of(run)[-1] == ("train", "abdg")
        assert run.books.version(MAIN).depends_on("delta")
        file_from_elsewhere(tmp_path, "delta")
        carry_out(run, "unlearn")
        assert rounds_of(run)[-1][0] == "retain"
        check_gone(run, "delta")
        assert len(run.coordinator.withdrawals.all()) == 3


def test_figures_of_a_readmitted_site_are_of_its_own_withdrawal(tmp_path: Path) -> None:
    """Each of its two unlearnings has figures of the remaining sites: those measured around it."""
    training = FINE_TUNING.training.model_copy(update={"evaluate_every": 1})
    with serving(tmp_path, config=FINE_TUNING.model_copy(update={"training": training})) as run:
        carry_out(run, "train", 1)
        file_from_elsewhere(tmp_path, "delta")
        carry_out(run, "unlearn")
        Roster(run.coordinator.state).return_of("delta")
        carry_out(run, "train", 1)
        file_from_elsewhere(tmp_path, "delta")
        carry_out(run, "unlearn")
        log = run.books.log.all(MAIN)
        assert [record.kind for record in log] == ["train", "retain", "train", "retain"]
        psnr = [record.metrics["evaluation"]["alpha"]["psnr"] for record in log]
        for record, (before, after) in zip(
            run.coordinator.withdrawals.all(), (psnr[:2], psnr[2:]), strict=True
        ):
            (noted,) = WithdrawalActs(run.coordinator.state).of(record.id, "figures")
            figures = {entry["name"]: entry["value"] for entry in noted.body["figures"]}
            assert figures.keys() == {f"psnr-lost/{site}" for site in ("alpha", "beta", "gamma")}
            assert figures["psnr-lost/alpha"] == before - after


@pytest.mark.parametrize("state", [WithdrawalState.CANCELLED, WithdrawalState.LEGAL_HOLD])
def test_stopped_by_somebody_while_it_is_carried_out(tmp_path: Path, state: WithdrawalState) -> None:
    """A cancelled or held withdrawal ends its unlearning, not the run; other withdrawals are carried out."""
    nodes = watched()
    config = FINE_TUNING.model_copy(
        update={"unlearning": FINE_TUNING.unlearning.model_copy(update={"rounds_fraction": 1.0})}
    )
    with serving(tmp_path, nodes, config) as run:
        carry_out(run, "train", 3)
        file_from_elsewhere(tmp_path, "delta")
        (record,) = run.coordinator.withdrawals.all()

        def stop(message_type: str, number: int) -> None:
            if (message_type, number) == ("train", 5):
                with StateDirectory.open(tmp_path / "state", url="", exclusive=False) as other:
                    Withdrawals(other).advance(record.id, state, note="so it was decided", actor="officer")

        nodes.before_push = stop
        carry_out(run, "train", 1)
        assert run.coordinator.withdrawals.get(record.id).state is state
        assert "so it was decided" in run.texts("notice")[0]
        held = state is WithdrawalState.LEGAL_HOLD
        assert rounds_of(run)[-1] == ("train", "abg" if held else "abdg")
        assert run.books.version(MAIN).depends_on("delta"), "trained on from the model before the unlearning"
        cache = run.coordinator.cache
        assert "delta" in cache.sites()
        if not held:
            # The model began at zero, so the sums are the whole way; the discarded rounds led elsewhere.
            way = sum(cache.running(site, "sum") for site in cache.sites())
            np.testing.assert_allclose(way, run.theta(), atol=1e-5)
        running = list((tmp_path / "state" / "contributions").glob("*/running*"))
        assert len(running) == len(cache.sites()), "one pair a site again"
        nodes.before_push = lambda *_: None
        file_from_elsewhere(tmp_path, "gamma")
        carry_out(run, "unlearn")
        assert run.coordinator.withdrawals.all()[1].state is WithdrawalState.COMPLETED
        if held:
            run.coordinator.withdrawals.advance(record.id, WithdrawalState.RESTRICTED, note="hold ended")
            carry_out(run, "unlearn")
            check_gone(run, "delta", "gamma")


def test_what_a_run_was_asked_is_recorded(tmp_path: Path) -> None:
    """The database says what ran, what happened and how it ended, error included."""
    with serving(tmp_path) as run:
        state, task = run.coordinator.state, Task("train", 1)
        with recording(state, "17", task):
            Service(run.coordinator).carry_out(task)
        assert RunProgress(state).get(RUN)["status"] == "completed"
        kinds = [event.kind for event in RunEvents(state).after(0)]
        assert kinds == ["stage", "round", "done"]
        with pytest.raises(ReconsentError), recording(state, "18", task):
            raise ReconsentError("The power is out.")
        assert RunProgress(state).get(RUN)["error"] == "The power is out."
        assert RunEvents(state).after(0)[-1].kind == "failed"
        assert RunEvents(state).after(0)[-1].run == "18"


@pytest.mark.parametrize("asked", [{"task": "dance"}, {"task": "train"}, {"task": "train", "rounds": -1}])
def test_tasks_that_make_no_sense(asked: dict[str, object]) -> None:
    """An unknown task, or a training without rounds, is refused before anything is done."""
    with pytest.raises(ConfigError):
        Task.of(asked)


def test_a_withdrawal_filed_for_a_later_round(tmp_path: Path) -> None:
    """The site takes part up to that round, and is unlearned after it; not before, and not at the end."""
    with serving(tmp_path) as run:
        register = Withdrawals(run.coordinator.state)
        carry_out(run, "train", 1)
        register.file(["delta"], reason="contract ends", requested_by="officer", at_round=3)
        with pytest.raises(WithdrawalError, match="barred at once and take part until round 3"):
            register.file(["beta"], reason="r", requested_by="o", at_round=3, restrict=True)
        carry_out(run, "unlearn")
        assert run.books.roster.get("delta").status is SiteStatus.ACTIVE
        carry_out(run, "train", 3)
        kinds = [(record.kind, "delta" in record.sites) for record in run.books.log.all(MAIN)]
        assert kinds[:3] == [("train", True)] * 3
        assert {kind for kind, _ in kinds[3:-1]} == {"retain"}
        assert kinds[-1] == ("train", False)
        assert not any(took_part for _, took_part in kinds[3:])
