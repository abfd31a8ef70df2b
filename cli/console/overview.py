"""The first page: where the consortium stands, and what waits for somebody."""

from __future__ import annotations

import datetime as dt
from typing import Any

from starlette.responses import Response

from cli.console.visits import Visit
from server.names import MAIN
from server.persistence import RoundLog, StateDirectory, Withdrawals
from server.status import status_of
from server.withdrawal_view import summary_of


def overview(visit: Visit) -> Response:
    """Sites, round, model, run, and the withdrawals that are open."""
    state, consortium = visit.state, visit.console.opened.consortium()
    now = dt.datetime.now(dt.UTC)
    records = Withdrawals(state).all()
    open_ = [summary_of(state, record, now) for record in records if not record.state.closed]
    return visit.page(
        "overview.html.j2",
        status=status_of(state, consortium),
        seen=last_seen(state),
        open=sorted(open_, key=lambda entry: str(entry["due_at"])),
        closed=len(records) - len(open_),
        consortium=consortium,
        simulated=any(record.simulated for record in records),
    )


def last_seen(state: StateDirectory) -> dict[str, dict[str, Any]]:
    """Site → when its node last answered in a round of the consortium, and in which."""
    found: dict[str, dict[str, Any]] = {}
    for record in RoundLog(state).all(MAIN):
        for site, outcome in record.sites.items():
            if outcome.outcome not in ("timeout", "withdrawn"):
                found[site] = {"at": record.created_at, "round": record.round, "outcome": outcome.outcome}
    return found
