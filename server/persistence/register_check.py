"""Compares the register of withdrawals with what the ledger says of it, and names the first difference.

The ledger's own check finds what was done to its entries; this one finds what was done to the rows that they
speak of: a step or an act that was altered, dropped or added, and a withdrawal that does not stand where its
entries left it.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import select
from sqlalchemy.orm import Session

from reconsent.errors import ReconsentError
from server.persistence.commitments import act_commitment, event_commitment
from server.persistence.ledger_entries import (
    ACT_DATES,
    HASHED_ACTS,
    WITHDRAWAL,
    WITHDRAWAL_ACT,
    role,
    said_of_act,
)
from server.persistence.tables import LedgerRow, WithdrawalActRow, WithdrawalEventRow, WithdrawalRow
from server.persistence.withdrawal_records import intake_of
from unlearning.ledger.entries import Entry
from unlearning.withdrawal import WithdrawalState

_Row = WithdrawalActRow | WithdrawalEventRow
_TABLES: Mapping[str, type[_Row]] = {WITHDRAWAL: WithdrawalEventRow, WITHDRAWAL_ACT: WithdrawalActRow}
_SLACK = dt.timedelta(minutes=1)
"""Between the two looks at the clock that date a step and the withdrawal it closes."""

_UNREADABLE = (ValueError, TypeError, AttributeError, ReconsentError)
"""What comes of a cell that holds what is never written there."""


@dataclass(frozen=True, slots=True)
class RegisterCheck:
    """What a comparison came to.

    Attributes
    ----------
    compared
        Steps and acts that are what their entries say.
    before
        Steps and acts from before the ledger was begun, of which it says nothing.
    uncovered
        Of those compared, how many were written by releases whose entries say nothing of texts and names.
    erased
        Steps and acts whose text was erased; of them what the entries say in clear was compared.
    entry
        Number of the entry that differs first; ``None`` if there is none, or if something was added of which
        no entry speaks.
    problem
        The first difference, in words; empty if there is none.
    """

    compared: int = 0
    before: int = 0
    uncovered: int = 0
    erased: int = 0
    entry: int | None = None
    problem: str = ""

    @property
    def sound(self) -> bool:
        """Whether the register is what the ledger says."""
        return not self.problem


def check_register(session: Session) -> RegisterCheck:
    """Compare all of it, as of one moment; the ledger itself must have been found sound."""
    query = select(LedgerRow.content).where(LedgerRow.kind.in_(_TABLES)).order_by(LedgerRow.number)
    entries = [Entry.of(content) for content in session.scalars(query)]
    try:
        comparison = _Comparison(session, entries)
    except _UNREADABLE as error:
        return RegisterCheck(problem=f"a row of the register cannot be read, so it was altered ({error})")
    try:
        for entry in entries:
            comparison.take(entry)
        comparison.finish()
    except _Differs as found:
        return comparison.result(found.entry, found.problem)
    return comparison.result()


class _Differs(Exception):  # noqa: N818 - it never leaves this module
    def __init__(self, entry: int | None, problem: str) -> None:
        self.entry, self.problem = entry, problem


class _Comparison:
    def __init__(self, session: Session, entries: Sequence[Entry]) -> None:
        self._requests = {row.id: row for row in session.scalars(select(WithdrawalRow))}
        self._rows: dict[tuple[str, int], _Row] = {
            (kind, row.number): row
            for kind, table in _TABLES.items()
            for row in cast(Iterable[_Row], session.scalars(select(table).order_by(table.number)))
        }
        self._compared = self._before = self._uncovered = self._erased = 0
        self._filed = {
            entry.body["withdrawal"]: entry
            for entry in entries
            if entry.kind == WITHDRAWAL and entry.body["from"] is None
        }
        begun = session.scalar(select(LedgerRow.at).order_by(LedgerRow.number).limit(1))
        self._begun = None if begun is None else dt.datetime.fromisoformat(begun)
        self._former = self._former_rows(entries)
        self._restricted: dict[str, dt.datetime] = {}
        self._received: dict[str, dt.datetime] = {}
        self._last: dict[str, tuple[Entry, WithdrawalEventRow]] = {}
        self._due: dict[str, str | None] = {}
        self._intake: defaultdict[str, dict[str, Any]] = defaultdict(dict)
        self._acts: defaultdict[str, dict[str, WithdrawalActRow]] = defaultdict(dict)

    def result(self, entry: int | None = None, problem: str = "") -> RegisterCheck:
        return RegisterCheck(self._compared, self._before, self._uncovered, self._erased, entry, problem)

    def _former_rows(self, entries: Sequence[Entry]) -> dict[tuple[str, str], deque[_Row]]:
        """By kind and withdrawal, the rows of releases whose entries name no row: those go by their order.

        What was written before there was a ledger comes first, and has no entry.
        """
        named = {(entry.kind, entry.body["row"]) for entry in entries if "row" in entry.body}
        found: defaultdict[tuple[str, str], deque[_Row]] = defaultdict(deque)
        for (kind, number), row in self._rows.items():
            if (kind, number) not in named and row.salt is None:
                found[kind, row.withdrawal].append(row)
        for (kind, withdrawal), rows in found.items():
            known = sum(
                entry.kind == kind and entry.body["withdrawal"] == withdrawal and "row" not in entry.body
                for entry in entries
            )
            while withdrawal not in self._filed and len(rows) > known and self._is_older(rows[0].at):
                del self._rows[kind, rows.popleft().number]
                self._before += 1
        return found

    def _is_older(self, moment: dt.datetime) -> bool:
        """Whether something is from before the ledger, as it says itself: only then there may be no entry."""
        return self._begun is None or moment < self._begun

    def take(self, entry: Entry) -> None:
        """Compare the row that an entry speaks of."""
        body, kind = entry.body, entry.kind
        if "row" in body:
            row = self._rows.pop((kind, body["row"]), None)
        else:
            rows = self._former.get((kind, body["withdrawal"]))
            row = rows.popleft() if rows else None
            if row is not None:
                del self._rows[kind, row.number]
        what = f"the act '{body['act']}'" if kind == WITHDRAWAL_ACT else f"the step to '{body['to']}'"
        what = f"{what} of withdrawal {body['withdrawal']}"
        if row is None:
            raise _Differs(entry.number, f"{what} was dropped from the register")
        try:
            self._compare(entry, row, what)
        except _UNREADABLE as error:
            raise _Differs(entry.number, f"{what} was altered in the register ({error})") from error

    def _compare(self, entry: Entry, row: _Row, what: str) -> None:
        body = entry.body
        self._note(entry, row)
        textless = _has_no_text(row)
        if not _says(entry, row, erased=textless):
            raise _Differs(entry.number, f"{what} was altered in the register")
        if "commitment" in body and row.salt is None and not textless:
            raise _Differs(entry.number, f"{what} has lost the salt it is compared by, and its text is there")
        if self._is_committed(entry, row):
            self._compared += 1
            self._uncovered += "commitment" not in body
        elif textless:
            self._erased += 1
        else:
            raise _Differs(entry.number, f"{what} was altered in the register")

    def _is_committed(self, entry: Entry, row: _Row) -> bool:
        """Whether a row is, text and names included, what its entry commits to, if it commits to any."""
        digest = entry.body.get("commitment")
        if digest is not None and row.salt is None:
            return False
        if isinstance(row, WithdrawalActRow):
            return digest is None or act_commitment(row) == str(digest)
        request = self._requests.get(row.withdrawal)
        if digest is None or request is None:
            return request is not None
        return event_commitment(row, request) == str(digest)

    def _note(self, entry: Entry, row: _Row) -> None:
        """Keep what tells how the withdrawal must stand in the end."""
        body, id_ = entry.body, entry.body["withdrawal"]
        self._intake[id_] |= body.get("intake", {})
        if isinstance(row, WithdrawalActRow):
            self._acts[id_][row.kind] = row
            if body["act"] == "extended":
                # Entries of former releases lack the date.
                self._due[id_] = body.get("to") or row.body.get("to") or self._due.get(id_)
        else:
            self._last[id_] = entry, row
            self._received.setdefault(id_, row.at)
            if row.new_state == WithdrawalState.RESTRICTED:
                self._restricted.setdefault(id_, row.at)
            self._due[id_] = body["due"]

    def finish(self) -> None:
        """Compare where each withdrawal stands, and look for what was added."""
        filed = []
        for id_, (entry, step) in self._last.items():
            request = self._requests.pop(id_, None)
            if request is None:
                raise _Differs(entry.number, f"withdrawal {id_} was dropped from the register")
            altered = f"withdrawal {id_} was altered in the register"
            try:
                field = self._differing(request, entry, step)
            except _UNREADABLE as error:
                raise _Differs(entry.number, f"{altered} ({error})") from error
            if field is not None:
                raise _Differs(entry.number, f"{altered}: its {field}")
            filed += [request.number] if id_ in self._filed else []
        for (kind, number), row in sorted(self._rows.items(), key=lambda item: item[1].at):
            what = "an act" if kind == WITHDRAWAL_ACT else "a step"
            problem = f"{what} of withdrawal {row.withdrawal} was added to the register (row {number})"
            raise _Differs(None, f"{problem}: the ledger has no entry of it")
        for request in self._requests.values():
            # One that was filed before there was a ledger comes before all that it has entries of.
            older = self._is_older(request.filed_at or request.received_at)
            if not older or (filed and request.number > min(filed)):
                problem = f"withdrawal {request.id} was added to the register"
                raise _Differs(None, f"{problem}: the ledger has no entry of it")

    def _differing(self, row: WithdrawalRow, last: Entry, step: WithdrawalEventRow) -> str | None:
        """Which field of a withdrawal is not as its entries left it."""
        told, acts = last.body, self._acts[row.id]
        failed_in = told["from"] if told["to"] == WithdrawalState.FAILED else None
        closed = step.at if WithdrawalState(told["to"]).closed else None
        pairs: dict[str, tuple[Any, Any]] = {
            "state": ((row.state, row.failed_in), (told["to"], failed_in)),
            "sites": (row.sites, told["sites"]),
            "method": (row.method, told["method"]),
            "mark of a simulation": (row.simulated, told["simulated"]),
            "time of receipt": (_second(row.received_at), _second(told["received"])),
            "deadline": (_second(row.due_at), _second(self._due[row.id] or row.due_at)),
            "time of closing": _moments(row.closed_at, closed),
        }
        if (filed := self._filed.get(row.id)) is not None:
            # Of all that was done about it there is an entry, so what there is none of was not done.
            pairs |= {
                "time of filing": _moments(row.filed_at, self._received[row.id]),
                "time of the restriction": _moments(row.restricted_at, self._restricted.get(row.id)),
                "extension": (row.extended_at is not None, "extended" in acts),
                "grant in part": (bool(row.in_part), "in-part" in acts),
                "intake": (intake_of(row).closed_words, self._intake[row.id]),
            }
            pairs |= {name: (getattr(row, name), filed.body[name]) for name in _FILED & filed.body.keys()}
        if "owner" in acts:
            # Once that act is erased no name may stand here either.
            pairs["owner"] = row.owner or "", acts["owner"].body.get("owner") or ""
        return next((name for name, (there, said) in pairs.items() if there != said), None)


_FILED = frozenset({"ground", "scope"})
"""Fields of a withdrawal that the entry of its filing has; those of former releases have none."""


def _has_no_text(row: _Row) -> bool:
    """Whether no text is left of a row that may have one: what was erased looks like this."""
    if isinstance(row, WithdrawalEventRow):
        return not row.note
    return row.kind not in HASHED_ACTS and not row.body.keys() - {ACT_DATES.get(row.kind)}


def _says(entry: Entry, row: _Row, *, erased: bool) -> bool:
    """Whether a row is what its entry says in clear; of an erased one, what is no part of its text."""
    body = entry.body
    if isinstance(row, WithdrawalEventRow):
        told = body["withdrawal"], body["from"], body["to"], body["by"]
        return told == (row.withdrawal, row.old_state, row.new_state, role(row.actor))
    said = said_of_act(row)
    # Entries of former releases lack some of it. How a request came in goes with the text that it was in.
    names = body.keys() - {"row", "commitment", *(["intake"] if erased else [])}
    return all(body[name] == said.get(name) for name in names)


def _second(moment: dt.datetime | str) -> dt.datetime:
    read = dt.datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    return read.astimezone(dt.UTC).replace(microsecond=0)


def _moments(
    there: dt.datetime | None, said: dt.datetime | None
) -> tuple[dt.datetime | None, dt.datetime | None]:
    """A time of a withdrawal and that of its step, as equal ones if they are as close as they may be."""
    near = there is not None and said is not None and abs(there - said) <= _SLACK
    return (said, said) if near else (there, said)
