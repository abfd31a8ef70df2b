"""The tables of the state database, beside the contribution index that belongs to the cache."""

from __future__ import annotations

import datetime as dt
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from unlearning.database import Base, UtcDateTime

Json = dict[str, Any]


class SiteRow(Base):
    """A site of the consortium, and the node that speaks for it."""

    __tablename__ = "sites"
    __table_args__ = (UniqueConstraint("node_id"),)

    name: Mapped[str] = mapped_column(String(63), primary_key=True)
    # Flower's node ids are unsigned 64-bit, which no SQL integer holds.
    node_id: Mapped[str | None] = mapped_column(String(20))
    organ: Mapped[str] = mapped_column(String(64))
    num_examples: Mapped[int] = mapped_column(BigInteger)
    enrolled_round: Mapped[int]
    first_round: Mapped[int | None]
    last_round: Mapped[int | None]
    status: Mapped[str] = mapped_column(String(16))
    updated_at: Mapped[dt.datetime] = mapped_column(UtcDateTime)


class ModelRow(Base):
    """A model version: its file, its parent, and whose updates are in it."""

    __tablename__ = "models"
    __table_args__ = (UniqueConstraint("id"), Index(None, "line", "number"), Index(None, "digest"))

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(32))
    line: Mapped[str] = mapped_column(String(64))
    round: Mapped[int]
    kind: Mapped[str] = mapped_column(String(16))
    parent: Mapped[str | None] = mapped_column(String(32), ForeignKey("models.id"))
    digest: Mapped[str] = mapped_column(String(64))
    bytes: Mapped[int] = mapped_column(BigInteger)
    # The model's own order of its arrays, in which they are flattened to vectors; files have none.
    names: Mapped[list[str]] = mapped_column(JSON)
    sites: Mapped[Json] = mapped_column(JSON)
    lineage: Mapped[Json] = mapped_column(JSON)
    forgotten: Mapped[list[str]] = mapped_column(JSON)
    method: Mapped[str | None] = mapped_column(String(64))
    status: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str | None] = mapped_column(Text)
    pruned: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime)


class RoundRow(Base):
    """What happened in a round."""

    __tablename__ = "rounds"
    __table_args__ = (UniqueConstraint("line", "kind", "round"),)

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    line: Mapped[str] = mapped_column(String(64))
    kind: Mapped[str] = mapped_column(String(16))
    round: Mapped[int]
    sites: Mapped[Json] = mapped_column(JSON)
    metrics: Mapped[Json] = mapped_column(JSON)
    seconds: Mapped[float]
    model_version: Mapped[str | None] = mapped_column(String(32), ForeignKey("models.id"))
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime)


class FailedRoundRow(Base):
    """What became of the sites in a round of which nothing was kept."""

    __tablename__ = "failed_rounds"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    line: Mapped[str] = mapped_column(String(64))
    kind: Mapped[str] = mapped_column(String(16))
    round: Mapped[int]
    sites: Mapped[Json] = mapped_column(JSON)
    seconds: Mapped[float]
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime)


class WithdrawalRow(Base):
    """A withdrawal and where it stands."""

    __tablename__ = "withdrawals"
    __table_args__ = (Index(None, "request_id", unique=True),)

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(32), unique=True)
    sites: Mapped[list[str]] = mapped_column(JSON)
    reason: Mapped[str] = mapped_column(Text)
    requested_by: Mapped[str] = mapped_column(String(255))
    method: Mapped[str | None] = mapped_column(String(64))
    at_round: Mapped[int | None]
    simulated: Mapped[bool]
    state: Mapped[str] = mapped_column(String(16))
    failed_in: Mapped[str | None] = mapped_column(String(16))
    received_at: Mapped[dt.datetime] = mapped_column(UtcDateTime)
    due_at: Mapped[dt.datetime] = mapped_column(UtcDateTime)
    restricted_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)
    extended_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)
    closed_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)
    # Empty in withdrawals of releases that did not know them.
    filed_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)
    request_id: Mapped[str | None] = mapped_column(String(128))
    ground: Mapped[str | None] = mapped_column(String(32))
    scope: Mapped[str | None] = mapped_column(String(16))
    patients: Mapped[int | None]
    owner: Mapped[str | None] = mapped_column(String(255))
    time_zone: Mapped[str | None] = mapped_column(String(64))
    in_part: Mapped[bool | None]
    cooperating: Mapped[bool | None]
    channel: Mapped[str | None] = mapped_column(String(16))
    agreement: Mapped[str | None] = mapped_column(String(128))
    requester_role: Mapped[str | None] = mapped_column(String(16))
    identity_check: Mapped[str | None] = mapped_column(String(16))


