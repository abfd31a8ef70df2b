"""A whole consortium's life on a local grid: training, withdrawals, unlearning, oracle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from reconsent.errors import ContributionError, GuardError, WithdrawalError
from server.bookkeeping import MAIN, ORACLE
from server.persistence import SiteStatus, VersionStatus
from server.plan import events_of
from strategies import ContributionAveraging
from strategies import messages as msg
from tests.server.hospitals import SITES, centres, consortium, grid, opened
from unlearning.withdrawal import WithdrawalState

LEAVES = ({"sites": ("delta",)},)


def test_whole_plan(tmp_path: Path) -> None:
    """Training, withdrawal at the end, unlearning and oracle: as many rounds of each as planned, once."""
    with opened(tmp_path, consortium(withdrawals=LEAVES)) as run:
        run.coordinator.run()
        log = run.books.log
        assert [(r.kind, r.round) for r in log.all(MAIN)] == [
            *(("train", t) for t in range(1, 7)),
            ("retain", 7),
            ("retain", 8),
        ]
        assert [(r.kind, r.round) for r in log.all(ORACLE)] == [("retain", t) for t in range(1, 7)]
        assert run.texts("done")
        every = [set(r.sites) for r in log.all(MAIN)]
        assert every[:6] == [set(SITES)] * 6
        assert every[6:] == [set(SITES) - {"delta"}] * 2
        assert all(set(r.sites) == set(SITES) - {"delta"} for r in log.all(ORACLE))


def test_unlearned_model_is_nearer_to_the_oracle(tmp_path: Path) -> None:
    """On quadratic losses the unlearned model lies between the original and the oracle, off the leaver."""
    with opened(tmp_path, consortium(withdrawals=LEAVES)) as run:
        run.coordinator.run()
        original = next(v for v in run.books.registry.all(MAIN) if v.round == 6)
        before = run.books.registry.load(original.id, force=True)["theta"]
        after, oracle, leaver = run.theta(MAIN, "unlearned"), run.theta(ORACLE), centres()["delta"]
        assert np.linalg.norm(after - oracle) < np.linalg.norm(before - oracle)
        assert np.linalg.norm(after - leaver) > np.linalg.norm(before - leaver)


def test_withdrawal_states_and_events(tmp_path: Path) -> None:
    """The withdrawal passes through every state once, each step with its reason, marked as simulated."""
    with opened(tmp_path, consortium(withdrawals=LEAVES)) as run:
        run.coordinator.run()
        register = run.coordinator.withdrawals
        (record,) = register.all()
        assert record.state is WithdrawalState.COMPLETED
        assert record.simulated
        assert record.method == "cached-ascent"
        assert record.at_round == 6
        steps = register.events(record.id)
        names = ["received", "restricted", "unlearning", "verifying", "propagating", "completed"]
        assert [step.new_state.value for step in steps] == names
        assert all(step.note for step in steps)
        assert [text.split(": ")[1].split(" ")[0] for text in run.texts("withdrawal")] == names
        assert run.books.roster.get("delta").status is SiteStatus.WITHDRAWN


def test_not_one_message_after_restriction(tmp_path: Path) -> None:
    """From the moment a site is restricted its node gets no message of any type, oracle included."""
    nodes = grid()
    with opened(tmp_path, consortium(withdrawals=LEAVES, continue_rounds=2), nodes) as run:
        run.coordinator.run()
        (restricted,) = [text for text in run.texts("withdrawal") if ": restricted" in text]
        after = nodes.sent[run.sent_at[restricted] :]
        assert len(after) > 20
        assert {message.metadata.dst_node_id for message in after} == {1, 2, 3}
        before = nodes.sent[: run.sent_at[restricted]]
        assert 4 in {message.metadata.dst_node_id for message in before}


@pytest.mark.parametrize("first", [1, 7], ids=["training", "unlearning"])
def test_a_violated_guard_ends_the_run(first: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A round that addresses a node outside the list ends the run with that error; it is not repeated."""
    addressed = ContributionAveraging._messages_to
    rounds: list[int] = []

    def astray(self: ContributionAveraging, nodes: Any, kind: str, number: int, *rest: Any) -> list[Message]:
        if kind == msg.TRAIN:
            rounds.append(number)
            assert rounds.count(number) == 1, "the round is repeated"
            if number >= first:
                nodes = {**nodes, 99: "omega"}
        return addressed(self, nodes, kind, number, *rest)

    monkeypatch.setattr(ContributionAveraging, "_messages_to", astray)
    nodes = grid()
    with opened(tmp_path, consortium(withdrawals=LEAVES), nodes) as run:
        with pytest.raises(GuardError, match="node 99"):
            run.coordinator.run()
        assert rounds == list(range(1, first + 1))
        assert not [text for text in run.texts("notice") if "repeated" in text]
        assert 99 not in {message.metadata.dst_node_id for message in nodes.sent}
        assert run.books.log.count(MAIN) == first - 1


