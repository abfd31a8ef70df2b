"""``reconsent record``: facts for a record of processing (GDPR Art. 30) and an assessment (Art. 35)."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cli.deployment import StateOption
from cli.register import consortium_of, opened
from reconsent.errors import StateError
from reconsent.files import write_atomically


def record(
    form: Annotated[
        Literal["markdown", "json"], typer.Option("--format", help="Markdown to edit, or JSON.")
    ] = "markdown",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File to write (default: print).")] = None,
    state: StateOption = None,
) -> None:
    """Write what the software knows for a GDPR Art. 30 record and an Art. 35 impact assessment.

    Filled in from the consortium's file and state. What only the organisation knows is a field marked
    "TO BE FILLED IN BY THE ORGANISATION". It is a draft for whoever answers for the processing, and no
    legal advice.
    """
    from server.processing_record import markdown, record_of_processing

    consortium = consortium_of(state)
    with opened(state) as directory:
        found: dict[str, Any] = record_of_processing(directory, consortium, dt.datetime.now(dt.UTC))
    text = json.dumps(found, indent=2, ensure_ascii=False) + "\n" if form == "json" else markdown(found)
    if out is None:
        typer.echo(text, nl=False)
        return
    try:
        write_atomically(out, text.encode())
    except OSError as error:
        raise StateError(f"{out} cannot be written: {error}.", "Choose another --out.") from None
    typer.echo(f"{out}: a draft; {text.count(found['to_fill_in'])} fields are the organisation's to fill in.")
