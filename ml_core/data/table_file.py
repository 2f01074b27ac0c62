"""The file of a dataset: Parquet, written so that equal tables become equal bytes in any process.

A table from a text file is stored as its cells: columns of strings, and a mark in the file's metadata. The meaning of a
cell is decided when it is read, see ``ml_core.data.cells``.

The bytes depend on the content alone: row groups end at fixed rows however the rows arrive, each is one piece in memory
before it is written, every option of the writer is fixed, and no metadata of pandas or Arrow is kept. Another release
of pyarrow may encode differently and writes its name into the file; equal content then has another digest.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ml_core.data.cells import has_decimal_comma, typed_series
from ml_core.data.tables import frame_of, table_from_frame
from ml_core.domain.columns import check_lengths
from ml_core.exceptions import DataProcessingError, RequestTooLargeError

EXPORT_SUFFIXES = (".parquet", ".csv")
GROUP_BYTES = 2**30
"""Of the rows of a row group in memory, and of those of a CSV file that are read together: 16 kB a row."""
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


def write_frame(frame: pd.DataFrame, path: Path) -> int:
    """Write a data frame without its index, and count its rows.

    Raises:
        DataProcessingError: It has no column, or one that a dataset can't hold.
    """
    table = table_from_frame(frame)
    with TableWriter(path, table.schema) as writer:
        writer.write(table)
    return writer.rows


class TableWriter:
    """Writes a table in pieces of any length; a context manager that completes the file, which must not exist.

    Args:
        path: The file.
        schema: Of stored types, see ``ml_core.data.tables``.
        cells: Whether its strings are the cells of a text file.

    Attributes:
        rows: How many were written.
    """

    def __init__(self, path: Path, schema: pa.Schema, *, cells: bool = False) -> None:
        check_lengths(schema.names)
        self.schema = schema.remove_metadata()
        self.rows = 0
        self._group_rows = group_rows(len(schema))
        self._waiting: list[pa.Table] = []
        self._waiting_rows = self._waiting_bytes = 0
        self._writer = pq.ParquetWriter(path, self.schema, **_OPTIONS)
        if cells:
            self._writer.add_key_value_metadata(_CELLS)

    def write(self, table: pa.Table) -> None:
        """Add any number of rows of exactly the writer's schema.

        Raises:
            RequestTooLargeError: A row group would take over ``GROUP_BYTES``.
        """
        self.rows += table.num_rows
        while table.num_rows:
            taken = table.slice(0, self._group_rows - self._waiting_rows)
            self._waiting.append(taken)
            self._waiting_rows += taken.num_rows
            self._waiting_bytes += taken.nbytes
            if self._waiting_bytes > GROUP_BYTES:
                raise too_long_rows(self._waiting_rows)
            table = table.slice(taken.num_rows)
            if self._waiting_rows == self._group_rows:
                self._flush()

    def _flush(self) -> None:
        # One piece a column: where pages end depends on where the pieces do.
        group = pa.concat_tables(self._waiting).combine_chunks()
        self._writer.write_table(group, row_group_size=self._group_rows)
        self._waiting, self._waiting_rows, self._waiting_bytes = [], 0, 0

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


def too_long_rows(rows: int) -> RequestTooLargeError:
    """The error for so many successive rows that together have more than ``GROUP_BYTES``."""
    return RequestTooLargeError(
        f"{rows:,} successive rows of the table have more than {GROUP_BYTES:,} bytes.",
        remedy="Shorten long texts, or store them elsewhere and keep what the model needs.",
        limit=GROUP_BYTES,
    )


def read_frame(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """The table of a dataset's file as a data frame: the named columns in this order, or all.

    Returns:
        ``(n_rows, n_columns)``, the index counts from 0. Strings are ``str``, moments ``datetime64[us]``, dates
        ``datetime.date``; whole numbers with missing values are pandas' ``Int64`` or its like, so that none is rounded.

    Raises:
        DataProcessingError: The column does not exist.
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


def read_typed(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """The table of a dataset's file as ``read_frame`` returns it, with the cells of a text file as values.

    Raises:
        DataProcessingError: The column does not exist.
    """
    frame = read_frame(path, columns)
    if not holds_cells(path):
        return frame
    # A decimal comma in any column of the table decides how the numbers of all columns are read.
    has_commas = has_decimal_comma(frame if columns is None else read_frame(path))
    return pd.DataFrame({name: typed_series(frame[name], has_commas=has_commas) for name in frame.columns})


def read_rows(path: Path, rows: np.ndarray[Any, Any]) -> pa.Table:
    """The rows of a dataset's file with ``(n,)`` rising int64 numbers; one row group is in memory at a time."""
    with pq.ParquetFile(path) as file:
        pieces, first = [file.schema_arrow.empty_table()], 0
        for group in range(file.num_row_groups):
            behind = first + file.metadata.row_group(group).num_rows
            mine = rows[np.searchsorted(rows, first) : np.searchsorted(rows, behind)]
            if len(mine):
                pieces.append(file.read_row_group(group).take(pa.array(mine - first)))
            first = behind
    return pa.concat_tables(pieces)


def columns_of(path: Path) -> tuple[tuple[str, str], ...]:
    """The name and the Arrow type of each column of a dataset's file, in order."""
    return tuple((field.name, str(field.type)) for field in pq.read_schema(path))


def export_table(source: Path, target: Path) -> None:
    """Copy a dataset's Parquet file, or write its table as CSV with one row group in memory at a time.

    In Parquet the cells of a text file become values, see ``read_typed``. The target must not exist and end in one of
    ``EXPORT_SUFFIXES``; nothing is left there when it fails.

    Raises:
        DataProcessingError: It exists, ends otherwise, or can't be written; ``stage`` is ``write``.
    """
    if target.suffix.lower() not in EXPORT_SUFFIXES:
        raise _refused(f"{target} is not a file of a known kind.", f"Use one of {', '.join(EXPORT_SUFFIXES)}.")
    try:
        with target.open("xb") as file:  # x: not even a file that appears meanwhile is overwritten
            try:
                if target.suffix.lower() == ".parquet" and holds_cells(source):
                    pq.write_table(table_from_frame(read_typed(source)), file)
                elif target.suffix.lower() == ".parquet":
                    with source.open("rb") as stored:
                        shutil.copyfileobj(stored, file)
                else:
                    _write_csv(source, file)
            except BaseException:  # also on Ctrl-C: no half-written file stays
                target.unlink(missing_ok=True)
                raise
    except FileExistsError as error:
        raise _refused(f"{target} exists already.", "Name another file, or remove it.") from error
    except OSError as error:
        raise _refused(
            f"{target} can't be written: {error.strerror or error}.", "Check the folder and its disk."
        ) from error


def _write_csv(source: Path, file: object) -> None:
    with pq.ParquetFile(source) as stored:
        for group in range(stored.num_row_groups):
            frame = frame_of(stored.read_row_group(group))
            frame.to_csv(file, index=False, header=group == 0)  # type: ignore[call-overload]


def _refused(message: str, remedy: str) -> DataProcessingError:
    return DataProcessingError(message, remedy=remedy, stage="write")
