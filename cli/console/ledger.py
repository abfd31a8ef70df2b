"""The ledger: its entries, whether they hold, and a copy to keep."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from starlette.responses import Response

from cli.console.visits import Visit
from reconsent.errors import LedgerError
from server.persistence import Ledger
from server.persistence.ledger_entries import KINDS
from server.persistence.verification import Verification, verify_ledger
from unlearning.ledger.checkpoints import Checkpoint, read_checkpoint
from unlearning.ledger.entries import Entry
from unlearning.ledger.exports import read_checkpoint_file
from unlearning.signing import PublicKey

PAGE = 50


def ledger(visit: Visit) -> Response:
    """Entries, the newest first."""
    return _show(visit)


def check(visit: Visit) -> Response:
    """Check every entry, and compare with a checkpoint that somebody else kept, if one was sent."""
    opened = Ledger(visit.state)
    kept = _checkpoints(visit, opened.named_keys())
    result = verify_ledger(visit.state, kept=kept)
    # A ledger that was altered may take no entry any more; what was found is told all the same.
    with suppress(LedgerError):
        visit.record("ledger-verify", outcome="sound" if result.sound else "unsound")
    return _show(visit, result)


def export(visit: Visit) -> Response:
    """The whole ledger as a file that can be checked without the server."""
    visit.record("ledger-export")
    content = b"".join(Ledger(visit.state).export())
    return Response(
        content,
        media_type="application/jsonl",
        headers={"Content-Disposition": 'attachment; filename="ledger.jsonl"'},
    )


def _show(visit: Visit, result: Verification | None = None) -> Response:
    opened = Ledger(visit.state)
    kind = visit.request.query_params.get("kind", "")
    number = visit.request.query_params.get("page", "1")
    page = max(1, int(number)) if number.isdecimal() and len(number) < 9 else 1
    kind = kind if kind in KINDS else ""
    unreadable = ""
    try:
        entries, total = _page(opened, kind, page)
    except LedgerError as error:
        # Just then somebody needs the check, so the page must not be an error itself.
        entries, total, unreadable = [], opened.size(), error.problem
    return visit.page(
        "ledger.html.j2",
        entries=[(entry, json.dumps(entry.body, ensure_ascii=False, indent=1)) for entry in entries],
        kinds=KINDS,
        kind=kind,
        number_of_page=page,
        pages=max(1, -(-total // PAGE)),
        total=total,
        checkpoint=opened.checkpoint(),
        key=opened.public_key(),
        result=result,
        unreadable=unreadable,
    )


def _page(ledger: Ledger, kind: str, page: int) -> tuple[Sequence[Entry], int]:
    if kind:
        found = ledger.entries([kind])
        return list(reversed(found))[(page - 1) * PAGE : page * PAGE], len(found)
    size = ledger.size()
    first = max(0, size - page * PAGE)
    entries = ledger.entries(after=first)[: max(0, size - (page - 1) * PAGE) - first]
    return list(reversed(entries)), size


def _checkpoints(visit: Visit, trusted: Sequence[PublicKey]) -> list[Checkpoint]:
    known = {key.key_id for key in trusted}
    found = []
    for upload in visit.uploads.get("checkpoint", []):
        with tempfile.NamedTemporaryFile() as file:
            Path(file.name).write_bytes(upload.content)
            try:
                kept = read_checkpoint_file(Path(file.name))
            except LedgerError:
                raise LedgerError("The file holds no checkpoint.", "Choose the one a site kept.") from None
        if kept.key.key_id not in known:
            raise LedgerError(
                f"The checkpoint was signed by key {kept.key.key_id[:16]}…, which this ledger does not "
                "name: it is of another ledger, or all of this one was written anew with another key.",
                "Ask who keeps the checkpoint; if it is genuine, this ledger is not.",
            )
        found.append(read_checkpoint(kept.envelope, trusted))
    return found
