"""Certificates that were issued here, with the files that go with them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from reconsent.errors import SignatureError
from server.persistence.state import StateDirectory
from server.persistence.tables import CertificateRow


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptCertificate:
    """A certificate as it was issued, or as it was countersigned since.

    Attributes
    ----------
    id, withdrawal
        Its id, and that of the withdrawal.
    content
        The signed file.
    files
        Name to content of the files whose hashes it names.
    issued_at, countersigned_at
        When the operator signed it here, and when it came back with the officer's signature; UTC.
    """

    id: str
    withdrawal: str
    content: bytes
    files: Mapping[str, bytes]
    issued_at: dt.datetime
    countersigned_at: dt.datetime | None


class Certificates:
    """The certificates, in the order in which they were issued. None is ever removed."""

    def __init__(self, state: StateDirectory) -> None:
        self._state = state

    def keep(
        self,
        id: str,
        withdrawal: str,
        content: bytes,
        files: Mapping[str, bytes],
        *,
        session: Session | None = None,
    ) -> None:
        """Keep one that the operator has just signed."""
        with self._state.session(session) as own:
            own.add(
                CertificateRow(
                    id=id,
                    withdrawal=withdrawal,
                    content=content.decode("ascii"),
                    files={name: part.decode("utf-8") for name, part in files.items()},
                    issued_at=dt.datetime.now(dt.UTC),
                )
            )

    def countersigned(self, id: str, content: bytes, *, session: Session | None = None) -> None:
        """Keep it with both signatures; whoever calls this has checked that it is the same and holds.

        Raises
        ------
        SignatureError
            If it was not issued here.
        """
        with self._state.session(session) as own:
            row = own.get(CertificateRow, id)
            if row is None:
                raise SignatureError(f"The certificate {id} was not issued here.", "Issue it here first.")
            row.content = content.decode("ascii")
            row.countersigned_at = row.countersigned_at or dt.datetime.now(dt.UTC)

    def get(self, id: str) -> KeptCertificate | None:
        """The certificate called ``id``; ``None`` if there is none."""
        with self._state.reading() as session:
            row = session.get(CertificateRow, id)
            return None if row is None else _kept(row)

    def all(self, withdrawal: str | None = None) -> list[KeptCertificate]:
        """Every certificate, of one withdrawal or of all, the newest first."""
        query = select(CertificateRow).order_by(CertificateRow.issued_at.desc(), CertificateRow.id)
        if withdrawal is not None:
            query = query.where(CertificateRow.withdrawal == withdrawal)
        with self._state.reading() as session:
            return [_kept(row) for row in session.scalars(query)]


def _kept(row: CertificateRow) -> KeptCertificate:
    return KeptCertificate(
        id=row.id,
        withdrawal=row.withdrawal,
        content=row.content.encode("ascii"),
        files={name: str(text).encode() for name, text in row.files.items()},
        issued_at=row.issued_at,
        countersigned_at=row.countersigned_at,
    )
