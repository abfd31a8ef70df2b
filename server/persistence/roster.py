"""Who belongs to the consortium, and which node speaks for whom."""

from __future__ import annotations

import datetime as dt
import difflib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from reconsent.errors import BarredError, SiteError
from server.persistence.ledger import Ledger
from server.persistence.ledger_entries import (
    IDENTITY_REFUSED,
    SITE_JOINED,
    SITE_READMITTED,
    SITE_REFUSED,
    RefusalKind,
    identity_body,
    site_refusal_body,
)
from server.persistence.state import StateDirectory
from server.persistence.tables import SiteRow


class SiteStatus(StrEnum):
    """Whether a site takes part."""

    ACTIVE = "active"
    RESTRICTED = "restricted"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True)
class RosterEntry:
    """A site of the consortium.

    Attributes
    ----------
    site, organ, num_examples
        What it said of itself when it enrolled; ``num_examples`` counts training examples.
    node_id
        Flower's id of the node that speaks for the site; ``None`` before its first contact in a run.
    first_round, last_round
        First and last training round whose model has its update; ``None`` if there is none.
    status
        ``active``; ``restricted`` while a withdrawal is under way; ``withdrawn`` afterwards.
    enrolled_round
        Round in which it enrolled first.
    """

    site: str
    node_id: int | None
    organ: str
    num_examples: int
    first_round: int | None
    last_round: int | None
    status: SiteStatus
    enrolled_round: int


