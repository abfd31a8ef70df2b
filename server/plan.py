"""What a consortium file has happen to its sites, in the order of the training rounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from reconsent.config import ConsortiumConfig


@dataclass(frozen=True, slots=True)
class PlannedEvent:
    """Sites leave, or come back, together.

    Attributes
    ----------
    after_round
        Training round after which it happens.
    kind
        Which of the two.
    sites
        Who.
    patients
        How many patients leave while their site stays; 0: whole sites.
    """

    after_round: int
    kind: Literal["withdrawal", "return"]
    sites: tuple[str, ...]
    patients: int = 0


def events_of(consortium: ConsortiumConfig) -> list[PlannedEvent]:
    """Withdrawals and returns by their round; within one, withdrawals first, and then as in the file."""
    events = [
        PlannedEvent(
            planned.at_round or consortium.training.rounds,
            "withdrawal",
            planned.sites,
            len(planned.patients or ()),
        )
        for planned in consortium.withdrawals
    ]
    events += [PlannedEvent(back.after_round, "return", back.sites) for back in consortium.returns]
    return sorted(events, key=lambda event: event.after_round)


def returns_of(consortium: ConsortiumConfig) -> dict[str, int]:
    """Site → training round after which it first comes back."""
    first: dict[str, int] = {}
    for event in events_of(consortium):
        if event.kind == "return":
            for site in event.sites:
                first.setdefault(site, event.after_round)
    return first
