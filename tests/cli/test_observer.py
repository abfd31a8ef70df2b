"""The observer without worker processes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

import pytest

from cli.assessment import Observer


def test_without_workers_everything_is_done_in_this_process() -> None:
    """What is submitted is done here and at once; what it raises is raised by who asks for the result."""
    with Observer(Path("nowhere.toml"), cast("Any", None), workers=0) as observer:
        assert observer.submit(os.getpid).result() == os.getpid()
        failed = observer.submit(int, "no number")
        with pytest.raises(ValueError, match="no number"):
            failed.result()