def test_lineage_and_revocation(tmp_path: Path) -> None:
    """Models with the site's updates are revoked, but for the unlearned one; the oracle never had any."""
    with opened(tmp_path, consortium(withdrawals=LEAVES, continue_rounds=1)) as run:
        run.coordinator.run()
        for version in run.books.registry.all(MAIN):
            shaped = version.kind in ("train", "retain") and version.round <= 8
            assert (version.status is VersionStatus.REVOKED) == shaped, version
            if shaped:
                assert "delta" in version.lineage
                assert "delta" in str(version.reason)
        unlearned = run.books.version(MAIN, "unlearned")
        assert unlearned.forgotten == ("delta",)
        assert unlearned.lineage["delta"].last == 6, "the lineage keeps who was unlearned"
        last = run.books.version(MAIN)
        assert (last.kind, last.round, last.parent) == ("train", 9, unlearned.id)
        assert not last.depends_on("delta")
        assert all("delta" not in version.lineage for version in run.books.registry.all(ORACLE))


def test_contributions_of_the_departed_are_erased(tmp_path: Path) -> None:
    """No row and no file of the withdrawn site stays anywhere in the state directory; others' do."""
    with opened(tmp_path, consortium(withdrawals=LEAVES)) as run:
        run.coordinator.run()
        assert run.coordinator.cache.sites() == ["alpha", "beta", "gamma"]
        assert run.coordinator.cache.problems() == []
        assert run.coordinator.cache.shares("alpha").keys() == set(range(1, 9))
        state = run.coordinator.state.path
        assert list(state.rglob("*delta*")) == []
        assert list((state / "spool").glob("*")) == []
        assert list((state / "unlearning").glob("*")) == [], "directions are made of contributions"
        assert len(list((state / "contributions" / "alpha").glob("*"))) == 8 + 1


def test_withdrawal_in_the_middle(tmp_path: Path) -> None:
    """After a withdrawal at round 3 training goes on to the planned round; the oracle has three rounds."""
    config = consortium(withdrawals=({"sites": ("delta",), "at-round": 3},))
    with opened(tmp_path, config) as run:
        run.coordinator.run()
        kinds = [(r.kind, r.round) for r in run.books.log.all(MAIN)]
        assert kinds == [
            *(("train", t) for t in (1, 2, 3)),
            ("retain", 4),
            *(("train", t) for t in (5, 6, 7)),
        ]
        assert run.books.log.count(ORACLE) == 3
        assert run.coordinator.withdrawals.all()[0].at_round == 3


def test_one_after_the_other(tmp_path: Path) -> None:
    """Two withdrawals, even at the same round, are two unlearnings; the second keeps the first."""
    config = consortium(withdrawals=({"sites": ("delta",)}, {"sites": ("gamma",)}))
    with opened(tmp_path, config) as run:
        run.coordinator.run()
        assert [r.sites for r in run.coordinator.withdrawals.all()] == [("delta",), ("gamma",)]
        assert [v.forgotten for v in run.books.registry.all(MAIN) if v.kind == "unlearned"] == [
            ("delta",),
            ("delta", "gamma"),
        ]
        rounds = [r for r in run.books.log.all(MAIN) if r.kind == "retain"]
        assert [set(r.sites) for r in rounds] == [{"alpha", "beta", "gamma"}] * 2 + [{"alpha", "beta"}] * 2
        assert all(set(r.sites) == {"alpha", "beta"} for r in run.books.log.all(ORACLE))
        assert run.coordinator.cache.sites() == ["alpha", "beta"]
        assert [r.at_round for r in run.coordinator.withdrawals.all()] == [6, 6], "training rounds"


def test_a_return_between_two_withdrawals(tmp_path: Path) -> None:
    """A site comes back after the round that is named, though another leaves later; the oracle has it too."""
    config = consortium(
        withdrawals=({"sites": ("delta",), "at-round": 2}, {"sites": ("gamma",), "at-round": 4}),
        returns=({"sites": ("delta",), "after-round": 3},),
    )
    with opened(tmp_path, config) as run:
        run.coordinator.run()
        trained = [r for r in run.books.log.all(MAIN) if r.kind == "train"]
        assert ["delta" in r.sites for r in trained] == [True, True, False, True, True, True]
        assert ["gamma" in r.sites for r in trained] == [True] * 4 + [False] * 2
        oracle = run.books.log.all(ORACLE)
        assert ["delta" in r.sites for r in oracle] == [False] * 3 + [True]
        assert not any("gamma" in r.sites for r in oracle)
        before = run.digests()
    with opened(tmp_path, config) as run:
        run.coordinator.run()
        assert run.digests() == before, "a run that is taken up again at its end does nothing"


