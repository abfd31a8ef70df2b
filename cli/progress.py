"""Progress on a terminal; silence elsewhere."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from server.events import Event

_STAGES = {"train": "training", "continue": "training on", "unlearn": "unlearning", "oracle": "oracle"}


class ProgressBoard:
    """One bar a stage, and a line for each thing worth a line.

    Parameters
    ----------
    console
        Where to draw; bars appear on terminals only, lines unless ``quiet``.
    quiet
        Draw and print nothing.
    """

    def __init__(self, console: Console, *, quiet: bool) -> None:
        self._console = console
        self._quiet = quiet
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
            losses = event.metrics.get("train-loss")
            note = f"loss {losses:.4f}" if losses is not None else ""
            psnr = [value for key, value in event.metrics.items() if key.startswith("psnr/")]
            if psnr:
                note += f"  PSNR {sum(psnr) / len(psnr):.2f} dB"
            self._show(_STAGES.get(event.stage, event.stage), event.index, event.total, note)
        if event.kind in ("stage", "withdrawal", "notice") or (event.kind == "round" and event.text):
            self.say(event.text)

    def say(self, text: str) -> None:
        """Print a line above the bars."""
        if not self._quiet:
            # Reasons that somebody typed, and words of a site, are no markup.
            self._progress.console.print(text, highlight=False, markup=False)

    def _show(self, what: str, done: int, total: int, note: str) -> None:
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=total, note=note)
        fields = {"note": note} if note else {}
        self._progress.update(self._tasks[what], completed=done, total=total, **fields)  # type: ignore[arg-type]
