"""Reading a table from a CSV or Parquet file, and data frames as JSON rows."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ml_core.data.csv_file import SUFFIXES, CsvFile, check_names, is_parquet, unreadable
from ml_core.data.sources import check_encoding
from ml_core.data.tables import frame_of
from ml_core.domain.values import is_missing
from ml_core.exceptions import Action

# What pandas calls an index without a name in a Parquet file.
_NAMELESS_INDEX = "__index_level_"
_BATCH_ROWS = 65_536
_BATCH_BYTES = 2**28
# Of a counter that is an index: with them its values are within 64 bits, whatever the number of rows.
_MAX_START, _MAX_STEP = 2**62, 2**31
_SHOWN_CHARACTERS = 80


def read_table(path: Path, *, encoding: str = "utf-8") -> pd.DataFrame:
    """The table in a file.

    The cells of a CSV are strings, and empty ones are missing: their meaning is decided where the kinds of the columns
    are known. The delimiter is the comma, semicolon, tab or bar that splits the first lines alike, or the one that a
    first line such as ``sep=;`` names. Nameless columns without values, as a comma at the end of each line produces,
    are left out. Parquet and gzip are recognised by content, whatever the file's name.

    Args:
        path: A file that ends in one of ``SUFFIXES``.
        encoding: Of a CSV without a byte order mark.

    Returns:
        ``(n_rows, n_columns)`` with at least one row; the index counts from 0. A column of Parquet has its own type; an
        index with a name is a column.

    Raises:
        DataProcessingError: The file is missing, empty, of an unknown kind, not in ``encoding`` or not a table, has no
            row, or has two columns of one name. ``stage`` is ``read``.
    """
    path = Path(path)
    if not is_csv(path):
        with reading(path, encoding):
            frame = frame_of(pa.concat_tables(parquet_pieces(path)))
        check_names([str(name) for name in frame.columns], path)
        if not len(frame):
            raise unreadable(f"{path} has column names but no row.", "Add rows.")
        return frame
    with reading(path, encoding):
        return frame_of(pa.concat_tables(CsvFile.recognise(path, encoding).pieces()))


def is_csv(path: Path) -> bool:
    """Whether a file is a CSV; else it is Parquet.

    Raises:
        DataProcessingError: It is missing or empty, can't be read, or its name ends otherwise.
    """
    if not path.name.lower().endswith(SUFFIXES):
        raise unreadable(f"{path} is not a file of a known kind.", f"Use one of {', '.join(SUFFIXES)}.")
    with reading(path, "utf-8"):
        if not path.stat().st_size:
            raise unreadable(f"{path} is empty.", "Add a line of column names and rows below it.")
        return not (path.name.lower().endswith(".parquet") or is_parquet(path))


@contextmanager
def reading(path: Path | str, encoding: str) -> Iterator[None]:
    """Report any failure to read a file as a ``DataProcessingError``, see ``read_table``."""
    check_encoding(encoding)
    try:
        yield
    except FileNotFoundError as error:
        raise unreadable(f"The file {path} does not exist.", "Check the path.") from error
    except IsADirectoryError as error:
        raise unreadable(f"{path} is a folder.", "Name a file in it.") from error
    except UnicodeError as error:
        # cp1252 is latin-1 with quotes, dashes and the euro sign in the place of control characters.
        is_utf8 = encoding.lower().replace("_", "-") in ("utf-8", "utf8")
        other = "cp1252 (Western Europe)" if is_utf8 else "utf-8"
        raise unreadable(
            f"{path} is not {encoding}: {error}.",
            f"Give its encoding, such as {other}, or save it as UTF-8.",
            action=Action.of("datasets.create", encoding=other.split()[0]),
        ) from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise unreadable(f"{path} is not a complete gzip file: {error}.", "Compress it again.") from error
    except pa.ArrowException as error:
        why = str(error).rstrip(".")
        raise unreadable(f"{path} is not a Parquet file that can be read: {why}.", "Write it again.") from error
    except OSError as error:
        raise unreadable(
            f"{path} can't be read: {error.strerror or error}.", "Check its permissions and its disk."
        ) from error


def parquet_pieces(path: Path, rows: int = _BATCH_ROWS) -> Iterator[pa.Table]:
    """The table of a Parquet file in pieces; the first has no row, only the schema.

    An index that has a name is a column, also a counter, of which pandas writes no values. An index without a name is
    left out. A piece has at most ``rows``; fewer where rows are long, so that it takes about 256 MiB at most.
    """
    with pq.ParquetFile(path) as file:
        schema = schema_of(file.schema_arrow, path)
        counters = _counters(file.schema_arrow)
        names = schema.names[: len(schema) - len(counters)]
        first = 0
        yield schema.empty_table()
        for batch in map(_as_table, _batches(path, file, names, rows)):
            piece = batch.select(names)
            for name, start, step in counters:
                values = start + step * np.arange(first, first + len(batch))
                piece = piece.append_column(name, pa.array(values, pa.int64()))
            first += len(batch)
            yield piece.replace_schema_metadata(None)


def schema_of(schema: pa.Schema, path: Path | str) -> pa.Schema:
    """The columns of a Parquet file whose footer has ``schema``, as ``parquet_pieces`` yields them.

    Raises:
        DataProcessingError: Two have one name.
    """
    names = [name for name in schema.names if not name.startswith(_NAMELESS_INDEX)]
    check_names(names, path)  # pyarrow selects by name, and fails where there are two
    fields = [*(schema.field(name) for name in names), *((name, pa.int64()) for name, _, _ in _counters(schema))]
    return pa.schema(fields)


def _batches(path: Path, file: pq.ParquetFile, names: list[str], rows: int) -> Iterator[pa.RecordBatch]:
    """The batches of a file, of few rows where the footer says that rows are long, or a dictionary has a long text."""
    texts = [field.name for field in file.schema_arrow if field.name in names and _is_text(field.type)]
    with pq.ParquetFile(path, read_dictionary=texts) as dictionaries:
        for group in range(file.num_row_groups):
            described = file.metadata.row_group(group)
            row_bytes = described.total_byte_size // max(1, described.num_rows)
            first = next(dictionaries.iter_batches(1, [group], texts), None) if texts else None
            for column in [] if first is None else first.columns:
                row_bytes += pc.max(pc.binary_length(column.dictionary)).as_py() or 0
            few = min(rows, max(1, _BATCH_BYTES // max(1, row_bytes)))
            yield from file.iter_batches(few, [group], names)


def _is_text(kind: pa.DataType) -> bool:
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(value) or pa.types.is_large_string(value) or pa.types.is_string_view(value))


def _counters(schema: pa.Schema) -> list[tuple[str, int, int]]:
    """Name, start and step of each index that is a counter; none where the metadata is not as pandas writes it."""
    try:
        described = [each for each in (schema.pandas_metadata or {})["index_columns"] if isinstance(each, dict)]
        ranges = [each for each in described if each["kind"] == "range" and each["name"] is not None]
        counters = [(str(each["name"]), int(each["start"]), int(each["step"])) for each in ranges]
    except (ValueError, LookupError, TypeError, OverflowError):
        return []
    return [each for each in counters if abs(each[1]) <= _MAX_START and abs(each[2]) <= _MAX_STEP]


def _as_table(batch: pa.RecordBatch) -> pa.Table:
    batch.validate(full=True)  # a string of a file may be no text: nothing after this looks
    return pa.Table.from_batches([batch])


def rows_from_frame(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a frame as a client sends them: one mapping a row, of values that ``json_value`` makes.

    Levels of the index that have a name are columns too, unless a column is called so.

    Raises:
        DataProcessingError: Two columns have one name.
    """
    frame = with_index(frame)
    names = [str(name) for name in frame.columns]
    check_names(names, "The table")
    columns = [[json_value(value) for value in frame.iloc[:, i].tolist()] for i in range(len(names))]
    if not columns:
        return [{} for _ in range(len(frame))]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def with_index(frame: pd.DataFrame) -> pd.DataFrame:
    """A frame with the levels of its index that have a name as columns, unless a column is called so."""
    names = [str(name) for name in frame.columns]
    levels = [name for name in frame.index.names if name is not None and str(name) not in names]
    return frame.reset_index(level=levels) if levels else frame


def json_value(value: Any) -> Any:
    """A value as a client sends it, so that a server reads what ``ml_core.domain.values`` reads of the value itself.

    Missing values are None; dates and times are ISO 8601 strings; infinities and whole numbers of more than 64 bits are
    their text. A value of a type that no column holds is an object that names the type, so that a server refuses it by
    row and column, or ignores it in a column that the model does not have.
    """
    if isinstance(value, np.generic) and not isinstance(value, np.datetime64):
        value = value.item()
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value) if -(2**63) <= value < 2**64 else str(int(value))
    if is_missing(value):
        return None
    if isinstance(value, str | np.datetime64 | UUID):
        return str(value)
    if isinstance(value, float | Decimal):
        return float(value) if math.isfinite(value) else str(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(name): json_value(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(inner) for inner in value]
    return {type(value).__name__: str(value)[:_SHOWN_CHARACTERS]}
