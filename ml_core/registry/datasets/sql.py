"""The rows of a query to a caller's own database, written as the file of a dataset. The connection only reads.

The types of a result are known only after its last row, so its rows are spooled to disk in pieces, each piece in its
own types, and written from there to the dataset's file in the types that hold all of them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection
from sqlalchemy.pool import NullPool

from ml_core.data.table_file import TableWriter
from ml_core.data.tables import check_columns, stored_schema, table_from_frame, to_stored
from ml_core.exceptions import DataProcessingError
from ml_core.registry.datasets.intake import bounded, check_rows
from ml_core.settings import ApiSettings

# A piece is held as Python objects of about 60 bytes each: some 60 MB.
_PIECE_CELLS = 1_000_000
_PIECE_ROWS = 50_000
_PIECE_BYTES = 2**26
_FIRST_ROWS = 1_000
_STATEMENT_TIMEOUT_S = 600
_CONNECT_TIMEOUT_S = 10
_POSTGRES = ("postgres", "postgresql")
# Options of a URL that say where the database is; any other may be a secret.
_SHOWN_OPTIONS = ("host", "port")


def limited(limits: ApiSettings, max_rows: int | None) -> ApiSettings:
    """The limits, with at most so many rows."""
    return limits if max_rows is None else replace(limits, max_upload_rows=min(max_rows, limits.max_upload_rows))


def write_query(url: str, query: str, params: Mapping[str, Any] | None, path: Path, limits: ApiSettings) -> None:
    """Run a query and write its rows.

    Args:
        url: A SQLAlchemy URL of the database that has the table. This process connects to it, so it must not come from
            a client.
        query: One statement that returns rows; ``:name`` is a parameter where ``params`` are given.
        params: Name → value.
        path: The file to write.
        limits: Of rows, cells and bytes; beyond one nothing more is fetched.

    Raises:
        DataProcessingError: The URL can't be used, the database can't be reached or refuses the query (``stage`` is
            ``read``), or the rows are no table that a dataset can hold (``stage`` is ``store``).
        RequestTooLargeError: There are more rows, cells or bytes than the limits allow.
    """
    with tempfile.TemporaryDirectory(prefix="mlcore-query-") as folder, _connected(url) as connection:
        with closing(_fetched(connection, query, params)) as tables:
            pieces = _spool(bounded(tables, limits), Path(folder))
        schema = _common_schema(pieces)
        with TableWriter(path, schema) as writer:
            for piece in pieces:
                writer.write(to_stored(pq.read_table(piece, partitioning=None), schema))
                piece.unlink()
    check_rows(writer.rows)


def parse_url(text: str) -> URL:
    """The URL of a database, with the platform's driver where it is PostgreSQL.

    Raises:
        DataProcessingError: The text is not such a URL. It is not repeated: it may hold a password.
    """
    try:
        url = sa.make_url(text)
    except (sa.exc.ArgumentError, ValueError):
        raise _refused(
            "The database's URL can't be read.", "Use one such as postgresql://user:password@host:5432/database."
        ) from None
    return url.set(drivername="postgresql+psycopg") if url.drivername in _POSTGRES else url


def shown_url(text: str) -> str:
    """A database's URL without its password and options: what may be recorded.

    Raises:
        DataProcessingError: The text is not a URL.
    """
    return _shown(parse_url(text))


def _shown(url: URL) -> str:
    kept = {name: value for name, value in url.query.items() if name in _SHOWN_OPTIONS}
    return url.set(query=kept).render_as_string(hide_password=True)


def recorded(value: Any) -> Any:
    """A parameter in a form that JSON can carry."""
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


@contextmanager
def _connected(text: str) -> Iterator[Connection]:
    """A connection that only reads, where the database has such a mode, and rolls back at the end."""
    url = parse_url(text)
    is_postgres, is_sqlite = (url.get_backend_name() == name for name in ("postgresql", "sqlite"))
    if is_sqlite and url.database and url.database != ":memory:" and not Path(url.database).is_file():
        raise _refused(f"There is no database file {url.database}.", "Check the path.")  # SQLite would make one
    try:
        arguments = {"connect_timeout": _CONNECT_TIMEOUT_S} if is_postgres else {}
        engine = sa.create_engine(url, poolclass=NullPool, connect_args=arguments, hide_parameters=True)
    except (sa.exc.NoSuchModuleError, ImportError) as error:
        raise _refused(
            f"There is no driver for databases of kind {url.drivername!r} here: {error}.", "Install it."
        ) from error
    try:
        with engine.connect() as connection:
            if is_postgres:
                connection = connection.execution_options(postgresql_readonly=True)
                connection.exec_driver_sql(f"SET LOCAL statement_timeout = '{_STATEMENT_TIMEOUT_S}s'")
            elif is_sqlite:
                connection.exec_driver_sql("PRAGMA query_only = ON")
            yield connection
            connection.rollback()
    except sa.exc.SQLAlchemyError as error:
        raise _translated(error, url) from error
    finally:
        engine.dispose()


def _translated(error: sa.exc.SQLAlchemyError, url: URL) -> DataProcessingError:
    cause = getattr(error, "orig", None) or error
    text = str(cause)
    for secret in filter(None, (url.password, *(str(v) for k, v in url.query.items() if k not in _SHOWN_OPTIONS))):
        text = text.replace(secret, "***")
    lines = text.strip().splitlines() or [type(cause).__name__]
    return _refused(
        f"The database at {_shown(url)} answered: {lines[0]}",
        "Check the URL and the query. It must be one SELECT; the connection only reads.",
    )


def _fetched(connection: Connection, query: str, params: Mapping[str, Any] | None) -> Generator[pa.Table, None, None]:
    """The rows in pieces, each in its own types and of about ``_PIECE_BYTES`` at most, by the size of that before."""
    with _execute(connection, query, params) as result:
        if not result.returns_rows or result.cursor is None:
            raise _refused("The query returns no table.", "It must be one SELECT.")
        names = [str(column[0]) for column in result.cursor.description or ()]
        check_columns(names)
        most = max(1, min(_PIECE_ROWS, _PIECE_CELLS // len(names)))
        rows = min(_FIRST_ROWS, most)
        while part := result.fetchmany(rows):
            columns = zip(*part, strict=True)
            series = {name: pd.Series(list(values), dtype=object) for name, values in zip(names, columns, strict=True)}
            table = table_from_frame(pd.DataFrame(series))
            yield table
            rows = max(1, min(most, _PIECE_BYTES * len(part) // max(1, table.nbytes)))


def _spool(tables: Iterator[pa.Table], folder: Path) -> list[Path]:
    """Write the pieces to a file each; at least one."""
    pieces = []
    for number, table in enumerate(tables):
        pieces.append(folder / f"{number:09}.parquet")
        pq.write_table(table, pieces[-1], compression="lz4")
    check_rows(len(pieces))
    return pieces


def _execute(connection: Connection, query: str, params: Mapping[str, Any] | None) -> sa.CursorResult[Any]:
    # Rows come from a cursor on the server, a buffer of them at a time.
    if params:
        options = {"stream_results": True}
        return connection.execution_options(**options).execute(sa.text(query), dict(params))
    # Unchanged: without parameters neither ":" nor "%" means anything.
    options = {"stream_results": True, "no_parameters": True}
    return connection.exec_driver_sql(query, execution_options=options)


def _common_schema(pieces: list[Path]) -> pa.Schema:
    """The types that hold the values of all pieces.

    Raises:
        DataProcessingError: A column has none; names it.
    """
    schemas = [pq.read_schema(piece) for piece in pieces]
    fields = []
    for name in schemas[0].names:
        kinds = list(dict.fromkeys(schema.field(name).type for schema in schemas))
        try:
            unified = pa.unify_schemas([pa.schema([(name, kind)]) for kind in kinds], promote_options="permissive")
        except pa.ArrowException as error:
            found = ", ".join(map(str, kinds[:4]))
            raise _refused(
                f"The column {name!r} has values of several types: {found}.",
                f"Make them one in the query, such as CAST({name} AS …).",
                name,
            ) from error
        fields.append(unified.field(0))
    return stored_schema(pa.schema(fields))


def _refused(message: str, remedy: str, column: str | None = None) -> DataProcessingError:
    return DataProcessingError(message, remedy=remedy, column=column, stage="read")