class WithdrawalEventRow(Base):
    """One step of a withdrawal. Append-only: triggers forbid to change or delete a row."""

    __tablename__ = "withdrawal_events"
    __table_args__ = (Index(None, "withdrawal"),)

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    withdrawal: Mapped[str] = mapped_column(String(32), ForeignKey("withdrawals.id"))
    at: Mapped[dt.datetime] = mapped_column(UtcDateTime)
    actor: Mapped[str] = mapped_column(String(255))
    old_state: Mapped[str | None] = mapped_column(String(16))
    new_state: Mapped[str] = mapped_column(String(16))
    note: Mapped[str] = mapped_column(Text)
    # By which the ledger commits to the row; empty in what releases wrote that did not know it.
    salt: Mapped[str | None] = mapped_column(String(64))


class WithdrawalActRow(Base):
    """Something done about a withdrawal that leaves its state. Append-only, as its events are."""

    __tablename__ = "withdrawal_acts"
    __table_args__ = (Index(None, "withdrawal"),)

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    withdrawal: Mapped[str] = mapped_column(String(32), ForeignKey("withdrawals.id"))
    at: Mapped[dt.datetime] = mapped_column(UtcDateTime)
    actor: Mapped[str] = mapped_column(String(255))
    kind: Mapped[str] = mapped_column(String(16))
    body: Mapped[Json] = mapped_column(JSON)
    salt: Mapped[str | None] = mapped_column(String(64))


class ExportRow(Base):
    """A model version that was given to somebody. Append-only."""

    __tablename__ = "exports"
    __table_args__ = (Index(None, "version"),)

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    at: Mapped[dt.datetime] = mapped_column(UtcDateTime)
    version: Mapped[str] = mapped_column(String(32), ForeignKey("models.id"))
    digest: Mapped[str] = mapped_column(String(64))
    recipient: Mapped[str] = mapped_column(String(255))
    actor: Mapped[str] = mapped_column(String(255))
    form: Mapped[str] = mapped_column(String(16))


class ProgressRow(Base):
    """A named checkpoint of a run."""

    __tablename__ = "progress"

    key: Mapped[str] = mapped_column(String(128), primary_key=True)
    value: Mapped[Any] = mapped_column(JSON)
    updated_at: Mapped[dt.datetime] = mapped_column(UtcDateTime)


class EnrolmentRow(Base):
    """Which key may speak for a site. A revoked row stays: its key never comes back."""

    __tablename__ = "enrolments"
    __table_args__ = (UniqueConstraint("fingerprint"), Index(None, "site"))

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    site: Mapped[str] = mapped_column(String(63))
    fingerprint: Mapped[str] = mapped_column(String(64))
    node_id: Mapped[str | None] = mapped_column(String(20))
    enrolled_at: Mapped[dt.datetime] = mapped_column(UtcDateTime)
    enrolled_by: Mapped[str] = mapped_column(String(255))
    revoked_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)
    reason: Mapped[str | None] = mapped_column(Text)
    unregistered_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)


class LedgerRow(Base):
    """An entry of the ledger. Append-only: triggers forbid to change or delete a row."""

    __tablename__ = "ledger"
    __table_args__ = (Index(None, "kind"),)

    # From 1, without gaps; never given by the database, since the content names it too.
    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    at: Mapped[str] = mapped_column(String(32))
    kind: Mapped[str] = mapped_column(String(32))
    content: Mapped[str] = mapped_column(Text)
    leaf: Mapped[str] = mapped_column(String(64))
    root: Mapped[str] = mapped_column(String(64))
    signature: Mapped[str] = mapped_column(String(88))


class RunEventRow(Base):
    """Something that happened in a run, for whoever watches from another process."""

    __tablename__ = "run_events"
    __table_args__ = (Index(None, "run"),)

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    at: Mapped[dt.datetime] = mapped_column(UtcDateTime)
    run: Mapped[str] = mapped_column(String(32))
    kind: Mapped[str] = mapped_column(String(16))
    text: Mapped[str] = mapped_column(Text)
    stage: Mapped[str] = mapped_column(String(16))
    index: Mapped[int]
    total: Mapped[int]
    metrics: Mapped[Json] = mapped_column(JSON)


class ConsoleUserRow(Base):
    """Somebody who may use the console. A removed row stays, without a password: the ledger names its id."""

    __tablename__ = "console_users"
    __table_args__ = (Index(None, "name"),)

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    name: Mapped[str] = mapped_column(String(64))
    role: Mapped[str] = mapped_column(String(16))
    password: Mapped[str] = mapped_column(String(255))
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime)
    changed_at: Mapped[dt.datetime] = mapped_column(UtcDateTime)
    removed_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)


class CertificateRow(Base):
    """A certificate that was issued here, with the files that go with it."""

    __tablename__ = "certificates"
    __table_args__ = (Index(None, "withdrawal"),)

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    withdrawal: Mapped[str] = mapped_column(String(32), ForeignKey("withdrawals.id"))
    content: Mapped[str] = mapped_column(Text)
    files: Mapped[Json] = mapped_column(JSON)
    issued_at: Mapped[dt.datetime] = mapped_column(UtcDateTime)
    countersigned_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)
