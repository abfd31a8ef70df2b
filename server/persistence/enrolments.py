"""Which key may speak for which site."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from reconsent.errors import SiteError
from server.persistence.ledger import Ledger
from server.persistence.ledger_entries import KEY_ENROLLED, KEY_REVOKED
from server.persistence.state import StateDirectory
from server.persistence.tables import EnrolmentRow


@dataclass(frozen=True, slots=True)
class Enrolment:
    """A key, and the site it speaks for.

    Attributes
    ----------
    site
        The site's name.
    fingerprint
        SHA-256 of the public key's SubjectPublicKeyInfo (DER), hexadecimal.
    node_id
        Flower's id of the node with that key; ``None`` until it is registered.
    enrolled_at, enrolled_by
        When, and by whom.
    revoked_at, reason
        When the key ceased to speak for the site, and why.
    unregistered_at
        When Flower was told to refuse the key for ever.
    """

    site: str
    fingerprint: str
    node_id: int | None
    enrolled_at: dt.datetime
    enrolled_by: str
    revoked_at: dt.datetime | None
    reason: str | None
    unregistered_at: dt.datetime | None


class Enrolments:
    """Keys of sites. A site has one that is valid at most; a revoked key is never accepted again."""

    def __init__(self, state: StateDirectory) -> None:
        self._state = state
        self._ledger = Ledger(state)

    def enrol(
        self,
        site: str,
        fingerprint: str,
        *,
        node_id: int | None = None,
        by: str = "operator",
        session: Session | None = None,
    ) -> Enrolment:
        """Let the key with ``fingerprint`` speak for ``site``. Repeating it changes nothing but the node id.

        Raises
        ------
        SiteError
            If the key speaks or spoke for a site already, or the site has another valid key.
        """
        with self._state.session(session) as own:
            row = own.scalar(
                select(EnrolmentRow).where(EnrolmentRow.fingerprint == fingerprint).with_for_update()
            )
            if row is not None and (row.site != site or row.revoked_at is not None):
                fate = "was revoked" if row.revoked_at else "is in use"
                raise SiteError(
                    f"The key {fingerprint[:16]}… cannot be enrolled for site '{site}': it {fate} for site "
                    f"'{row.site}'.",
                    "Make a new key pair: `reconsent site key FILE`.",
                )
            if row is None:
                valid = self._valid(own, site)
                if valid is not None:
                    raise SiteError(
                        f"Site '{site}' has a key already ({valid.fingerprint[:16]}…).",
                        "Revoke it first: a site speaks with one key.",
                    )
                row = EnrolmentRow(
                    site=site, fingerprint=fingerprint, enrolled_at=dt.datetime.now(dt.UTC), enrolled_by=by
                )
                own.add(row)
                self._ledger.append(KEY_ENROLLED, {"site": site, "key": fingerprint}, session=own)
            if node_id is not None:
                row.node_id = str(node_id)
            own.flush()
            return _enrolment(row)

    def revoke(self, site: str, reason: str, *, session: Session | None = None) -> list[Enrolment]:
        """Let no key speak for ``site`` any more; returns those that did."""
        with self._state.session(session) as own:
            row = self._valid(own, site)
            if row is None:
                return []
            row.revoked_at, row.reason = dt.datetime.now(dt.UTC), reason
            self._ledger.append(KEY_REVOKED, {"site": site, "key": row.fingerprint}, session=own)
            return [_enrolment(row)]

    def unregistered(self, fingerprint: str, *, session: Session | None = None) -> None:
        """Note that Flower refuses the key from now on."""
        with self._state.session(session) as own:
            row = own.scalar(select(EnrolmentRow).where(EnrolmentRow.fingerprint == fingerprint))
            if row is not None and row.unregistered_at is None:
                row.unregistered_at = dt.datetime.now(dt.UTC)

    def to_unregister(self, *, session: Session | None = None) -> list[Enrolment]:
        """Revoked keys that Flower still accepts."""
        return [e for e in self.all(session=session) if e.revoked_at and e.node_id and not e.unregistered_at]

    def valid(self, site: str, *, session: Session | None = None) -> Enrolment | None:
        """The key that speaks for ``site``; ``None`` if none does."""
        with self._state.reading(session) as own:
            row = self._valid(own, site)
            return None if row is None else _enrolment(row)

    def any(self, *, session: Session | None = None) -> bool:
        """Whether a key was ever enrolled."""
        with self._state.reading(session) as own:
            return own.scalar(select(EnrolmentRow.number).limit(1)) is not None

    def all(self, *, session: Session | None = None) -> list[Enrolment]:
        """Every key that was ever enrolled, oldest first."""
        with self._state.reading(session) as own:
            query = select(EnrolmentRow).order_by(EnrolmentRow.number)
            return [_enrolment(row) for row in own.scalars(query)]

    @staticmethod
    def _valid(session: Session, site: str) -> EnrolmentRow | None:
        query = select(EnrolmentRow).where(EnrolmentRow.site == site, EnrolmentRow.revoked_at.is_(None))
        return session.scalar(query)


def _enrolment(row: EnrolmentRow) -> Enrolment:
    return Enrolment(
        site=row.site,
        fingerprint=row.fingerprint,
        node_id=None if row.node_id is None else int(row.node_id),
        enrolled_at=row.enrolled_at,
        enrolled_by=row.enrolled_by,
        revoked_at=row.revoked_at,
        reason=row.reason,
        unregistered_at=row.unregistered_at,
    )
