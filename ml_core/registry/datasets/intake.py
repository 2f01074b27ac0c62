"""Tables from outside, written as the file of a dataset: data frames, CSV and Parquet files, pieces of any length."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ml_core.data.csv_file import CsvFile
from ml_core.data.reading import parquet_pieces, reading
from ml_core.data.table_file import TableWriter, group_rows
from ml_core.data.tables import stored_schema, table_from_frame, to_stored
from ml_core.exceptions import DataProcessingError, RequestTooLargeError
from ml_core.settings import ApiSettings


def write_table(table: pa.Table, path: Path) -> None:
    """Write a stored table.

    Raises:
        DataProcessingError: It has no row.
    """
    with TableWriter(path, table.schema) as writer:
        writer.write(table)
    check_rows(writer.rows)


def write_frame(frame: pd.DataFrame, path: Path) -> None:
    """Write a data frame.

    Raises:
        DataProcessingError: It has no row or column, or one that a dataset can't hold.
    """
    write_table(table_from_frame(frame), path)


def write_csv(file: Path, encoding: str, path: Path, limits: ApiSettings) -> None:
    """Write the cells of a CSV file, of one larger than memory too.

    Raises:
        DataProcessingError: The file can't be read, or holds no table; ``stage`` is ``read``.
        RequestTooLargeError: The table is over a limit.
    """
    pieces = _bounded(_csv_pieces(file, encoding), limits)
    first = next(pieces)
    with TableWriter(path, stored_schema(first.schema), cells=True) as writer:
        for piece in chain([first], pieces):
            writer.write(piece)


def _csv_pieces(file: Path, encoding: str) -> Iterator[pa.Table]:
    with reading(file, encoding):
        yield from CsvFile.recognise(file, encoding).pieces()


def write_parquet(file: Path, path: Path, limits: ApiSettings) -> None:
    """Write the table of a Parquet file anew, a row group at a time, so that equal content becomes equal bytes.

    Raises:
        DataProcessingError: It is no Parquet file, has no row, or a column that a dataset can't hold.
        RequestTooLargeError: The table is over a limit; of its numbers of rows and columns before anything is decoded.
    """
    pieces = _bounded(_parquet_pieces(file, limits), limits)
    with TableWriter(path, next(pieces).schema) as writer:
        for piece in pieces:
            writer.write(piece)
    check_rows(writer.rows)


def _parquet_pieces(file: Path, limits: ApiSettings) -> Iterator[pa.Table]:
    """The stored form of a Parquet file in pieces; the first has no row, only the schema."""
    with reading(file, "utf-8"):
        footer = pq.read_metadata(file)
        pieces = parquet_pieces(file, group_rows(footer.num_columns))
        schema = stored_schema(next(pieces).schema)
        _check_size(footer.num_rows, len(schema), 0, limits)
        yield schema.empty_table()
        for piece in pieces:
            yield to_stored(piece, schema)


def _bounded(pieces: Iterator[pa.Table], limits: ApiSettings) -> Iterator[pa.Table]:
    rows = size_bytes = 0
    for piece in pieces:
        rows, size_bytes = rows + piece.num_rows, size_bytes + piece.nbytes
        _check_size(rows, piece.num_columns, size_bytes, limits)
        yield piece


def _check_size(rows: int, columns: int, size_bytes: int, limits: ApiSettings) -> None:
    """Refuse a table over a limit; of a CSV file the rows read so far.

    Raises:
        RequestTooLargeError: The table is over it.
    """
    for what, actual, limit in (
        ("rows", rows, limits.max_upload_rows),
        ("cells", rows * columns, limits.max_upload_cells),
        ("bytes, decoded", size_bytes, limits.max_upload_bytes),
    ):
        if actual > limit:
            raise RequestTooLargeError(
                f"The table has {actual:,} {what}; at most {limit:,} are accepted.",
                remedy="Store a sample of the rows, or leave columns out.",
                limit=limit,
                actual=actual,
            )


def check_rows(rows: int) -> None:
    """Refuse a table without rows.

    Raises:
        DataProcessingError: It has none.
    """
    if not rows:
        raise DataProcessingError("The table has no row.", remedy="Add rows.", stage="store")
