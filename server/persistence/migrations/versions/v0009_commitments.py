"""The salts by which the ledger commits to what is said about a withdrawal.

Revision ID: 0009
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

TABLES = ("withdrawal_events", "withdrawal_acts")


def upgrade() -> None:
    """Add the column; empty in what was written before, to which no entry commits."""
    for table in TABLES:
        op.add_column(table, sa.Column("salt", sa.String(length=64), nullable=True))


def downgrade() -> None:
    """Drop it."""
    for table in TABLES:
        op.drop_column(table, "salt")
