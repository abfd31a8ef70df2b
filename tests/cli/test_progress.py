"""Progress where no bars can be drawn: a plain line now and then."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence

import pytest
from rich.console import Console

from cli.progress import LINE_SECONDS, ProgressBoard
from server.events import Event


class Clock:
    """Seconds that pass when told to."""

    now = 1000.0

    def read(self) -> float:
        """The time."""
        return self.now


def rounds(
    seconds: float, total: int, first: int = 0, *, quiet: bool = False, terminal: bool = False
) -> list[str]:
    """What a stage of rounds that take so long writes."""
    clock, console = Clock(), Console(file=io.StringIO(), width=200, force_terminal=terminal)
    with ProgressBoard(console, quiet=quiet, clock=clock.read) as board:
        board.listen(Event("stage", "Training with 4 sites", "train", first, total))
        for index in range(first + 1, total + 1):
            clock.now += seconds
            metrics = {"train-loss": 1 / index} | ({"psnr/a": 20.0, "psnr/b": 22.0} if index == total else {})
            board.listen(Event("round", "", "train", index, total, metrics))
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def told(lines: Sequence[str]) -> list[int]:
    """The rounds that lines are about."""
    return [int(line.split()[2]) for line in lines if line.startswith("training: round ")]


def test_a_line_says_round_time_left_and_loss() -> None:
    """Ten rounds of 20 s: one line each, with the time left by the pace so far; the last with the PSNR."""
    lines = rounds(20.0, 10)
    assert lines[0] == "Training with 4 sites"
    assert lines[2] == "training: round 2 of 10, about 3 min left, loss 0.5000"
    assert lines[-1] == "training: round 10 of 10, loss 0.1000, PSNR 21.00 dB"
    assert told(lines) == list(range(1, 11))


@pytest.mark.parametrize(
    ("seconds", "total", "expected"),
    [
        (0.5, 20, []),
        (1.0, 100, [15, 30, 45, 60, 75, 90]),
        (2.0, 1000, [*range(30, 1000, 30), 1000]),
        (200.0, 3, [1, 2, 3]),
        (3.0, 60, [6, 12, 18, 24, 30, 36, 42, 48, 54, 60]),
    ],
)
def test_lines_are_few(seconds: float, total: int, expected: list[int]) -> None:
    """None within 15 s of another; then one for each tenth, or a minute, and at the end."""
    assert told(rounds(seconds, total)) == expected
    assert all(b - a >= LINE_SECONDS / seconds for a, b in itertools.pairwise(expected))


def test_a_run_that_was_taken_up_again_knows_its_pace() -> None:
    """From round 50 of 60 on, the rounds before do not count as done in no time."""
    assert rounds(30.0, 60, first=50)[1] == "training: round 52 of 60, about 4 min left, loss 0.0192"


def test_steps_of_other_work_are_told_as_well() -> None:
    """Data that are made, and models that are measured, in the same way and without the word round."""
    clock, console = Clock(), Console(file=io.StringIO(), width=200)
    with ProgressBoard(console, quiet=False, clock=clock.read) as board:
        for done in range(5):
            board.step("measuring", done, 4)
            clock.now += 40.0
    assert console.file.getvalue().splitlines() == [  # type: ignore[attr-defined]
        "measuring: 1 of 4, about 2 min left",
        "measuring: 2 of 4, about 80 s left",
        "measuring: 3 of 4, about 40 s left",
        "measuring: 4 of 4",
    ]


def test_nothing_with_quiet_and_only_bars_on_a_terminal() -> None:
    """--quiet and --json are as silent as they were, and a terminal has its bars and no lines."""
    assert rounds(20.0, 10, quiet=True) == []
    drawn = rounds(20.0, 10, terminal=True)
    assert drawn
    assert not told(drawn)
