"""The tables' common ground, and the index of the contribution cache.

The schema lives in one :class:`Base`, whoever owns the table, so that a round's contributions, model
version and log entry can be one transaction of one database.
"""

from __future__ import annotations

import datetime as dt
from typing import ClassVar

from sqlalchemy import BigInteger, DateTime, Dialect, Double, Index, MetaData, String, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

# Named constraints: a migration can only alter or drop what has a name, on every database alike.
NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class UtcDateTime(TypeDecorator[dt.datetime]):
    """A moment in UTC, aware on both sides of the database.

    SQLite forgets time zones; a deadline read back without one would be compared as local time.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: dt.datetime | None, dialect: Dialect) -> dt.datetime | None:  # noqa: ARG002
        """Convert to UTC; a moment without a time zone is refused."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone; the database keeps UTC only")
        return value.astimezone(dt.UTC)

    def process_result_value(self, value: dt.datetime | None, dialect: Dialect) -> dt.datetime | None:  # noqa: ARG002
        """Give the time zone back."""
        if value is None:
            return None
        return value.replace(tzinfo=dt.UTC) if value.tzinfo is None else value.astimezone(dt.UTC)


class Base(DeclarativeBase):
    """Base of every table of the state database."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map: ClassVar[dict[type, Double[float]]] = {float: Double()}


class ContributionRow(Base):
    """One file of the contribution cache: a site's running sums, or one of its updates.

    Attributes
    ----------
    site, line, round, kind
        Whose, along which line of models, up to or of which round, and what it is (``running``, ``sum``,
        ``specific``, ``update``); unique together.
    path
        Relative to the cache's directory; empty if only the numbers are kept.
    sha256, bytes, dtype
        Of the file, so that an altered or truncated one is found.
    norm
        Euclidean norm of the update; of a ``running`` pair the site's sensitivity Ψ.
    weight
        p, the site's share in the round.
    frozen
        Set while a withdrawal of the site is under way: neither folded into nor pruned.
    """

    __tablename__ = "contributions"
    __table_args__ = (
        UniqueConstraint("line", "site", "round", "kind"),
        Index(None, "site"),
    )

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    site: Mapped[str] = mapped_column(String(63))
    round: Mapped[int]
    line: Mapped[str] = mapped_column(String(64))
    kind: Mapped[str] = mapped_column(String(16))
    path: Mapped[str] = mapped_column(String(255), default="")
    sha256: Mapped[str] = mapped_column(String(64), default="")
    bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    norm: Mapped[float]
    weight: Mapped[float]
    dtype: Mapped[str] = mapped_column(String(16), default="")
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=lambda: dt.datetime.now(dt.UTC))
    frozen: Mapped[bool] = mapped_column(default=False)
