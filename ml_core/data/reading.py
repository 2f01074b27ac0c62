"""Reading a user's table: CSV or Parquet, with an error that says what to do for each way in which that fails."""

from __future__ import annotations

import csv
import gzip
import math
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any, TextIO
from uuid import UUID

import numpy as np
import pandas as pd
import pyarrow as pa

from ml_core.data.csv_file import CsvFile
from ml_core.domain.values import is_missing
from ml_core.exceptions import DataProcessingError

SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")
# What separates the cells of files that are called .csv; a comma wins where several would do.
_DELIMITERS = (",", ";", "\t", "|")
_LINES_LOOKED_AT = 20
_SHOWN_CHARACTERS = 80


def read_table(path: Path, *, encoding: str = "utf-8") -> pd.DataFrame:
    """The table in a file, as pandas reads it.

    A CSV may be separated by commas, semicolons, tabs or bars: by whichever splits its first lines alike. Where it is
    the semicolon, ``1,5`` is one and a half. A column of numbers with a leading zero (``01234``) or written as phone
    numbers are (``+4930123456``) stays one of strings. Among numbers and booleans the words of
    ``ml_core.domain.values.MISSING_STRINGS`` are missing, elsewhere they are strings. Nameless columns without any
    value, which a comma at the end of each line makes, are left out.

    Args:
        path: A file that ends in one of ``SUFFIXES``.
        encoding: Of a CSV.

    Returns:
        ``(n_rows, n_columns)`` with at least one row; the index counts from 0.

    Raises:
        DataProcessingError: The file is missing, empty, of an unknown kind, not in ``encoding`` or not a table, has no
            row, or has two columns of one name. ``stage`` is ``read``.
    """
    path = Path(path)
    if not path.name.lower().endswith(SUFFIXES):
        raise _error(f"{path} is not a file of a known kind.", f"Use one of {', '.join(SUFFIXES)}.")
    with reading(path, encoding):
        if not path.stat().st_size:
            raise _error(f"{path} is empty.", "It needs a line of column names and rows below it.")
        is_parquet = path.name.lower().endswith(".parquet")
        frame = _read_parquet(path) if is_parquet else _read_csv(path, encoding)
    _check(frame, path)
    return frame.reset_index(drop=True)


@contextmanager
def reading(path: Path, encoding: str) -> Iterator[None]:
    """Turn what a file can do wrong into an error of ours, see ``read_table``."""
    try:
        yield
    except FileNotFoundError as error:
        raise _error(f"There is no file {path}.", "Check the path.") from error
    except IsADirectoryError as error:
        raise _error(f"{path} is a folder.", "Name a file in it.") from error
    except UnicodeError as error:
        other = "latin-1" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else "utf-8"
        raise _error(
            f"{path} is not {encoding}: {error}.",
            f"Give its encoding, such as --encoding {other}, or save it as UTF-8.",
        ) from error
    except LookupError as error:
        raise _error(f"{encoding!r} is not an encoding.", "Use one such as utf-8, latin-1 or cp1252.") from error
    except pd.errors.EmptyDataError as error:
        raise _error(f"{path} has no columns.", "It needs a line of column names and rows below it.") from error
    except (pd.errors.ParserError, pd.errors.ParserWarning, csv.Error) as error:
        raise _no_table(path, error) from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise _error(f"{path} is not a complete gzip file: {error}.", "Compress it again.") from error
    except pa.ArrowException as error:
        raise _error(f"{path} is not a Parquet file that can be read: {error}.", "Write it again.") from error
    except OSError as error:
        raise _error(
            f"{path} can't be read: {error.strerror or error}.", "Check its permissions and its disk."
        ) from error


def _no_table(path: Path, error: Exception) -> DataProcessingError:
    if isinstance(error, pd.errors.ParserWarning):
        return _error(
            f"{path} has lines with more cells than its first line has names.",
            "Give each column a name in the first line.",
        )
    return _error(
        f"{path} is not a table: {str(error).strip()}.",
        "Each line needs as many cells as the first; quote cells with commas.",
    )


def _read_parquet(path: Path) -> pd.DataFrame:
    return pd.read_parquet(path, engine="pyarrow")


def _read_csv(path: Path, encoding: str) -> pd.DataFrame:
    frame = open_csv(path, encoding).read()
    nameless = [name for name in frame.columns if is_nameless(name) and frame[name].isna().all()]
    return frame.drop(columns=nameless)


def is_nameless(column: Any) -> bool:
    """Whether a column of a CSV has no name of its own; what then stands for it is pandas'."""
    return str(column).startswith("Unnamed: ")


def open_csv(path: Path, encoding: str) -> CsvFile:
    """A CSV file with its delimiter, which its first lines tell.

    Raises:
        DataProcessingError: Two columns have one name.
    """
    # A file saved by Excel begins with a byte order mark, which is no part of the first column's name.
    encoding = "utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding
    with _open(path, encoding) as lines:
        head = list(islice(lines, _LINES_LOOKED_AT))
    delimiter = "\t" if ".tsv" in path.name.lower() else guess_delimiter(head)
    _check_names(next(csv.reader(head, delimiter=delimiter), []), path)
    return CsvFile(path, encoding, delimiter)


def _open(path: Path, encoding: str) -> TextIO:
    if path.name.lower().endswith(".gz"):
        return gzip.open(path, "rt", encoding=encoding, newline="")
    return path.open(encoding=encoding, newline="")


def guess_delimiter(head: list[str]) -> str:
    """What separates the cells: of ``, ; tab |`` the one that splits the lines into the most cells, all alike.

    Args:
        head: The first lines, the column names among them.
    """
    best, cells = ",", 1
    for delimiter in _DELIMITERS:
        rows = [row for row in csv.reader(head, delimiter=delimiter) if row]
        counts = Counter(len(row) for row in rows[:-1] or rows)  # the last may be cut within a quoted cell
        if len(counts) == 1 and (width := next(iter(counts))) > cells:
            best, cells = delimiter, width
    return best


def _check_names(names: list[str], path: Path) -> None:
    """Two columns of one name: pandas would rename the second, and then no request could fill it."""
    counts = Counter(name for name in names if name)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise _error(f"{path} has several columns called {twice[0]!r}.", _remedy_for(twice[0]), column=twice[0])


def _remedy_for(name: str) -> str:
    if name.lstrip("-").replace(".", "", 1).isdigit():
        return "Its first line seems to hold values: put a line of column names above it."
    return "Rename all but one of them."


def _check(frame: pd.DataFrame, path: Path) -> None:
    _check_names([str(name) for name in frame.columns], path)
    if not len(frame):
        raise _error(f"{path} has column names but no row.", "Add rows.")


def rows_from_frame(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a frame as a client sends them: one mapping a row, of values that ``json_value`` makes.

    Levels of the index that have a name are columns too, unless a column is called so.

    Raises:
        DataProcessingError: Two columns have one name.
    """
    names = [str(name) for name in frame.columns]
    levels = [name for name in frame.index.names if name is not None and str(name) not in names]
    if levels:
        frame = frame.reset_index(level=levels)
        names = [str(name) for name in frame.columns]
    if len(set(names)) < len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise _error(f"The table has several columns called {twice!r}.", _remedy_for(twice), column=twice)
    columns = [[json_value(value) for value in frame.iloc[:, i].tolist()] for i in range(len(names))]
    if not columns:
        return [{} for _ in range(len(frame))]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


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


def _error(message: str, remedy: str, **attributes: Any) -> DataProcessingError:
    return DataProcessingError(message, remedy=remedy, stage="read", **attributes)
