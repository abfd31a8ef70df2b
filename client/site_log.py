"""The site's own record, on its own disk: every message that was worked or refused, one JSON line each.

It holds times, sizes and hashes; never pixels, k-space, file names or patients. So it can be handed to an
auditor as it is, and its hashes compared with those in the server's registry.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from client.append_only import append_line, locked
from client.policy import policy_path
from reconsent.errors import StateError

LOG_VARIABLE = "RECONSENT_SITE_LOG"
DAY_SECONDS = 86_400.0


def log_path(node_config: Mapping[str, object], environment: Mapping[str, str]) -> Path | None:
    """Where the site's log is; ``None`` if it keeps none.

    ``RECONSENT_SITE_LOG``, or ``log`` of the node configuration, or beside the policy: ``policy.toml`` has
    ``policy.log.jsonl``.
    """
    named = environment.get(LOG_VARIABLE) or node_config.get("log")
    if named:
        return Path(str(named))
    policy = policy_path(node_config, environment)
    return policy.with_suffix(".log.jsonl") if policy is not None else None


class LogError(StateError):
    """The site's log cannot be written or read, so the site must not work."""


class SiteLog:
    """An append-only file of JSON lines; several processes may write to it at once.

    A line that :meth:`append` returned from is on the disk. A file that is made here can be read by its owner
    alone (mode 600); the mode of one that is there already is the site's to choose.

    Parameters
    ----------
    path
        The file; its directory must exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, event: str, fields: Mapping[str, Any]) -> None:
        """Write one line, all of it or nothing, and flush it to the disk.

        Parameters
        ----------
        event
            ``received``, ``worked``, ``refused``, ``failed`` or ``paid``.
        fields
            The rest of the line.

        Raises
        ------
        LogError
            If it cannot be written, as on a full disk; the file is as it was then.
        """
        now = time.time()
        at = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"at": at, "time": round(now, 3), "event": event, **fields}) + "\n"
        try:
            with locked(self.path) as descriptor:
                append_line(descriptor, line.encode())
        except OSError as error:
            raise LogError(
                f"The site's log {self.path} cannot be written: {error}.",
                "Make room or mend its permissions; until then this site refuses all work.",
            ) from None

    def trainings(self, *, since: float) -> int:
        """How many trainings were worked since ``since`` (seconds since 1970).

        Raises
        ------
        LogError
            If the log cannot be read.
        """
        count = 0
        try:
            with self.path.open("rb") as file:
                for line in file:
                    entry = entry_of(line)
                    count += (
                        entry.get("event") == "worked"
                        and str(entry.get("type", "")).partition(".")[0] == "train"
                        and float(entry.get("time", 0.0)) >= since
                    )
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise LogError(
                f"The site's log {self.path} cannot be read: {error}.", "Mend its permissions."
            ) from None
        return count


def entry_of(line: bytes) -> dict[str, Any]:
    """What a line of the log holds; nothing if it is none, as one that was cut off."""
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}
