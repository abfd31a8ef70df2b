"""The process of a local consortium that removes what was kept long enough, also while no run is active."""

from __future__ import annotations

from deploy.flower_control import executable
from deploy.layout import Layout
from reconsent.config import ConsortiumConfig

KEEPER = "purge"
"""Name of the process."""
HOURS = 24.0
"""Between two looks."""


def keeper_names(config: ConsortiumConfig) -> list[str]:
    """The keeper, if time alone makes contributions too old; what a round makes too old, the run removes."""
    return [] if config.contributions.keep_days is None else [KEEPER]


def keeper_command(layout: Layout) -> tuple[str, ...]:
    """Program and arguments; what is too old now, the start of the SuperLink has removed."""
    every = ("--every", f"{HOURS:g}", "--not-at-once")
    return (executable("reconsent"), "purge", *every, "--state", str(layout.state))
