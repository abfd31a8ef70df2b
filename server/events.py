"""What the server tells whoever watches: one small record for each thing that happened."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

EventKind = Literal["stage", "round", "withdrawal", "notice", "done"]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened.

    Attributes
    ----------
    kind
        ``stage``: a stretch of ``total`` rounds begins; ``round``: one of them is committed;
        ``withdrawal``: one changed its state; ``notice``: something an operator should know; ``done``: the
        run has ended.
    text
        In words.
    stage
        ``train``, ``unlearn``, ``oracle``, ``continue``.
    index, total
        Rounds of the stage done, and planned.
    metrics
        Figures of the round.
    """

    kind: EventKind
    text: str
    stage: str = ""
    index: int = 0
    total: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)


Listener = Callable[[Event], None]
_listeners: list[Listener] = []


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Have ``listener`` called for each event within the block (it may come from another thread)."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def announce(event: Event) -> None:
    """Tell every listener."""
    for listener in tuple(_listeners):
        listener(event)