def test_events_are_in_the_order_of_their_rounds() -> None:
    """Withdrawals and returns are one list by round; of one round, withdrawals come first."""
    config = consortium(
        withdrawals=(
            {"sites": ("delta",)},
            {"sites": ("gamma",), "at-round": 2},
            {"sites": ("beta",), "at-round": 4},
        ),
        returns=({"sites": ("delta",), "after-round": 7}, {"sites": ("gamma",), "after-round": 4}),
        continue_rounds=1,
    )
    found = [(event.after_round, event.kind, event.sites[0]) for event in events_of(config)]
    assert found == [
        (2, "withdrawal", "gamma"),
        (4, "withdrawal", "beta"),
        (4, "return", "gamma"),
        (6, "withdrawal", "delta"),
        (7, "return", "delta"),
    ]


def test_a_return_after_the_last_round_is_refused() -> None:
    """A return must not lengthen the training: at most as many rounds as are planned altogether."""
    with pytest.raises(ValueError, match="after round 500, but there are only 8 rounds"):
        consortium(
            withdrawals=LEAVES, returns=({"sites": ("delta",), "after-round": 500},), continue_rounds=2
        )


def test_several_together(tmp_path: Path) -> None:
    """Sites of one withdrawal leave in one unlearning."""
    with opened(tmp_path, consortium(withdrawals=({"sites": ("gamma", "delta")},))) as run:
        run.coordinator.run()
        (record,) = run.coordinator.withdrawals.all()
        assert (record.sites, record.state) == (("delta", "gamma"), WithdrawalState.COMPLETED)
        (unlearned,) = [v for v in run.books.registry.all(MAIN) if v.kind == "unlearned"]
        assert unlearned.forgotten == ("delta", "gamma")
        assert run.coordinator.cache.sites() == ["alpha", "beta"]


def test_last_site_cannot_withdraw(tmp_path: Path) -> None:
    """The withdrawal of the last remaining site is refused with the reason and a remedy; nothing changes."""
    config = consortium(withdrawals=({"sites": ("beta", "gamma", "delta")},))
    with opened(tmp_path, config) as run:
        run.coordinator.run()
        before = run.digests()
        with pytest.raises(WithdrawalError, match="Without alpha no site would remain") as caught:
            run.coordinator.withdraw(["alpha"])
        assert caught.value.remedy
        assert run.digests() == before
        assert run.books.roster.get("alpha").status is SiteStatus.ACTIVE
        assert len(run.coordinator.withdrawals.all()) == 1


def test_unknown_site_cannot_withdraw(tmp_path: Path) -> None:
    """A withdrawal of a site that never enrolled is refused, with the nearest name."""
    with opened(tmp_path, consortium()) as run:
        run.coordinator.run()
        with pytest.raises(WithdrawalError, match="Did you mean 'delta'"):
            run.coordinator.withdraw(["dleta"])


def test_continue_rounds(tmp_path: Path) -> None:
    """Training goes on from the unlearned model with the remaining sites, for the rounds asked for."""
    with opened(tmp_path, consortium(withdrawals=LEAVES, continue_rounds=3)) as run:
        run.coordinator.run()
        later = [r for r in run.books.log.all(MAIN) if r.round > 8]
        assert [(r.kind, r.round) for r in later] == [("train", 9), ("train", 10), ("train", 11)]
        assert all(set(r.sites) == {"alpha", "beta", "gamma"} for r in later)
        assert run.coordinator.cache.shares("beta").keys() == set(range(1, 12))


def test_retraining_has_no_edge_from_the_departed(tmp_path: Path) -> None:
    """Unlearning by retraining equals the oracle bit for bit, and its lineage has nobody who left."""
    config = consortium(withdrawals=LEAVES, unlearning={"method": "retrain", "settings": {}})
    nodes = grid()
    with opened(tmp_path, config, nodes) as run:
        run.coordinator.run()
        unlearned = run.books.version(MAIN, "unlearned")
        assert "delta" not in unlearned.lineage
        version = unlearned
        while version.parent is not None:
            version = run.books.registry.get(version.parent)
            assert "delta" not in version.lineage
        assert version.kind == "initial"
        assert unlearned.digest == run.books.version(ORACLE).digest
        assert run.books.log.count(MAIN, "retain") == run.books.log.count(ORACLE) == 6
        assert run.coordinator.cache.shares("alpha").keys() == set(range(7, 13)), "the old path is no more"


