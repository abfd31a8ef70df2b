"""Who may use the console, and what for."""

from __future__ import annotations

import datetime as dt
import re
import secrets
from dataclasses import dataclass, field
from enum import StrEnum

from sqlalchemy import select
from sqlalchemy.orm import Session

from reconsent.errors import ConfigError
from server.persistence.ledger import Ledger
from server.persistence.ledger_entries import CONSOLE_USER
from server.persistence.state import StateDirectory
from server.persistence.tables import ConsoleUserRow

_NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,62}")


class Role(StrEnum):
    """What a user of the console may do."""

    VIEWER = "viewer"
    OFFICER = "officer"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleUser:
    """Somebody who may use the console.

    Attributes
    ----------
    id
        ``U-`` and eight digits; what the ledger calls the user, so that it names no person.
    name, role
        For logging in, and what it is good for.
    password
        Its hash.
    created_at, changed_at
        When the user was added, and when role or password last changed; UTC.
    """

    id: str
    name: str
    role: Role
    password: str = field(repr=False)
    created_at: dt.datetime
    changed_at: dt.datetime


class ConsoleUsers:
    """The users. Whoever is removed keeps the number by which the ledger names them, and nothing else.

    Parameters
    ----------
    state
        Where they are kept; each change and its entry in the ledger are one transaction.
    """

    def __init__(self, state: StateDirectory) -> None:
        self._state = state
        self._ledger = Ledger(state)

    def add(self, name: str, role: Role, password: str) -> ConsoleUser:
        """Let somebody in.

        Parameters
        ----------
        name
            Small letters, digits, ``.``, ``_``, ``-`` and ``@``.
        role
            What for.
        password
            The hash of the password, never the password.

        Raises
        ------
        ConfigError
            If the name cannot be one, or is taken.
        """
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"{name[:80]!r} cannot be the name of a user.",
                "Use up to 63 small letters, digits, '.', '_', '-' and '@'; begin with a letter or a digit.",
            )
        with self._state.session() as session:
            if self._find(session, name) is not None:
                raise ConfigError(
                    f"There is a user '{name}' already.", "Choose another name, or remove that one first."
                )
            now = dt.datetime.now(dt.UTC)
            row = ConsoleUserRow(
                id=f"U-{secrets.token_hex(4)}",
                name=name,
                role=role.value,
                password=password,
                created_at=now,
                changed_at=now,
            )
            session.add(row)
            session.flush()
            self._log(session, row, "added")
            return _user(row)

    def set_password(self, name: str, password: str, *, quietly: bool = False) -> ConsoleUser:
        """Give a user another password hash; whoever is logged in with the old one is logged out.

        ``quietly``: it is the same password, hashed anew; nothing else changes.

        Raises
        ------
        ConfigError
            If there is no such user.
        """
        with self._state.session() as session:
            row = self._row(session, name)
            row.password = password
            if not quietly:
                row.changed_at = dt.datetime.now(dt.UTC)
                self._log(session, row, "password")
            return _user(row)

    def set_role(self, name: str, role: Role) -> ConsoleUser:
        """Give a user another role; whoever is logged in as this user is logged out.

        Raises
        ------
        ConfigError
            If there is no such user.
        """
        with self._state.session() as session:
            row = self._row(session, name)
            row.role, row.changed_at = role.value, dt.datetime.now(dt.UTC)
            self._log(session, row, "role")
            return _user(row)

    def remove(self, name: str) -> None:
        """Let somebody in no more, from the next request on.

        Raises
        ------
        ConfigError
            If there is no such user.
        """
        with self._state.session() as session:
            row = self._row(session, name)
            row.password, row.removed_at = "", dt.datetime.now(dt.UTC)
            self._log(session, row, "removed")

    def get(self, name: str) -> ConsoleUser | None:
        """The user called ``name``; ``None`` if there is none."""
        with self._state.reading() as session:
            row = self._find(session, name)
            return None if row is None else _user(row)

    def of_id(self, id: str) -> ConsoleUser | None:
        """The user with a number, if still let in."""
        with self._state.reading() as session:
            row = session.get(ConsoleUserRow, id)
            return None if row is None or row.removed_at is not None else _user(row)

    def all(self) -> list[ConsoleUser]:
        """Everybody who is let in, by name."""
        with self._state.reading() as session:
            query = select(ConsoleUserRow).where(ConsoleUserRow.removed_at.is_(None))
            return [_user(row) for row in session.scalars(query.order_by(ConsoleUserRow.name))]

    def _log(self, session: Session, row: ConsoleUserRow, change: str) -> None:
        self._ledger.append(
            CONSOLE_USER, {"user": row.id, "role": row.role, "change": change}, session=session
        )

    def _row(self, session: Session, name: str) -> ConsoleUserRow:
        row = self._find(session, name)
        if row is None:
            raise ConfigError(f"There is no user {name[:80]!r}.", "`reconsent console user list` names them.")
        return row

    @staticmethod
    def _find(session: Session, name: str) -> ConsoleUserRow | None:
        return session.scalar(
            select(ConsoleUserRow).where(ConsoleUserRow.name == name, ConsoleUserRow.removed_at.is_(None))
        )


def _user(row: ConsoleUserRow) -> ConsoleUser:
    return ConsoleUser(
        id=row.id,
        name=row.name,
        role=Role(row.role),
        password=row.password,
        created_at=row.created_at,
        changed_at=row.changed_at,
    )
