"""``reconsent methods``: the methods of unlearning and their settings."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table


def methods() -> None:
    """List the methods of unlearning, what each claims, and its settings with their defaults."""
    from strategies import METHODS

    console = Console()
    for name, method in METHODS.items():
        console.print(f"\n[bold]{name}[/bold]: {method.summary_line}", highlight=False)
        console.print(f"  strongest claim: {method.claim_level}", highlight=False)
        if not method.settings_type.model_fields:
            continue
        table = Table(box=None, padding=(0, 2, 0, 2), show_header=True)
        for head in ("setting", "default", "meaning"):
            table.add_column(head, overflow="fold")
        for key, field in method.settings_type.model_fields.items():
            default = "" if field.default is None else str(field.default)
            table.add_row(field.alias or key, default, field.description or "")
        console.print(table)
