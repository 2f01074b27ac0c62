"""Tables from outside, written as the file of a dataset: data frames, CSV and Parquet files, pieces of any length."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ml_core.data.csv_pieces import is_large, read_pieces
from ml_core.data.reading import read_table, reading
from ml_core.data.table_file import TableWriter, group_rows
from ml_core.data.tables import stored_schema, table_from_frame, to_stored
from ml_core.exceptions import DataProcessingError

# What pandas calls an index without a name in a Parquet file; a dataset has no index.
_INDEX_PREFIX = "__index_level_"


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


def write_csv(file: Path, encoding: str, path: Path) -> None:
    """Write the table of a CSV file, of one larger than memory too; read as ``ml_core.data.reading`` says.

    Raises:
        DataProcessingError: The file can't be read, or holds no table; ``stage`` is ``read``.
    """
    if not is_large(file):
        write_frame(read_table(file, encoding=encoding), path)
        return
    pieces = read_pieces(file, encoding)
    with TableWriter(path, next(pieces).schema) as writer:
        for piece in pieces:
            writer.write(piece)


def write_parquet(file: Path, path: Path) -> None:
    """Write the table of a Parquet file anew, a row group at a time, so that equal content becomes equal bytes.

    Raises:
        DataProcessingError: It is no Parquet file, has no row, or a column that a dataset can't hold.
    """
    pieces = _parquet_pieces(file)
    with TableWriter(path, next(pieces).schema) as writer:
        for piece in pieces:
            writer.write(piece)
    check_rows(writer.rows)


def _parquet_pieces(file: Path) -> Iterator[pa.Table]:
    """The stored form of a Parquet file in pieces; the first has no row and tells the schema."""
    with reading(file, "utf-8"), pq.ParquetFile(file) as source:
        names = [name for name in source.schema_arrow.names if not name.startswith(_INDEX_PREFIX)]
        schema = stored_schema(pa.schema([field for field in source.schema_arrow if field.name in names]))
        yield schema.empty_table()
        for batch in source.iter_batches(batch_size=group_rows(len(names)), columns=names):
            yield to_stored(pa.Table.from_batches([batch]).select(names), schema)


def check_rows(rows: int) -> None:
    """Refuse a table without rows.

    Raises:
        DataProcessingError: It has none.
    """
    if not rows:
        raise DataProcessingError("The table has no row.", remedy="Add rows.", stage="store")
