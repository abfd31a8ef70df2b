"""What a site says for itself about what it was asked and what it answered, from its own log."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from client.site_log import LogError, entry_of
from client.witness import witness_path
from unlearning.ledger.checkpoints import Checkpoint, read_checkpoint
from unlearning.ledger.exports import read_checkpoint_file


def receipt_body(log: Path) -> dict[str, Any]:
    """The content of a receipt: hashes, times and counts, no name.

    Returns
    -------
    ``made_at``; ``checkpoint`` (the newest of the ledger that the site keeps as its witness, or null);
    ``log`` (``sha256``, ``lines``, ``first``, ``last``); ``worked`` (a list with ``at``, ``run``, ``type``,
    ``round``, ``received``, ``sent``: SHA-256 of the models); ``refused`` (code to number); ``failed``.

    Raises
    ------
    LogError
        If the log cannot be read.
    LedgerError, SignatureError
        If the witness file was damaged.
    """
    try:
        content = log.read_bytes()
    except OSError as error:
        raise LogError(f"The site's log {log} cannot be read: {error.strerror}.", "Check the path.") from None
    lines = [line for line in map(entry_of, content.splitlines()) if line]
    times = [str(line["at"]) for line in lines if "at" in line]
    checkpoint = _witnessed(log)
    return {
        "made_at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "checkpoint": None if checkpoint is None else asdict(checkpoint),
        "log": {
            "sha256": hashlib.sha256(content).hexdigest(),
            "lines": len(lines),
            "first": times[0] if times else None,
            "last": times[-1] if times else None,
        },
        "worked": [
            {
                "at": line.get("at"),
                "run": line.get("run"),
                "type": line.get("type"),
                "round": line.get("round"),
                "received": line.get("model-received"),
                "sent": line.get("model-sent"),
            }
            for line in lines
            if line.get("event") == "worked"
        ],
        "refused": dict(Counter(str(line.get("reason")) for line in lines if line.get("event") == "refused")),
        "failed": sum(line.get("event") == "failed" for line in lines),
    }


def _witnessed(log: Path) -> Checkpoint | None:
    path = witness_path(log)
    if not path.exists():
        return None
    kept = read_checkpoint_file(path)
    return read_checkpoint(kept.envelope, [kept.key])
