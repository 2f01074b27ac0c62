"""The file of a dataset: Parquet, written so that equal tables become equal bytes in any process.

A table from a text file is stored as its cells: columns of strings, with a mark in the file's metadata that says so.
What a cell means is decided where it is read, see ``ml_core.data.cells``.

The bytes depend on the content and on nothing else: row groups end at fixed rows however the rows arrive, each is one
piece in memory before it is written, every option of the writer is fixed, and no metadata of pandas or Arrow is kept.
Another release of pyarrow may encode differently, and names itself in the file: then equal content gets another digest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ml_core.exceptions import DataProcessingError

FORMAT = "parquet/1"
"""What the registry calls the format; another number when the rules of this module change."""

_CELLS = {"mlcore.cells": "text"}

# A row group is whole in memory while it is written and read. Fewer rows where there are many columns.
_GROUP_ROWS = 65_536
_GROUP_CELLS = 4_194_304
_OPTIONS = {
    "version": "2.6",
    "compression": "zstd",
    "compression_level": 3,
    "use_dictionary": True,
    "write_statistics": True,
    "data_page_version": "1.0",
    "store_schema": False,
    "coerce_timestamps": None,
}


class TableWriter:
    """Writes a table in pieces of any length; a context manager that completes the file.

    Args:
        path: The file; it must not exist.
        schema: Of stored types, see ``ml_core.data.tables``.
        cells: Whether its strings are the cells of a text file.

    Attributes:
        schema: The same, without metadata.
        rows: How many were written.
    """

    def __init__(self, path: Path, schema: pa.Schema, *, cells: bool = False) -> None:
        self.schema = schema.remove_metadata()
        self.rows = 0
        self._group_rows = group_rows(len(schema))
        self._waiting: list[pa.Table] = []
        self._waiting_rows = 0
        self._writer = pq.ParquetWriter(path, self.schema, **_OPTIONS)
        if cells:
            self._writer.add_key_value_metadata(_CELLS)

    def write(self, table: pa.Table) -> None:
        """Add rows.

        Args:
            table: ``(any, n_columns)`` of exactly the writer's schema.
        """
        self.rows += table.num_rows
        while table.num_rows:
            taken = table.slice(0, self._group_rows - self._waiting_rows)
            self._waiting.append(taken)
            self._waiting_rows += taken.num_rows
            table = table.slice(taken.num_rows)
            if self._waiting_rows == self._group_rows:
                self._flush()

    def _flush(self) -> None:
        # One piece a column: where pages end depends on where the pieces do.
        group = pa.concat_tables(self._waiting).combine_chunks()
        self._writer.write_table(group, row_group_size=self._group_rows)
        self._waiting, self._waiting_rows = [], 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None and self._waiting:
            self._flush()
        self._writer.close()


def group_rows(n_columns: int) -> int:
    """Rows of a row group of a table of so many columns."""
    return max(1, min(_GROUP_ROWS, _GROUP_CELLS // max(1, n_columns)))


def read_frame(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """The table of a dataset's file as a data frame.

    Args:
        path: The file.
        columns: Only these, in this order; None: all.

    Returns:
        ``(n_rows, n_columns)``, the index counts from 0. Strings are ``str``, moments ``datetime64[us]``, dates
        ``datetime.date``; whole numbers with missing values are pandas' ``Int64`` or its like, so that none is rounded.

    Raises:
        DataProcessingError: There is no such column.
    """
    with pq.ParquetFile(path) as file:
        names = file.schema_arrow.names
        wanted = list(names if columns is None else columns)
        unknown = next((name for name in wanted if name not in names), None)
        if unknown is not None:
            raise DataProcessingError(
                f"The dataset has no column {unknown!r}.",
                remedy=f"Its columns are: {', '.join(names[:20])}{', …' if len(names) > 20 else ''}.",
                column=unknown,
                stage="read",
            )
        table = file.read(columns=wanted).select(wanted)
    return frame_of(table)


def holds_cells(path: Path) -> bool:
    """Whether the strings of a dataset's file are the cells of a text file."""
    found = pq.read_schema(path).metadata or {}
    return all(found.get(key.encode()) == value.encode() for key, value in _CELLS.items())


def frame_of(table: pa.Table) -> pd.DataFrame:
    """A stored table as a data frame, see ``read_frame``."""
    series = {name: series_of(table.column(name)) for name in table.column_names}
    return pd.DataFrame(series, index=pd.RangeIndex(table.num_rows))


def series_of(column: Any) -> Any:
    """A stored column, an array or chunked array, as a series of the dtypes of ``read_frame``."""
    if pa.types.is_integer(column.type) and column.null_count:
        name = str(column.type)
        nullable = name.replace("uint", "UInt") if name.startswith("u") else name.replace("int", "Int")
        return column.to_pandas(types_mapper={column.type: pd.api.types.pandas_dtype(nullable)}.get)
    return column.to_pandas()


def read_rows(path: Path, rows: np.ndarray[Any, Any]) -> pa.Table:
    """Some rows of a dataset's file, with one row group in memory at a time.

    Args:
        path: The file.
        rows: ``(n,)`` int64, rising.
    """
    return pa.concat_tables(_pieces(path, rows))


def _pieces(path: Path, rows: np.ndarray[Any, Any]) -> Iterator[pa.Table]:
    with pq.ParquetFile(path) as file:
        yield file.schema_arrow.empty_table()
        first = 0
        for group in range(file.num_row_groups):
            behind = first + file.metadata.row_group(group).num_rows
            mine = rows[np.searchsorted(rows, first) : np.searchsorted(rows, behind)]
            if len(mine):
                yield file.read_row_group(group).take(pa.array(mine - first))
            first = behind


def columns_of(path: Path) -> tuple[tuple[str, str], ...]:
    """The name and the Arrow type of each column of a dataset's file, in order."""
    return tuple((field.name, str(field.type)) for field in pq.read_schema(path))
