"""The feed's clock, as an expression for the last statement of a transaction that a replica must hear of."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa


def advance_feed(cell: str | sa.ColumnElement[Any]) -> sa.ColumnElement[int]:
    """The cell's next generation, and the notification that wakes its replicas.

    The clock's row stays locked until the transaction ends, so use it as late as possible: whatever follows makes
    every other change of the cell wait.
    """
    return sa.func.mlcore.advance_feed(cell, type_=sa.BigInteger)
