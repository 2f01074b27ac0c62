"""Alembic's environment: the connection comes from ``ml_core.database.migrate``, never from a file.

Each migration is a transaction: one that waits holds no lock that an earlier one took, and one that fails leaves the
earlier ones applied.

A migration may not block the platform: it gives up rather than queue behind a long transaction while all other sessions
queue behind it.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context

from ml_core.database.tables import SCHEMA, metadata

LOCK_TIMEOUT = "4s"
STATEMENT_TIMEOUT = "5s"

connection = context.config.attributes["connection"]
with connection.begin():  # for the session: they hold in every transaction that follows
    connection.execute(sa.text(f"SET lock_timeout = '{LOCK_TIMEOUT}'"))
    connection.execute(sa.text(f"SET statement_timeout = '{STATEMENT_TIMEOUT}'"))
context.configure(
    connection=connection,
    target_metadata=metadata,
    version_table_schema=SCHEMA,
    include_schemas=True,
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
