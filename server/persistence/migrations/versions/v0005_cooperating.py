"""Whether a leaving site still answers.

Revision ID: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; earlier withdrawals were of sites that left gone."""
    op.add_column("withdrawals", sa.Column("cooperating", sa.Boolean(), nullable=True))


def downgrade() -> None:
    """Drop it."""
    op.drop_column("withdrawals", "cooperating")
