"""The first schema.

Revision ID: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

APPEND_ONLY = "withdrawal_events"


def upgrade() -> None:
    """Create every table, and make the events of withdrawals append-only."""
    op.create_table(
        "contributions",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("site", sa.String(length=63), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("line", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("path", sa.String(length=255), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("norm", sa.Double(), nullable=False),
        sa.Column("weight", sa.Double(), nullable=False),
        sa.Column("dtype", sa.String(length=16), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("frozen", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_contributions"),
        sa.UniqueConstraint("line", "site", "round", "kind", name="uq_contributions_line_site_round_kind"),
    )
    op.create_index("ix_contributions_site", "contributions", ["site"])
    op.create_table(
        "models",
        sa.Column("number", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("line", sa.String(length=64), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("parent", sa.String(length=32), nullable=True),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("names", sa.JSON(), nullable=False),
        sa.Column("sites", sa.JSON(), nullable=False),
        sa.Column("lineage", sa.JSON(), nullable=False),
        sa.Column("forgotten", sa.JSON(), nullable=False),
        sa.Column("method", sa.String(length=64), nullable=True),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("pruned", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["parent"], ["models.id"], name="fk_models_parent_models"),
        sa.PrimaryKeyConstraint("number", name="pk_models"),
        sa.UniqueConstraint("id", name="uq_models_id"),
    )
    op.create_index("ix_models_digest", "models", ["digest"])
    op.create_index("ix_models_line_number", "models", ["line", "number"])
    op.create_table(
        "progress",
        sa.Column("key", sa.String(length=128), nullable=False),
        sa.Column("value", sa.JSON(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_progress"),
    )
    op.create_table(
        "sites",
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("node_id", sa.String(length=20), nullable=True),
        sa.Column("organ", sa.String(length=64), nullable=False),
        sa.Column("num_examples", sa.BigInteger(), nullable=False),
        sa.Column("enrolled_round", sa.Integer(), nullable=False),
        sa.Column("first_round", sa.Integer(), nullable=True),
        sa.Column("last_round", sa.Integer(), nullable=True),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_sites"),
        sa.UniqueConstraint("node_id", name="uq_sites_node_id"),
    )
    op.create_table(
        "withdrawals",
        sa.Column("number", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("sites", sa.JSON(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("requested_by", sa.String(length=255), nullable=False),
        sa.Column("method", sa.String(length=64), nullable=True),
        sa.Column("at_round", sa.Integer(), nullable=True),
        sa.Column("simulated", sa.Boolean(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("failed_in", sa.String(length=16), nullable=True),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("restricted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("extended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("number", name="pk_withdrawals"),
        sa.UniqueConstraint("id", name="uq_withdrawals_id"),
    )
    op.create_table(
        "rounds",
        sa.Column("number", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("line", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("sites", sa.JSON(), nullable=False),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("model_version", sa.String(length=32), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["model_version"], ["models.id"], name="fk_rounds_model_version_models"),
        sa.PrimaryKeyConstraint("number", name="pk_rounds"),
        sa.UniqueConstraint("line", "kind", "round", name="uq_rounds_line_kind_round"),
    )
    op.create_table(
        "withdrawal_events",
        sa.Column("number", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("withdrawal", sa.String(length=32), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.String(length=255), nullable=False),
        sa.Column("old_state", sa.String(length=16), nullable=True),
        sa.Column("new_state", sa.String(length=16), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["withdrawal"], ["withdrawals.id"], name="fk_withdrawal_events_withdrawal_withdrawals"
        ),
        sa.PrimaryKeyConstraint("number", name="pk_withdrawal_events"),
    )
    op.create_index("ix_withdrawal_events_withdrawal", "withdrawal_events", ["withdrawal"])
    if op.get_bind().dialect.name == "sqlite":
        _forbid_changes_on_sqlite()
    elif op.get_bind().dialect.name == "postgresql":
        _forbid_changes_on_postgresql()


def downgrade() -> None:
    """Drop everything."""
    for table in (APPEND_ONLY, "rounds", "withdrawals", "sites", "progress", "models", "contributions"):
        op.drop_table(table)
    if op.get_bind().dialect.name == "postgresql":
        op.execute(f"DROP FUNCTION {APPEND_ONLY}_refuse_change")


def _forbid_changes_on_sqlite() -> None:
    for change in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER {APPEND_ONLY}_no_{change.lower()} BEFORE {change} ON {APPEND_ONLY} "
            f"BEGIN SELECT RAISE(ABORT, '{APPEND_ONLY} is append-only'); END"
        )


def _forbid_changes_on_postgresql() -> None:
    op.execute(
        f"CREATE FUNCTION {APPEND_ONLY}_refuse_change() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{APPEND_ONLY} is append-only' "
        "USING ERRCODE = 'integrity_constraint_violation'; END $$"
    )
    for change, unit in (("UPDATE", "ROW"), ("DELETE", "ROW"), ("TRUNCATE", "STATEMENT")):
        op.execute(
            f"CREATE TRIGGER {APPEND_ONLY}_no_{change.lower()} BEFORE {change} ON {APPEND_ONLY} "
            f"FOR EACH {unit} EXECUTE FUNCTION {APPEND_ONLY}_refuse_change()"
        )
