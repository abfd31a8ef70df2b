"""How a request came in: channel, agreement, role of the requester, check of identity.

Revision ID: 0008
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

COLUMNS = (("channel", 16), ("agreement", 128), ("requester_role", 16), ("identity_check", 16))


def upgrade() -> None:
    """Add the columns; empty in what was filed before."""
    for name, length in COLUMNS:
        op.add_column("withdrawals", sa.Column(name, sa.String(length=length), nullable=True))


def downgrade() -> None:
    """Drop them."""
    for name, _ in reversed(COLUMNS):
        op.drop_column("withdrawals", name)
