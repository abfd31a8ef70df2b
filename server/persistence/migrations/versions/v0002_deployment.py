"""Which key may speak for a site, and what happened in runs.

Revision ID: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the enrolments and the events of runs."""
    op.create_table(
        "enrolments",
        sa.Column("number", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("site", sa.String(length=63), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("node_id", sa.String(length=20), nullable=True),
        sa.Column("enrolled_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("enrolled_by", sa.String(length=255), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("unregistered_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("number", name="pk_enrolments"),
        sa.UniqueConstraint("fingerprint", name="uq_enrolments_fingerprint"),
    )
    op.create_index("ix_enrolments_site", "enrolments", ["site"])
    op.create_table(
        "run_events",
        sa.Column("number", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("run", sa.String(length=32), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("stage", sa.String(length=16), nullable=False),
        sa.Column("index", sa.Integer(), nullable=False),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_run_events"),
    )
    op.create_index("ix_run_events_run", "run_events", ["run"])


def downgrade() -> None:
    """Drop them."""
    op.drop_table("run_events")
    op.drop_table("enrolments")
