"""Progress: bars on a terminal, elsewhere a plain line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from server.events import Event

LINE_SECONDS = 15.0
"""Least time between two plain lines."""

SILENT_SECONDS = 60.0
"""Longest time without one, if anything is done at all."""

_STAGES = {"train": "training", "continue": "training on", "unlearn": "unlearning", "oracle": "oracle"}


@dataclass(slots=True)
class _Pace:
    """Where a stage began, and where it was when the last plain line was written."""

    began_at: float
    first: int
    said_at: float
    said: int

    def is_due(self, done: int, total: int, now: float) -> bool:
        """Whether it is time for a line: a tenth is done, or a minute is over, or it is at its end."""
        if done == self.said or now - self.said_at < LINE_SECONDS:
            return False
        return done >= total or 10 * (done - self.said) >= total or now - self.said_at >= SILENT_SECONDS

    def seconds_left(self, done: int, total: int, now: float) -> float | None:
        """By the mean pace since it began; ``None`` before anything is done, and at the end."""
        if not self.first < done < total:
            return None
        return (now - self.began_at) / (done - self.first) * (total - done)


class ProgressBoard:
    """One bar a stage, and a line for each thing worth a line.

    Where no bars can be drawn, as in the log of a continuous integration, a stage that takes more than a few
    seconds says at most every quarter of a minute how far it is.

    Parameters
    ----------
    console
        Where to draw; bars appear on terminals only, lines unless ``quiet``.
    quiet
        Draw and print nothing.
    clock
        Seconds that never go back.
    """

    def __init__(self, console: Console, *, quiet: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._quiet = quiet
        self._plain = not quiet and not console.is_terminal
        self._clock = clock
        self._progress = Progress(
            TextColumn("{task.description:<24}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            disable=quiet or not console.is_terminal,
        )
        self._tasks: dict[str, int] = {}
        self._paces: dict[str, _Pace] = {}

    def __enter__(self) -> ProgressBoard:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def step(self, what: str, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` steps of ``what`` are done."""
        self._show(what, done, total, "")

    def listen(self, event: Event) -> None:
        """Show what the server announces."""
        if event.kind in ("stage", "round"):
            what = _STAGES.get(event.stage, event.stage)
            if event.kind == "stage":
                self._paces.pop(what, None)
            losses = event.metrics.get("train-loss")
            notes = [f"loss {losses:.4f}"] if losses is not None else []
            psnr = [value for key, value in event.metrics.items() if key.startswith("psnr/")]
            if psnr:
                notes.append(f"PSNR {sum(psnr) / len(psnr):.2f} dB")
            self._show(what, event.index, event.total, "  ".join(notes), unit="round ")
        if event.kind in ("stage", "withdrawal", "notice") or (event.kind == "round" and event.text):
            self.say(event.text)

    def say(self, text: str) -> None:
        """Print a line above the bars."""
        if not self._quiet:
            # Reasons that somebody typed, and words of a site, are no markup.
            self._progress.console.print(text, highlight=False, markup=False)

    def _show(self, what: str, done: int, total: int, note: str, unit: str = "") -> None:
        if self._plain:
            self._say_how_far(what, done, total, note, unit)
            return
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=total, note=note)
        fields = {"note": note} if note else {}
        self._progress.update(self._tasks[what], completed=done, total=total, **fields)  # type: ignore[arg-type]

    def _say_how_far(self, what: str, done: int, total: int, note: str, unit: str) -> None:
        now = self._clock()
        pace = self._paces.get(what)
        if pace is None or done < pace.said:
            # It may have begun earlier; its pace is that of what follows.
            self._paces[what] = _Pace(now, done, now, done)
            return
        if not pace.is_due(done, total, now):
            return
        # Only now: its package draws pictures as well, and takes a second to import.
        from cli.report.words import duration

        pace.said_at, pace.said = now, done
        left = pace.seconds_left(done, total, now)
        parts = [
            f"{what}: {unit}{done} of {total}",
            *([f"about {duration(left)} left"] if left is not None else []),
            *note.split("  "),
        ]
        self.say(", ".join(part for part in parts if part))
