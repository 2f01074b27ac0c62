"""Leadership: of several processes that could do the same, one acts."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.exceptions import MLFrameworkError

# The first number is the platform's, see ``mlcore.advance_feed``.
_TRY = sa.text("SELECT pg_try_advisory_xact_lock(1835167600, :of)")
_ALIVE = sa.text("SELECT 1")


class Leadership:
    """An advisory lock in Postgres, held by a transaction that stays open: it ends with its session, whatever happens.

    The transaction writes nothing and keeps no snapshot, so nobody waits for it. It is ended after a minute in which
    ``holds`` is not called. One thread uses it.

    Args:
        begin: Begins a transaction.
        of: What they would do: a number of 32 bits with a sign.

    Attributes:
        since: When this process got the lock that it has, on the monotonic clock.
    """

    def __init__(self, begin: Callable[[], AbstractContextManager[Connection]], of: int) -> None:
        self._begin = begin
        self._of = of
        self.since = 0.0
        self._transaction = ExitStack()
        self._connection: Connection | None = None

    def holds(self) -> bool:
        """Whether this process acts: it has the lock, or got it now. To be asked before each act."""
        with suppress(MLFrameworkError, sa.exc.SQLAlchemyError):  # the session was lost, and with it the lock
            if self._connection is not None:
                self._connection.execute(_ALIVE)
                return True
            connection = self._transaction.enter_context(self._begin())
            if connection.scalar(_TRY, {"of": self._of}):
                self._connection, self.since = connection, time.monotonic()
                return True
        self.release()
        return False

    def release(self) -> None:
        """Let another process act."""
        transaction, self._transaction, self._connection = self._transaction, ExitStack(), None
        with suppress(MLFrameworkError, sa.exc.SQLAlchemyError):  # the session was lost
            transaction.close()
