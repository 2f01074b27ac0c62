"""Deleting rows: by a function of the owner's, since a role that may delete may also lock the whole table."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Connection


def erase(connection: Connection, table: sa.Table, **key: Any) -> int:
    """Delete rows of the transaction's tenant.

    Args:
        connection: In the tenant's transaction.
        table: The table.
        **key: Column → its value, or a list of values.

    Returns:
        How many there were.

    Raises:
        sqlalchemy.exc.IntegrityError: Another row refers to one of them.
    """
    listed = {column: value if isinstance(value, list) else [value] for column, value in key.items()}
    return int(connection.scalar(sa.select(sa.func.mlcore.erase(table.name, sa.cast(listed, JSONB)))) or 0)
