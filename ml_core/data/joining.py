"""Several files of one kind as one table: a schema that all share, checked before a row is moved, then their rows.

Columns are matched by name. Parquet files must agree in the types in which datasets are stored, as their footers say;
a column without values fits any type. The cells of CSV files are texts, so there a column changes its type where the
first cells of one file are all numbers (or all booleans) and none of another file's is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ml_core.data.cells import any_literal, literals, present
from ml_core.data.csv_file import PARQUET_MAGIC, CsvFile, unreadable
from ml_core.data.reading import parquet_pieces, reading, schema_of
from ml_core.data.sources import SourceFile, explained
from ml_core.data.table_file import TableWriter, group_rows
from ml_core.data.tables import stored_schema, to_stored
from ml_core.exceptions import DataProcessingError, did_you_mean

_LOOKED_AT_ONCE = 4  # files; those of a store take most of the time to answer
_OF_CELLS = {pa.float64(): "numbers", pa.bool_(): "booleans", pa.string(): "text"}


def join(files: Sequence[SourceFile], encoding: str, folder: Path) -> tuple[Path, str]:
    """Write the rows of files, in their order, to one file as ``TableWriter`` does.

    Args:
        files: At least one; all CSV or all Parquet.
        encoding: Of CSV files.
        folder: Where the file is made.

    Returns:
        The file, and ``csv`` or ``parquet``.

    Raises:
        DataProcessingError: A file can't be read, or the files are not one table: names the first that differs, and
            the column.
    """
    is_csv = not _is_parquet(files[0])
    schema = _common_schema(files, encoding, is_csv=is_csv)
    path = folder / "table.parquet"
    with TableWriter(path, schema, cells=is_csv) as writer:
        for file in files:
            for piece in _pieces(file, encoding, is_csv=is_csv):
                writer.write(to_stored(piece.select(schema.names), schema))
            file.discard()
    if not writer.rows:
        raise unreadable("None of the files has a row.", "Add rows.")
    return path, "csv" if is_csv else "parquet"


def _pieces(file: SourceFile, encoding: str, *, is_csv: bool) -> Iterator[pa.Table]:
    with explained(file.name):
        path = file.local()
    with _named(file), reading(path, encoding):
        if is_csv:
            yield from CsvFile.recognise(path, encoding).pieces()
        else:
            yield from parquet_pieces(path, group_rows(pq.read_metadata(path).num_columns))


@contextmanager
def _named(file: SourceFile) -> Iterator[None]:
    """Errors about the copy of a file as errors about the file."""
    try:
        yield
    except DataProcessingError as error:
        error.message = error.message.replace(str(file.copy or file.path), file.name)
        raise


def _is_parquet(file: SourceFile) -> bool:
    with explained(file.name), file.store.open_input_file(file.path) as opened:
        return bool(opened.read(len(PARQUET_MAGIC)) == PARQUET_MAGIC) or file.name.lower().endswith(".parquet")


def _common_schema(files: Sequence[SourceFile], encoding: str, *, is_csv: bool) -> pa.Schema:
    """The stored schema of all files, in the order of the columns of the first."""
    seen: dict[str, tuple[pa.DataType, str]] = {}
    pool = ThreadPoolExecutor(_LOOKED_AT_ONCE)
    try:
        schemas = pool.map(lambda file: _schema(file, encoding, is_csv=is_csv), files)
        for file, schema in zip(files, schemas, strict=True):
            if not seen:
                seen = {field.name: (field.type, file.name) for field in schema}
            _check(seen, schema, file.name, files[0].name, is_csv=is_csv)
            for field in schema:
                if pa.types.is_null(seen[field.name][0]):
                    seen[field.name] = field.type, file.name
    finally:
        pool.shutdown(cancel_futures=True)
    return stored_schema(pa.schema([(name, pa.string() if is_csv else kind) for name, (kind, _) in seen.items()]))


def _schema(file: SourceFile, encoding: str, *, is_csv: bool) -> pa.Schema:
    """The columns of a file: of Parquet by its footer, of CSV by its first piece. Type null fits any other type."""
    if not file.size_bytes:
        raise unreadable(f"{file.name} is empty.", "Leave the file out, or write it again.")
    if _is_parquet(file) is is_csv:
        raise unreadable(
            f"{file.name} is {'Parquet' if is_csv else 'CSV'}, and the files before it are not.",
            "Name files of one kind with a pattern, such as data/*.parquet.",
        )
    if is_csv:
        cells = next(_pieces(file, encoding, is_csv=True))
        return pa.schema([(name, _type_of(cells.column(name))) for name in cells.column_names])
    with reading(file.name, encoding), explained(file.name), file.store.open_input_file(file.path) as opened:
        return stored_schema(schema_of(pq.read_schema(opened), file.name))


def _type_of(cells: Any) -> pa.DataType:
    """The type of ``(n_rows,)`` cells as values; null where there are none, or of several types."""
    valid = present(cells)
    if (found := literals(valid)) is not None:
        return pa.null() if valid.null_count == len(valid) else found.values.type
    return pa.null() if any_literal(valid) else pa.string()


def _check(seen: dict[str, tuple[pa.DataType, str]], schema: pa.Schema, file: str, first: str, *, is_csv: bool) -> None:
    """Refuse a file whose columns differ from those of the files before it."""
    new = [name for name in schema.names if name not in seen]
    for name in seen:
        if name not in schema.names:
            remedy = f"{did_you_mean(name, new)}Add it to the file, or leave the file out."
            raise unreadable(f"{file} has no column {name!r}, unlike {first}.", remedy, column=name)
    if new:
        raise unreadable(
            f"{file} has a column {new[0]!r} that {first} has not.",
            "Remove it from the file, or add it to the files before; or leave the file out.",
            column=new[0],
        )
    for name, (known, where) in seen.items():
        kind = schema.field(name).type
        if kind != known and not pa.types.is_null(known) and not pa.types.is_null(kind):
            before, here = (_OF_CELLS[each] if is_csv else str(each) for each in (known, kind))
            raise unreadable(
                f"The column {name!r} changes its type: {before} in {where}, {here} in {file}.",
                "Correct the file that is wrong. If both are right, join the files into one: its column is text."
                if is_csv
                else "Write the column in one type in all files, or leave the file out.",
                column=name,
            )
