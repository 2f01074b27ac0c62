"""Reading rows that are many, or large, as they arrive."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import sqlalchemy as sa
from psycopg import Connection, capabilities
from psycopg.rows import namedtuple_row
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.engine import Connection as Transaction

_ROWS_AT_ONCE = 10  # that the driver holds; of a libpq before 17 one


class Stream:
    """A statement whose rows are handed on as they arrive, so that no process holds them all.

    SQLAlchemy would read them through a cursor of the server: three more round trips, one more for each few rows, and a
    plan for the first of them.

    Args:
        statement: A query. It is compiled now, since that takes as long as reading a few rows.
    """

    def __init__(self, statement: sa.sql.expression.SelectBase) -> None:
        compiled = statement.compile(dialect=PGDialect_psycopg())  # type: ignore[no-untyped-call]
        self._text, self._values = str(compiled), compiled.params
        self._rows_at_once = _ROWS_AT_ONCE if capabilities.has_stream_chunked() else 1

    @contextmanager
    def rows(self, connection: Transaction, **values: Any) -> Iterator[Iterator[Any]]:
        """The rows, each a named tuple. Nothing else can be sent in the block.

        Args:
            connection: In a transaction.
            **values: Of the statement's parameters.
        """
        session: Connection[Any] = connection.connection.driver_connection  # type: ignore[assignment]  # is open
        with session.cursor(row_factory=namedtuple_row) as cursor:
            given = {**self._values, **values}
            # Closed, or the rollback after an error would wait for the rest.
            with closing(cursor.stream(self._text, given, size=self._rows_at_once)) as rows:  # type: ignore[type-var]
                yield rows
