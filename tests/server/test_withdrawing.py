"""Withdrawals that do not go straight through: failed, refused, cancelled, on hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconsent.errors import ContributionError, ReconsentError, RoundError, WithdrawalError
from server.accountability import site_figures
from server.bookkeeping import MAIN, ORACLE
from server.persistence import SiteStatus, Withdrawals
from tests.server.hospitals import Run, consortium, grid, opened
from tests.server.test_resume import config as resumed_config
from tests.server.test_resume import summary, undisturbed
from unlearning.withdrawal import WithdrawalState

PLAN = consortium(withdrawals=({"sites": ("delta",)},))


def train_only(path: Path) -> None:
    """The training of :data:`PLAN`, without what follows."""
    with opened(path, consortium()) as run:
        run.coordinator.run()


def file_and(path: Path, *states: WithdrawalState) -> str:
    """File the plan's withdrawal after the training, and move it through ``states``."""
    with opened(path, consortium()) as run:
        register = Withdrawals(run.coordinator.state)
        record = register.file(["delta"], reason="asked", requested_by="officer")
        for state in states:
            register.advance(record.id, state, note=f"because of {state.value}", actor="officer")
        return record.id


def test_damaged_contribution_fails_and_is_taken_up(tmp_path: Path) -> None:
    """A damaged file stops the unlearning in state failed, with the file named; mended, it completes."""
    plan = resumed_config("cached-ascent")
    with opened(tmp_path, plan.model_copy(update={"withdrawals": (), "continue_rounds": 0})) as run:
        run.coordinator.run()
    file = tmp_path / "state" / "contributions" / "delta" / "running-000006.sealed"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with opened(tmp_path, plan) as run, pytest.raises(ContributionError, match="delta"):
        run.coordinator.run()
    with opened(tmp_path, plan) as run:
        (record,) = run.coordinator.withdrawals.all()
        assert (record.state, record.failed_in) == (WithdrawalState.FAILED, WithdrawalState.UNLEARNING)
        last = run.coordinator.withdrawals.events(record.id)[-1]
        assert "running-000006" in last.note
        assert "altered" in last.note
        assert run.books.roster.get("delta").status is SiteStatus.RESTRICTED
        with pytest.raises(ContributionError):
            run.coordinator.run()
    file.write_bytes(whole)
    with opened(tmp_path, plan) as run:
        run.coordinator.run()
        assert summary(run) == undisturbed("cached-ascent")
        steps = [e.new_state.value for e in run.coordinator.withdrawals.events(record.id)]
        assert steps == [
            *("received", "restricted", "unlearning"),
            *("failed", "unlearning", "failed", "unlearning"),
            *("verifying", "propagating", "completed"),
        ]


def test_round_that_fails_is_taken_up_where_it_was(tmp_path: Path) -> None:
    """Sites that fail in a round without a step fail the withdrawal; earlier rounds are not repeated."""
    plan = resumed_config("cached-ascent")
    nodes = grid()
    real = nodes.push_messages

    def cut(messages):  # type: ignore[no-untyped-def]
        listed = list(messages)
        if any(m.metadata.group_id == "9" and m.metadata.message_type == "train" for m in listed):
            nodes._nodes = {n: {**c, "fault": "train"} for n, c in nodes._nodes.items()}
        return real(listed)

    nodes.push_messages = cut  # type: ignore[method-assign]
    with opened(tmp_path, plan, nodes) as run, pytest.raises(RoundError, match="Round 9 got 0"):
        run.coordinator.run()
    with opened(tmp_path, plan) as run:
        (record,) = run.coordinator.withdrawals.all()
        assert record.state is WithdrawalState.FAILED
        assert "Round 9 got 0 acceptable replies" in run.coordinator.withdrawals.events(record.id)[-1].note
        run.coordinator.run()
        assert summary(run) == undisturbed("cached-ascent")


def test_another_method_may_not_finish_it(tmp_path: Path) -> None:
    """An unlearning that has begun by one method is not ended by another."""
    plan = resumed_config("cached-ascent")
    nodes = grid()
    real = nodes.push_messages

    def cut(messages):  # type: ignore[no-untyped-def]
        listed = list(messages)
        return [] if listed[0].metadata.group_id == "8" else real(listed)

    nodes.push_messages = cut  # type: ignore[method-assign]
    short = plan.training.model_copy(update={"timeout_seconds": 0.2})
    hasty = plan.model_copy(update={"training": short})
    with opened(tmp_path, hasty, nodes) as run, pytest.raises(RoundError, match="not taken"):
        run.coordinator.run()
    other = consortium(unlearning={"method": "retain-ft", "settings": {}}).unlearning
    changed = plan.model_copy(update={"unlearning": other})
    with opened(tmp_path, changed) as run, pytest.raises(WithdrawalError, match="begun by cached-ascent"):
        run.coordinator.run()


