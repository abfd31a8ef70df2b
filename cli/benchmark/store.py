"""What a benchmark has found so far: one JSON line an attempt, so that a killed run goes on where it was."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from cli.gauge import Figures
from cli.trials import Attempt
from reconsent.errors import DataError

Stage = Literal["search", "report", "floor"]


@dataclass(frozen=True, slots=True)
class Record:
    """One attempt, or why it could not be made.

    Attributes
    ----------
    stage
        Whether settings were searched, the chosen ones reported, or another oracle trained.
    case
        Name of the case.
    method, settings
        What was tried.
    original, oracle
        Of the case.
    attempt
        ``None`` if it failed.
    error
        Why it failed; empty if it did not.
    digest
        SHA-256 of the consortium that was trained, see :attr:`~cli.benchmark.plan.Case.digest`. Empty in
        records of before it was kept: these are taken for records of the consortium of that name.
    versions
        Package → version it was made with.
    """

    stage: Stage
    case: str
    method: str
    settings: Mapping[str, Any]
    original: Figures
    oracle: Figures
    attempt: Attempt | None
    error: str = ""
    digest: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, str]:
        """Equal for the same attempt, whether it was made to search or to report."""
        return self.case, self.method, json.dumps(self.settings, sort_keys=True)


class Store:
    """A file of records, appended to and flushed one by one.

    Parameters
    ----------
    path
        JSON lines; made with the first record.

    Raises
    ------
    DataError
        If a line but the last, which a killed run may have left unfinished, is not a record.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: list[Record] = []
        if not path.exists():
            return
        lines = path.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines, 1):
            try:
                self.records.append(_record(json.loads(line)))
            except (ValueError, KeyError, TypeError) as error:
                if number == len(lines):
                    path.write_text("".join(f"{kept}\n" for kept in lines[:-1]), encoding="utf-8")
                    break
                raise DataError(
                    f"Line {number} of {path} is no record of a benchmark: {error}.",
                    "Restore the file, or remove it and run the benchmark again.",
                ) from None

    def find(self, stage: Stage, key: tuple[str, str, str], digest: str) -> Record | None:
        """The record of an attempt, if it was made on the consortium with this digest."""
        found = (r for r in self.records if r.stage == stage and r.key == key)
        return next((r for r in found if r.digest in ("", digest)), None)

    def foreign(self, digests: Mapping[str, str]) -> int:
        """How many records are of the given cases (name → digest), but of another consortium."""
        return sum(r.digest not in ("", digests.get(r.case, r.digest)) for r in self.records)

    def add(self, record: Record) -> None:
        """Append a record; it survives a power cut."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(record), sort_keys=True) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.records.append(record)


def _record(table: dict[str, Any]) -> Record:
    attempt = table["attempt"]
    if attempt is not None:
        attempt = Attempt(**{**attempt, "figures": Figures(**attempt["figures"])})
    return Record(
        **{
            **table,
            "original": Figures(**table["original"]),
            "oracle": Figures(**table["oracle"]),
            "attempt": attempt,
        }
    )
