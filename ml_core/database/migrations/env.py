"""Alembic's environment: the connection comes from ``ml_core.database.migrate``, never from a file."""

from __future__ import annotations

from alembic import context

from ml_core.database.tables import SCHEMA, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table_schema=SCHEMA,
    include_schemas=True,
)
with context.begin_transaction():
    context.run_migrations()
