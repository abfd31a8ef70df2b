"""The observer without worker processes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cli.assessment import Observer
from reconsent.errors import ConfigError


def test_without_workers_everything_is_done_in_this_process() -> None:
    """What is submitted is done here and at once; what it raises is raised by who asks for the result."""
    with Observer(Path("nowhere.toml"), workers=0) as observer:
        assert observer.submit(os.getpid).result() == os.getpid()
        failed = observer.submit(int, "no number")
        with pytest.raises(ValueError, match="no number"):
            failed.result()


def test_what_is_asked_for_is_begun_at_once_and_waited_for_later() -> None:
    """Asking raises nothing of the work itself; whoever waits for it hears why it failed."""
    with Observer(Path("nowhere.toml"), workers=0) as observer:
        asked = (
            observer.quality([("m", {}, "knee", "test")]),
            observer.relearn({"m": {}}, ["knee"]),
        )
        for waited_for in asked:
            with pytest.raises(ConfigError, match=r"nowhere\.toml"):
                waited_for()
        assert observer.quality([])() == [] and observer.relearn({}, [])() == {}
