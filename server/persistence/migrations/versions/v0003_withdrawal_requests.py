"""What a withdrawal request says, what is done about it, and to whom models were given.

Revision ID: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

APPEND_ONLY = ("withdrawal_acts", "exports")

COLUMNS = (
    ("filed_at", sa.DateTime(timezone=True)),
    ("request_id", sa.String(length=128)),
    ("ground", sa.String(length=32)),
    ("scope", sa.String(length=16)),
    ("patients", sa.Integer()),
    ("owner", sa.String(length=255)),
    ("time_zone", sa.String(length=64)),
    ("in_part", sa.Boolean()),
)


def upgrade() -> None:
    """Add the columns, and two tables to which can only be added."""
    for name, kind in COLUMNS:
        op.add_column("withdrawals", sa.Column(name, kind, nullable=True))
    op.create_index("ix_withdrawals_request_id", "withdrawals", ["request_id"], unique=True)
    op.create_table(
        "withdrawal_acts",
        sa.Column("number", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("withdrawal", sa.String(length=32), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.String(length=255), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["withdrawal"], ["withdrawals.id"], name="fk_withdrawal_acts_withdrawal_withdrawals"
        ),
        sa.PrimaryKeyConstraint("number", name="pk_withdrawal_acts"),
    )
    op.create_index("ix_withdrawal_acts_withdrawal", "withdrawal_acts", ["withdrawal"])
    op.create_table(
        "exports",
        sa.Column("number", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("version", sa.String(length=32), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("recipient", sa.String(length=255), nullable=False),
        sa.Column("actor", sa.String(length=255), nullable=False),
        sa.Column("form", sa.String(length=16), nullable=False),
        sa.ForeignKeyConstraint(["version"], ["models.id"], name="fk_exports_version_models"),
        sa.PrimaryKeyConstraint("number", name="pk_exports"),
    )
    op.create_index("ix_exports_version", "exports", ["version"])
    for table in APPEND_ONLY:
        if op.get_bind().dialect.name == "sqlite":
            _forbid_changes_on_sqlite(table)
        elif op.get_bind().dialect.name == "postgresql":
            _forbid_changes_on_postgresql(table)


def downgrade() -> None:
    """Drop them."""
    for table in APPEND_ONLY:
        op.drop_table(table)
        if op.get_bind().dialect.name == "postgresql":
            op.execute(f"DROP FUNCTION {table}_refuse_change")
    op.drop_index("ix_withdrawals_request_id", "withdrawals")
    for name, _ in reversed(COLUMNS):
        op.drop_column("withdrawals", name)


def _forbid_changes_on_sqlite(table: str) -> None:
    for change in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER {table}_no_{change.lower()} BEFORE {change} ON {table} "
            f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
        )


def _forbid_changes_on_postgresql(table: str) -> None:
    op.execute(
        f"CREATE FUNCTION {table}_refuse_change() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{table} is append-only' "
        "USING ERRCODE = 'integrity_constraint_violation'; END $$"
    )
    for change, unit in (("UPDATE", "ROW"), ("DELETE", "ROW"), ("TRUNCATE", "STATEMENT")):
        op.execute(
            f"CREATE TRIGGER {table}_no_{change.lower()} BEFORE {change} ON {table} "
            f"FOR EACH {unit} EXECUTE FUNCTION {table}_refuse_change()"
        )
