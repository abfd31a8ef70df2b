"""Run by Alembic: migrate the connection that :mod:`server.persistence.schema` hands over."""

from alembic import context

import server.persistence.tables  # noqa: F401, registers the tables
from unlearning.database import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    # SQLite can roll DDL back once the driver's own transaction handling is out of the way.
    transactional_ddl=True,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