def check_untouched(run: Run) -> None:
    """Nothing was unlearned, revoked or erased."""
    assert run.books.log.count(MAIN, "retain") == 0
    assert run.books.log.count(ORACLE) == 0
    assert "delta" in run.coordinator.cache.sites()
    assert all(version.status != "revoked" for version in run.books.registry.all())


@pytest.mark.parametrize("state", [WithdrawalState.REFUSED, WithdrawalState.CANCELLED])
def test_refused_and_cancelled_are_said_aloud(state: WithdrawalState, tmp_path: Path) -> None:
    """What was refused or cancelled is not unlearned, nor filed again; whoever watches is told why."""
    train_only(tmp_path)
    id_ = file_and(tmp_path, WithdrawalState.RESTRICTED, state)
    with opened(tmp_path, PLAN.model_copy(update={"continue_rounds": 1})) as run:
        run.coordinator.run()
        check_untouched(run)
        (notice,) = run.texts("notice")
        assert id_ in notice
        assert f"because of {state.value}" in notice
        assert "take part again" in notice
        assert len(run.coordinator.withdrawals.all()) == 1
        assert set(run.books.log.all(MAIN)[-1].sites) == {"alpha", "beta", "gamma", "delta"}


def test_legal_hold(tmp_path: Path) -> None:
    """On hold nothing is destroyed and the site stays out; when the hold ends the next run completes it."""
    train_only(tmp_path)
    id_ = file_and(tmp_path, WithdrawalState.LEGAL_HOLD)
    with opened(tmp_path, PLAN) as run:
        run.coordinator.run()
        check_untouched(run)
        assert "stay barred" in run.texts("notice")[0]
        assert run.books.roster.get("delta").status is SiteStatus.RESTRICTED
        run.coordinator.withdrawals.advance(id_, WithdrawalState.RESTRICTED, note="hold ended")
    with opened(tmp_path, PLAN) as run:
        run.coordinator.run()
        assert run.coordinator.withdrawals.get(id_).state is WithdrawalState.COMPLETED
        assert "delta" not in run.coordinator.cache.sites()
        assert run.books.log.count(ORACLE) == 6


def test_failure_while_propagating(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error while models are revoked leaves all or nothing done, and is taken up again there."""
    with monkeypatch.context() as patch, opened(tmp_path, PLAN) as run:

        def full(*_: object, **__: object) -> None:
            raise ContributionError("The disk is full.")

        patch.setattr(run.coordinator.cache, "erase", full)
        with pytest.raises(ReconsentError, match="disk is full"):
            run.coordinator.run()
        (record,) = run.coordinator.withdrawals.all()
        assert record.failed_in is WithdrawalState.PROPAGATING
        assert all(version.status != "revoked" for version in run.books.registry.all())
    with opened(tmp_path, PLAN) as run:
        run.coordinator.run()
        assert run.coordinator.withdrawals.get(record.id).state is WithdrawalState.COMPLETED
        assert "delta" not in run.coordinator.cache.sites()


@pytest.mark.parametrize(("margin", "beyond"), [(1e-9, True), (1e9, False)])
def test_figures_beyond_their_limits_are_told_and_hold_nothing_up(
    margin: float, beyond: bool, tmp_path: Path
) -> None:
    """The run names them with their limit, the last step says how many; the withdrawal is completed."""
    config = consortium(
        compliance={"retain-margin-db": margin},
        withdrawals=({"sites": ("delta",)},),
        training={"evaluate-every": 1},
        unlearning={"settings": {"alpha": 200.0, "tolerance": 1e9}},
        assessment={"oracle": False},
    )
    with opened(tmp_path, config) as run:
        run.coordinator.run()
        register = run.coordinator.withdrawals
        (record,) = register.all()
        assert record.state is WithdrawalState.COMPLETED
        told = [text for text in run.texts("notice") if "beyond a limit" in text]
        (step,) = [e for e in register.events(record.id) if e.new_state is WithdrawalState.PROPAGATING]
        assert (bool(told), "beyond the limit" in step.note) == (beyond, beyond)
        if beyond:
            assert f"and may be {margin:g}" in told[0]
            lost = [
                figure for figure in site_figures(run.coordinator.state, record) if figure["value"] > margin
            ]
            assert lost
            assert all(f"{figure['name']} is {figure['value']:.2f} dB" in told[0] for figure in lost)
            assert f"; {len(lost)} figures" in step.note
