"""Alembic's environment: the connection comes from ``ml_core.database.migrate``, never from a file.

A migration may not block the platform: it gives up rather than queue behind a long transaction while everybody else
queues behind it. One that moves data raises the limit for the statement that does, and sets it back.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context

from ml_core.database.tables import SCHEMA, metadata

LOCK_TIMEOUT = "4s"
STATEMENT_TIMEOUT = "5s"

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    version_table_schema=SCHEMA,
    include_schemas=True,
)
with context.begin_transaction():
    connection.execute(sa.text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
    connection.execute(sa.text(f"SET LOCAL statement_timeout = '{STATEMENT_TIMEOUT}'"))
    context.run_migrations()
