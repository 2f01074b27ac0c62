"""Leadership: of several processes that could do the same, one acts."""

from __future__ import annotations

from contextlib import ExitStack, suppress

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.database.connection import DatabaseConnection
from ml_core.exceptions import MLFrameworkError

# The first number is the platform's, see ``mlcore.advance_feed``; the second one is the control loop's.
_TRY = sa.text("SELECT pg_try_advisory_xact_lock(1835167600, 1)")
_ALIVE = sa.text("SELECT 1")


class Leadership:
    """An advisory lock in Postgres, held by a transaction that stays open: it ends with its session, whatever happens.

    The transaction writes nothing and keeps no snapshot, so nobody waits for it. It is ended after a minute in which
    ``holds`` is not called. One thread uses it.

    Args:
        db: The registry, with a principal of the platform.
    """

    def __init__(self, db: DatabaseConnection) -> None:
        self._db = db
        self._transaction = ExitStack()
        self._connection: Connection | None = None

    def holds(self) -> bool:
        """Whether this process acts: it has the lock, or got it now. To be asked before each act."""
        with suppress(MLFrameworkError, sa.exc.SQLAlchemyError):  # the session was lost, and with it the lock
            if self._connection is not None:
                self._connection.execute(_ALIVE)
                return True
            connection = self._transaction.enter_context(self._db.platform())
            if connection.scalar(_TRY):
                self._connection = connection
                return True
        self.release()
        return False

    def release(self) -> None:
        """Let another process act."""
        transaction, self._transaction, self._connection = self._transaction, ExitStack(), None
        with suppress(MLFrameworkError, sa.exc.SQLAlchemyError):  # the session was lost
            transaction.close()
