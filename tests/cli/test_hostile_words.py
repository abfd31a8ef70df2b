"""Words of sites and of requesters are shown as they are: they are no markup, and stop no command."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from cli.progress import ProgressBoard
from cli.status import _print
from server.events import Event

WORDS = "[/] [red]x[/blue] [link=http://evil.example]click[/link]"


def test_progress_shows_reasons_as_they_are() -> None:
    """A reason with brackets neither ends the watching nor disappears."""
    console = Console(file=io.StringIO(), width=200)
    with ProgressBoard(console, quiet=False) as board:
        board.listen(Event("notice", f"Withdrawal W-1 is refused ({WORDS})."))
    assert WORDS in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("place", ["requested_by", "note", "refusal", "error", "failure"])
def test_status_shows_words_as_they_are(place: str) -> None:
    """Who asked, the last step, a site's refusal or failure, a run's error: whatever they say is shown."""
    places = ("requested_by", "note", "refusal", "error", "failure")
    said = {name: WORDS if name == place else "x" for name in places}
    found: dict[str, Any] = {
        "consortium": "c",
        "round": 1,
        "target": 2,
        "model": None,
        "run": {"id": "1", "task": "train", "status": "failed", "error": said["error"]},
        "processes": [],
        "superlink": {"address": None, "health": "unknown"},
        "failed_rounds": {
            "count": 1,
            "last": {
                "round": 2,
                "kind": "train",
                "at": "2027-01-01T10:00:00+00:00",
                "repeated": False,
                "sites": {"north": {"outcome": "failed", "reason": said["failure"]}},
            },
        },
        "sites": [],
        "refusals": {"north": {"count": 1, "last": said["refusal"]}},
        "refused_replies": {},
        "unpurged": ["north"],
        "privacy": [],
        "withdrawals": [
            {
                "id": "W-1",
                "site": "north",
                "state": "restricted",
                "held_until": None,
                "requested_by": said["requested_by"],
                "due_local": "2027-01-31T10:00:00+01:00",
                "overdue": True,
                "note": said["note"],
            }
        ],
    }
    console = Console(file=io.StringIO(), width=400)
    _print(found, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert WORDS in text
    assert "2027-01-31 OVERDUE" in text
    assert "still hold updates of north" in text
