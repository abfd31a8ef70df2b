"""What a consortium on this machine consists of, and who is told of what is done with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class Report(Protocol):
    """Is told what is being done, and what deserves attention (``warning``)."""

    def __call__(self, text: str, *, warning: bool = False) -> None:
        """Take note."""


def silent(text: str, *, warning: bool = False) -> None:
    """A :class:`Report` that says nothing."""
    del text, warning


@dataclass(frozen=True, slots=True)
class Component:
    """A process of the consortium, as it is now.

    Attributes
    ----------
    name
        ``superlink``, ``supernode-SITE``, ``metrics`` (the server's exporter), ``metrics-SITE``,
        or ``purge`` (which removes what is too old).
    site
        Whose it is; empty for the server's.
    status
        ``running``, ``stopped``, ``not serving`` (it runs but does not answer), or ``kept out``.
    pid
        Its number; ``None`` unless it runs.
    ports
        Purpose → port.
    log
        Its log.
    remark
        Why a site is kept out.
    """

    name: str
    site: str
    status: str
    pid: int | None
    ports: dict[str, int]
    log: Path
    remark: str = ""