class Roster:
    """The sites that ever enrolled. Nothing is ever deleted from it: a barred site stays barred."""

    def __init__(self, state: StateDirectory) -> None:
        self._state = state
        self._ledger = Ledger(state)
        self._refused: list[tuple[str, dict[str, Any]]] = []

    def start_run(self, *, ephemeral: bool = True, session: Session | None = None) -> None:
        """Begin a new run.

        Parameters
        ----------
        ephemeral
            Forget which node spoke for which site: in a simulation, and without node authentication, nodes
            have a new id in every run. With authenticated nodes pass ``False``: then a site's node stays
            bound to it.
        session
            Transaction to take part in.
        """
        if not ephemeral:
            return
        with self._state.session(session) as own:
            for row in own.scalars(select(SiteRow).where(SiteRow.node_id.is_not(None))):
                row.node_id, row.updated_at = None, _now()

    def declare(self, site: str, organ: str, *, session: Session | None = None) -> None:
        """Put a site on the roster that has not been in contact yet, so that it can be withdrawn already.

        A site that is on it stays as it is.
        """
        with self._state.session(session) as own:
            if own.get(SiteRow, site) is None:
                own.add(
                    SiteRow(
                        name=site,
                        organ=organ,
                        num_examples=0,
                        enrolled_round=0,
                        status=SiteStatus.ACTIVE.value,
                        updated_at=_now(),
                    )
                )

    def return_of(self, site: str, *, session: Session | None = None) -> None:
        """Let a withdrawn site take part again, as a newcomer: what it gave before stays forgotten.

        Raises
        ------
        SiteError
            If it is unknown, or has not withdrawn.
        """
        with self._state.session(session) as own:
            row = self._rows(own, [site])[0]
            if row.status != SiteStatus.WITHDRAWN:
                raise SiteError(
                    f"Site '{site}' is {row.status}, not withdrawn, so it cannot be readmitted.",
                    "A site that is withdrawing comes back when its withdrawal is cancelled or refused.",
                )
            row.status, row.node_id, row.updated_at = SiteStatus.ACTIVE.value, None, _now()
            row.first_round = row.last_round = None
            self._ledger.append(SITE_READMITTED, {"site": site}, session=own)

    def enrol(
        self,
        site: str,
        node_id: int,
        organ: str,
        num_examples: int,
        *,
        round: int,
        session: Session | None = None,
    ) -> None:
        """Bind a node to the site it claims to be. Repeating an enrolment changes nothing.

        Parameters
        ----------
        site, node_id, organ, num_examples
            What the node says of itself.
        round
            The round that begins.
        session
            Transaction to take part in.

        Raises
        ------
        SiteError
            If the site is barred, has another organ than before, or is spoken for by another node; or if
            the node spoke for another site before. The roster is unchanged then.
        """
        with self._state.session(session) as own:
            row = own.get(SiteRow, site, with_for_update=True)
            claimed = own.scalar(select(SiteRow.name).where(SiteRow.node_id == str(node_id)))
            if claimed is not None and claimed != site:
                raise SiteError(
                    f"Node {node_id} enrols as site '{site}', but it is bound to site '{claimed}'.",
                    f"Give each SuperNode one site name, and keep it; check who started node {node_id}.",
                )
            if row is None:
                row = SiteRow(name=site, organ=organ, enrolled_round=round, status=SiteStatus.ACTIVE.value)
                own.add(row)
            self._check(row, node_id, organ)
            joined = row.updated_at is None
            row.node_id, row.num_examples, row.updated_at = str(node_id), num_examples, _now()
            if joined:
                body = {"site": site, "organ": row.organ, "examples": num_examples}
                self._ledger.append(SITE_JOINED, body, session=own)

    @staticmethod
    def _check(row: SiteRow, node_id: int, organ: str) -> None:
        if row.status != SiteStatus.ACTIVE:
            why = "has withdrawn" if row.status == SiteStatus.WITHDRAWN else "is withdrawing"
            raise SiteError(
                f"Site '{row.name}' is barred: it {why} from the consortium.",
                "It takes part in no round. To come back it must enrol anew, under a new name and agreement.",
            )
        if row.organ != organ:
            raise SiteError(
                f"Site '{row.name}' enrols with organ '{organ}', but it enrolled with '{row.organ}' before.",
                "Correct its data directory or its configuration; other data need another site name.",
            )
        if row.node_id is not None and row.node_id != str(node_id):
            raise SiteError(
                f"Nodes {row.node_id} and {node_id} both claim to be site '{row.name}'.",
                "Only one may run: stop the other, or correct its site name.",
            )

    def identity_refused(self, node_id: int, claimed: str, holder: str | None) -> None:
        """Put on record that a node said it is site ``claimed``, and was not believed; once a run.

        Parameters
        ----------
        node_id, claimed
            Which node, and what it said.
        holder
            The site its key speaks for; ``None`` where nodes have no keys.
        """
        self._once_a_run(IDENTITY_REFUSED, identity_body(node_id, claimed, holder))

    def site_refused(self, node_id: int, site: str, why: RefusalKind, parts: Collection[str] = ()) -> None:
        """Put on record that ``site`` was not let in; the same is said once a run.

        Parameters
        ----------
        node_id, site
            Which node, and who it is.
        why
            Its consortium file differs, or it says it has too many examples.
        parts
            Of the file, that differ.
        """
        self._once_a_run(SITE_REFUSED, site_refusal_body(node_id, site, why, parts))

    def _once_a_run(self, kind: str, body: dict[str, Any]) -> None:
        if (kind, body) not in self._refused:
            self._refused.append((kind, body))
            self._ledger.append(kind, body)

    def release(self, node_id: int, *, session: Session | None = None) -> None:
        """Unbind a node that is gone for good, so that its site may come back with another one.

        Without node authentication a restarted SuperNode has a new id; the server calls this when the old
        one went offline. An unknown node is no error.
        """
        with self._state.session(session) as own:
            for row in own.scalars(select(SiteRow).where(SiteRow.node_id == str(node_id))):
                row.node_id, row.updated_at = None, _now()

    def supersede(self, site: str, node_id: int, *, session: Session | None = None) -> None:
        """Unbind whichever other node spoke for ``site``: ``node_id`` has the key that is valid now."""
        with self._state.session(session) as own:
            row = own.get(SiteRow, site, with_for_update=True)
            if row is not None and row.node_id not in (None, str(node_id)):
                row.node_id, row.updated_at = None, _now()

    def took_part(self, sites: Iterable[str], round: int, *, session: Session | None = None) -> None:
        """Note that the model of ``round`` has an update of each of ``sites``.

        Call it in the transaction that commits the round: a site that was barred while the round was
        running makes the whole commit fail, and the round is to be averaged again without it.

        Raises
        ------
        BarredError
            If a site is barred.
        SiteError
            If a site is unknown.
        """
        with self._state.session(session) as own:
            for row in self._rows(own, sites):
                if row.status != SiteStatus.ACTIVE:
                    raise BarredError(
                        f"Site '{row.name}' was barred while round {round} was running.",
                        "Its update must not enter the model: average the round again without it.",
                    )
                row.first_round = round if row.first_round is None else min(row.first_round, round)
                row.last_round = round if row.last_round is None else max(row.last_round, round)
                row.updated_at = _now()

    def bar(self, sites: Iterable[str], *, session: Session | None = None) -> None:
        """Bar sites from every further round, at once. Barring twice changes nothing.

        Raises
        ------
        SiteError
            If a site is unknown.
        """
        self._move(sites, SiteStatus.ACTIVE, SiteStatus.RESTRICTED, session)

    def readmit(self, sites: Iterable[str], *, session: Session | None = None) -> None:
        """Let restricted sites take part again, their withdrawal being cancelled or refused.

        Raises
        ------
        SiteError
            If a site is unknown.
        """
        self._move(sites, SiteStatus.RESTRICTED, SiteStatus.ACTIVE, session)

    def withdraw(self, sites: Iterable[str], *, session: Session | None = None) -> None:
        """Mark barred sites as withdrawn, for good.

        Raises
        ------
        SiteError
            If a site is unknown.
        """
        self._move(sites, SiteStatus.RESTRICTED, SiteStatus.WITHDRAWN, session)

    def get(self, site: str, *, session: Session | None = None) -> RosterEntry:
        """The entry of ``site``.

        Raises
        ------
        SiteError
            If it never enrolled.
        """
        with self._state.reading(session) as own:
            return _entry(self._rows(own, [site])[0])

    def active(self, *, session: Session | None = None) -> list[RosterEntry]:
        """The sites that may take part, by name; also those that are not connected at the moment."""
        return [entry for entry in self.all(session=session) if entry.status is SiteStatus.ACTIVE]

    def barred(self, *, session: Session | None = None) -> frozenset[str]:
        """Sites that are withdrawn or withdrawing; asked at every reply, so it reads nothing else."""
        with self._state.reading(session) as own:
            return frozenset(own.scalars(select(SiteRow.name).where(SiteRow.status != SiteStatus.ACTIVE)))

    def all(self, *, session: Session | None = None) -> list[RosterEntry]:
        """Every site that ever enrolled, by name."""
        with self._state.reading(session) as own:
            return [_entry(row) for row in own.scalars(select(SiteRow).order_by(SiteRow.name))]

    def _move(self, sites: Iterable[str], old: SiteStatus, new: SiteStatus, session: Session | None) -> None:
        with self._state.session(session) as own:
            for row in self._rows(own, sites):
                if row.status == old:
                    row.status, row.updated_at = new.value, _now()

    @staticmethod
    def _rows(session: Session, sites: Iterable[str]) -> list[SiteRow]:
        rows = []
        for site in sites:
            row = session.get(SiteRow, site, with_for_update=True)
            if row is None:
                names = list(session.scalars(select(SiteRow.name).order_by(SiteRow.name)))
                near = difflib.get_close_matches(site, names, n=1)
                hint = f"Did you mean '{near[0]}'? " if near else ""
                raise SiteError(
                    f"There is no site '{site}' in the roster.",
                    f"{hint}Sites are: {', '.join(names)}." if names else "No site has enrolled yet.",
                )
            rows.append(row)
        return rows


def _entry(row: SiteRow) -> RosterEntry:
    return RosterEntry(
        site=row.name,
        node_id=None if row.node_id is None else int(row.node_id),
        organ=row.organ,
        num_examples=row.num_examples,
        first_round=row.first_round,
        last_round=row.last_round,
        status=SiteStatus(row.status),
        enrolled_round=row.enrolled_round,
    )


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
