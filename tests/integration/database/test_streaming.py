"""Rows that are read as they arrive."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from ml_core.database.connection import DatabaseConnection
from ml_core.database.streaming import Stream
from ml_core.exceptions import InvalidRequestError, RegistryUnavailableError

# In the list of columns: in FROM Postgres would collect the numbers first.
_N = sa.func.generate_series(1, sa.bindparam("last", type_=sa.Integer)).label("n")
ROWS = Stream(sa.select(_N, sa.func.repeat("x", 10_000).label("text")))
_NUMBERS = sa.select(_N).subquery()
FAILING = Stream(sa.select((1000 // (1000 - _NUMBERS.c.n)).label("n")))


def numbers(db: DatabaseConnection, stream: Stream, last: int, timeout: str = "30s") -> Iterator[int]:
    """The first column of a stream, in a transaction of its own."""
    with db.serving() as connection:
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = '{timeout}'")
        with stream.rows(connection, last=last) as rows:
            for row in rows:
                yield row.n
        assert connection.scalar(sa.select(sa.literal(1))) == 1, "the transaction goes on"


def test_all_rows_come_by_their_names(db: DatabaseConnection) -> None:
    """Those of several groups, in order, with the parameters that were given."""
    assert list(numbers(db, ROWS, 25)) == list(range(1, 26))


def test_rows_come_before_the_last_one_is_known(db: DatabaseConnection) -> None:
    """The reader has the first ones when the server fails at the last: neither collects them."""
    found: list[int] = []
    with pytest.raises(InvalidRequestError, match="division by zero"):
        found.extend(numbers(db, FAILING, 1000))
    assert len(found) > 900


def test_an_error_in_the_block_leaves_no_statement_behind(db: DatabaseConnection) -> None:
    """The transaction is rolled back at once, although most rows were not read, and the session is used again."""
    for _ in range(2):
        reading = numbers(db, ROWS, 10**9)
        assert next(reading) == 1
        with pytest.raises(ZeroDivisionError):
            reading.throw(ZeroDivisionError())
    assert len(list(numbers(db, ROWS, 3))) == 3


def test_an_error_of_the_server_is_the_platforms(db: DatabaseConnection) -> None:
    """As of any other statement: here the time limit."""
    with pytest.raises(RegistryUnavailableError):
        deque(numbers(db, ROWS, 10**9, "50ms"), maxlen=0)
