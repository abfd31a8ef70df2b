"""Who received a model that a withdrawn site shaped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from server.persistence import (
    Exports,
    ModelRegistry,
    ModelVersion,
    PrivacyDesk,
    Roster,
    RoundLog,
    RoundRecord,
    SiteOutcome,
    StateDirectory,
    Withdrawals,
)
from server.recipients import recipients_of, shaped_versions


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateDirectory]:
    """An open state directory."""
    with StateDirectory.open(tmp_path / "state", url="") as directory:
        yield directory


def train(state: StateDirectory, parent: ModelVersion | None, number: int, *sites: str) -> ModelVersion:
    """A round in which ``sites`` took part, with its model; number 0 is the initial model."""
    arrays = {"w": np.full(3, number, np.float32)}
    version = ModelRegistry(state).add(
        arrays,
        line="main",
        round=number,
        kind="train" if number else "initial",
        parent=parent.id if parent else None,
        sites=dict.fromkeys(sites, 1.0),
    )
    if number:
        outcomes = {site: SiteOutcome(outcome="ok") for site in sites}
        metrics = {"accepted": True, "evaluation": {"east": {"psnr": 20.0}} if number == 2 else {}}
        RoundLog(state).append(
            RoundRecord(
                line="main",
                kind="train",
                round=number,
                sites=outcomes,
                metrics=metrics,
                model_version=version.id,
            )
        )
    return version


def test_recipients_are_the_sites_of_the_rounds_and_the_exports(state: StateDirectory) -> None:
    """Sites that were sent, or measured, a version with the site in it; exports; and nobody else."""
    for node, site in enumerate(("east", "north", "south", "west")):
        Roster(state).enrol(site, node, "knee", 10, round=1)
    v0 = train(state, None, 0)
    v1 = train(state, v0, 1, "north", "west")
    v2 = train(state, v1, 2, "north", "south")
    v3 = train(state, v2, 3, "south")
    Exports(state).add(v0, "museum", actor="ada", form="safetensors")
    Exports(state).add(v3, "clinic B", actor="ada", form="safetensors")
    record = Withdrawals(state).file(["north"], reason="asked", requested_by="dpo", restrict=True)
    assert [version.id for version in shaped_versions(state, record)] == [v1.id, v2.id, v3.id]
    found = {recipient.name: recipient.versions for recipient in recipients_of(state, record)}
    assert found == {
        "site:north": (v1.id,),
        "site:south": (v1.id, v2.id),
        "site:east": (v2.id,),
        "clinic B": (v3.id,),
    }


def test_a_notice_is_shown_with_its_recipient(state: StateDirectory) -> None:
    """Who was told, when and how; the others are not marked."""
    for node, site in enumerate(("east", "north")):
        Roster(state).enrol(site, node, "knee", 10, round=1)
    version = train(state, train(state, None, 0), 1, "north")
    train(state, version, 2, "north", "east")
    record = Withdrawals(state).file(["north"], reason="asked", requested_by="dpo")
    PrivacyDesk(state, "officer").notified(record.id, "site:east", "by letter")
    told = {recipient.name: recipient.how for recipient in recipients_of(state, record)}
    assert told == {"site:east": "by letter", "site:north": None}


def test_a_notice_does_not_count_for_a_copy_given_after_it(state: StateDirectory) -> None:
    """Told, then given another version: to be told again; told again: told, at the later moment."""
    for node, site in enumerate(("east", "north")):
        Roster(state).enrol(site, node, "knee", 10, round=1)
    first = train(state, train(state, None, 0), 1, "north")
    second = train(state, first, 2, "north")
    record = Withdrawals(state).file(["north"], reason="asked", requested_by="dpo")
    desk = PrivacyDesk(state, "officer")

    def told() -> str | None:
        (found,) = (entry for entry in recipients_of(state, record) if entry.name == "clinic B")
        return found.how

    Exports(state).add(first, "clinic B", actor="ada", form="safetensors")
    desk.notified(record.id, "clinic B", "by letter")
    assert told() == "by letter"
    Exports(state).add(second, "clinic B", actor="ada", form="safetensors")
    assert told() is None
    desk.notified(record.id, "clinic B", "by telephone")
    assert told() == "by telephone"


def test_who_was_sent_a_version_in_a_round_that_failed_is_a_recipient(state: StateDirectory) -> None:
    """Sent, but of no use; not who was barred before the turn; also where no round was ever kept."""
    for node, site in enumerate(("east", "north", "south", "west")):
        Roster(state).enrol(site, node, "knee", 10, round=1)
    version = train(state, train(state, None, 0), 1, "north")
    failed = {
        "east": SiteOutcome(outcome="timeout", bytes_down=12),
        "south": SiteOutcome(outcome="ok", bytes_down=12),
        "west": SiteOutcome(outcome="withdrawn"),
    }
    RoundLog(state).append_failed(RoundRecord(line="main", kind="train", round=2, sites=failed))
    later = train(state, version, 2, "north")
    record = Withdrawals(state).file(["north"], reason="asked", requested_by="dpo")
    found = {recipient.name: recipient.versions for recipient in recipients_of(state, record)}
    assert found == {
        "site:north": (version.id,),
        "site:east": (version.id, later.id),
        "site:south": (version.id,),
    }


def test_who_did_not_answer_an_evaluation_is_a_recipient(state: StateDirectory) -> None:
    """Bytes that went to a site to be measured are enough; an answer is not needed."""
    for node, site in enumerate(("east", "north", "west")):
        Roster(state).enrol(site, node, "knee", 10, round=1)
    first = train(state, train(state, None, 0), 1, "north")
    second = ModelRegistry(state).add(
        {"w": np.ones(3, np.float32)},
        line="main",
        round=2,
        kind="train",
        parent=first.id,
        sites={"north": 1.0},
    )
    moved = {"evaluate": {"east": {"down": 12, "up": 0}, "west": {"down": 0, "up": 0}}}
    RoundLog(state).append(
        RoundRecord(
            line="main",
            kind="train",
            round=2,
            sites={"north": SiteOutcome(outcome="ok")},
            metrics={"accepted": True, "evaluation": {}, "moved": moved},
            model_version=second.id,
        )
    )
    record = Withdrawals(state).file(["north"], reason="asked", requested_by="dpo")
    found = {recipient.name: recipient.versions for recipient in recipients_of(state, record)}
    assert found["site:east"] == (second.id,)
    assert "site:west" not in found
