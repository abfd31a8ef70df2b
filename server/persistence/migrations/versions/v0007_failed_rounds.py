"""Rounds of which nothing was kept, and what became of their sites.

Revision ID: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "failed_rounds",
        sa.Column("number", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("line", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("sites", sa.JSON(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_failed_rounds"),
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_table("failed_rounds")