def test_initial_model_comes_from_a_site_that_stays(tmp_path: Path) -> None:
    """Nothing of the oracle comes from a site that leaves, not even the untrained model."""
    nodes = grid()
    with opened(tmp_path, consortium(withdrawals=({"sites": ("alpha",)},)), nodes) as run:
        run.coordinator.run()
        (asked,) = [m for m in nodes.sent if m.metadata.message_type == msg.INITIALISE]
        assert asked.metadata.dst_node_id != 1


def test_no_withdrawal_no_oracle(tmp_path: Path) -> None:
    """Without a withdrawal there is training and nothing else."""
    with opened(tmp_path, consortium()) as run:
        run.coordinator.run()
        assert run.books.log.lines() == [MAIN]
        assert run.books.log.count(MAIN) == 6


def test_a_site_that_fails_does_not_stop_the_rounds(tmp_path: Path) -> None:
    """A site whose training raises is named in every round, and the others go on."""
    with opened(tmp_path, consortium(), grid(beta={"fault": "train"})) as run:
        run.coordinator.run()
        for record in run.books.log.all(MAIN):
            assert record.sites["beta"].outcome == "failed"
            assert "no power" in record.sites["beta"].reason
            assert record.sites["alpha"].outcome == "ok"
        assert run.books.roster.get("beta").last_round is None
        assert any("beta" in text for text in run.texts("round"))


@pytest.mark.parametrize("value", [np.nan, np.inf, -3.0])
def test_nonsense_in_a_refused_reply_does_not_stop_the_round(tmp_path: Path, value: float) -> None:
    """A refused reply whose numbers make no sense is noted with zeros, and the others go on."""
    nodes = grid(beta={"claims": value})
    with opened(tmp_path, consortium(), nodes) as run:
        run.coordinator.run()
        for record in run.books.log.all(MAIN):
            beta = record.sites["beta"]
            assert (beta.outcome, beta.num_examples, beta.seconds) == ("refused", 0, 0.0)
            assert beta.loss is None or np.isfinite(beta.loss)
            assert record.sites["alpha"].outcome == "ok"


def test_a_site_that_took_part_in_no_round(tmp_path: Path) -> None:
    """A site without any contribution leaves without unlearning; with another, that one is unlearned."""
    nodes = grid(delta={"fault": "train"})
    with opened(tmp_path / "alone", consortium(withdrawals=LEAVES), nodes) as run:
        run.coordinator.run()
        (record,) = run.coordinator.withdrawals.all()
        steps = run.coordinator.withdrawals.events(record.id)
        assert [s.new_state.value for s in steps] == ["received", "restricted", "propagating", "completed"]
        assert steps[2].note == "took part in no round"
        assert run.books.log.count(MAIN, "retain") == 0
        assert run.books.version(MAIN).status is not VersionStatus.REVOKED
    together = consortium(withdrawals=({"sites": ("gamma", "delta")},))
    with opened(tmp_path / "together", together, grid(delta={"fault": "train"})) as run:
        run.coordinator.run()
        (record,) = run.coordinator.withdrawals.all()
        assert record.state is WithdrawalState.COMPLETED
        assert run.books.log.count(MAIN, "retain") == 2
        assert run.coordinator.cache.sites() == ["alpha", "beta"]


def test_nothing_unlearned_fails_and_may_be_tried_otherwise(tmp_path: Path) -> None:
    """If every ascent step was taken back the withdrawal has failed; with other settings it completes."""
    absurd = {"settings": {"alpha": 1e6, "trust-radius": 1e9, "tolerance": 0.0}}
    config = consortium(withdrawals=LEAVES, unlearning=absurd)
    with opened(tmp_path, config) as run, pytest.raises(ContributionError, match="nothing was unlearned"):
        run.coordinator.run()
    with opened(tmp_path, consortium(withdrawals=LEAVES)) as run:
        (record,) = run.coordinator.withdrawals.all()
        assert (record.state, record.failed_in) == (WithdrawalState.FAILED, WithdrawalState.UNLEARNING)
        assert "unlearned" not in {version.kind for version in run.books.registry.all(MAIN)}
        run.coordinator.run()
        assert run.coordinator.withdrawals.get(record.id).state is WithdrawalState.COMPLETED
