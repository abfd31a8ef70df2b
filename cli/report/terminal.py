"""What a simulation found, as a table for the end of a command."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from cli.report.palette import ordered, style_of
from cli.report.tables import board, cost_words
from cli.report.verdict import judge
from cli.results import Results

WIDTH = 80


def render_table(results: Results) -> Table:
    """The verdict table with its headline, at most 80 columns wide.

    A row a model with its PSNR in dB; below the unlearned model, its distance from the oracle with a
    sign and a mark, so that nothing depends on colour.
    """
    verdict = judge(results)
    contents = board(results)
    heads = [head["name"] for head in contents["heads"]]
    colour = {"good": "green", "bad": "red", "open": "yellow"}[verdict.tone]
    cost = cost_words(results)
    table = Table(
        title=Text(f"{verdict.headline}.", style=f"bold {colour}"),
        title_justify="left",
        caption=Text("SIMULATION: not evidence. PSNR in dB." + (f" Cost: {cost}." if cost else "")),
        caption_justify="left",
        width=WIDTH,
    )
    table.add_column("model", overflow="ellipsis", no_wrap=True)
    for head in heads:
        table.add_column(head, justify="right")
    for model, row in zip(ordered(results.accuracy), contents["rows"], strict=True):
        table.add_row(Text(style_of(model).label), *(Text(cell["value"] or "") for cell in row["cells"]))
        gaps = [_gap(cell) for cell in row["cells"]]
        if any(gap.plain for gap in gaps):
            table.add_row(Text("  − oracle", style="dim"), *gaps)
    return table


def _gap(cell: dict[str, object]) -> Text:
    check = cell["check"]
    if isinstance(check, dict):
        return Text(
            f"{check['sign']} {'✓' if check['within'] else '✗'}", "green" if check["within"] else "red"
        )
    return Text(str(cell["gap"] or ""), style="dim")
