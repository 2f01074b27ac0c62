"""Moving data in a migration without keeping anybody waiting: batches, each in a transaction of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sqlalchemy as sa
from alembic import op

from ml_core.database.security import let_upgrade_read, stop_upgrade_reads

_BATCH_TIMEOUT = "600s"


def in_batches(batch: str, first: Mapping[str, str], *, reads: Sequence[str]) -> None:
    """Run a statement again and again, each time from the key that the time before returned, until it returns none.

    What the migration did before is committed first, so this comes at its beginning; a migration that is interrupted
    here runs again from its own beginning, so the statement must bear being repeated.

    The owner is under the policies too and sees no row of any tenant. While the batches run, a policy lets it read the
    tables that are named. To make and to drop it takes the table for oneself, which lasts as long as no other
    transaction holds it, and no longer.

    Args:
        batch: The statement, with the key of ``first`` as its parameters; returns the last key that it did.
        first: The key before the first.
        reads: The tables of tenants that it reads.
    """
    for table in reads:
        op.execute(stop_upgrade_reads(table))
        op.execute(let_upgrade_read(table))
    with op.get_context().autocommit_block():
        connection = op.get_bind()
        before = connection.scalar(sa.text("SHOW statement_timeout"))
        connection.execute(sa.text(f"SET statement_timeout = '{_BATCH_TIMEOUT}'"))
        key: Mapping[str, str] | None = first
        while key is not None:
            done = connection.execute(sa.text(batch), dict(key)).mappings().one_or_none()
            key = None if done is None else dict(done)
        connection.execute(sa.text(f"SET statement_timeout = '{before}'"))
    for table in reads:
        op.execute(stop_upgrade_reads(table))
