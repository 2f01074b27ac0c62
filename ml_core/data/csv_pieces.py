"""A CSV file larger than memory, in pieces that together are the table that ``read_table`` would give.

What a column is, all of its cells tell: one ``01234`` in the last line makes strings of the whole column. So the file
is read twice, once to learn the columns' types and once for the values, with the very parser that reads small files.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ml_core.data.csv_file import CODE, COMMA_NUMBER, NUMBER, CsvFile
from ml_core.data.reading import SUFFIXES, is_nameless, open_csv, reading
from ml_core.data.table_file import group_rows
from ml_core.data.tables import stored_schema
from ml_core.domain.values import BOOLEAN_STRINGS, MISSING_STRINGS
from ml_core.exceptions import DataProcessingError

LARGE_BYTES = 256 * 2**20
"""A CSV file above this is read in pieces, which takes four times as long and 80 MB. A file of this size with texts
takes 0.7 GB as a data frame (measured on 3,000,000 rows of six columns)."""
_GZIP_RATIO = 8  # of a table of text, roughly

# What pandas takes for a number beside the platform's own grammar.
_INFINITY = r"(?:[+-]?(?i:inf(?:inity)?))"
_WHOLE = r"^\s*[+-]?[0-9]+\s*$"
_LONG = 18  # characters of a whole number that may need more than 63 bits
_SPACE = r"^\s+$"
_MISSING = pa.array(sorted(MISSING_STRINGS))
_BOOLEANS = pa.array(sorted(BOOLEAN_STRINGS))
_TRUE = pa.array([text for text, number in BOOLEAN_STRINGS.items() if number])


def is_large(path: Path) -> bool:
    """Whether a file is better read in pieces; False where there is none."""
    if not path.is_file() or not path.name.lower().endswith(SUFFIXES):
        return False
    ratio = _GZIP_RATIO if path.name.lower().endswith(".gz") else 1
    return path.stat().st_size * ratio > LARGE_BYTES


def read_pieces(path: Path, encoding: str, rows: int | None = None) -> Iterator[pa.Table]:
    """The table of a CSV file in pieces of stored types; the first has no row and tells the schema.

    Args:
        path: The file.
        encoding: Of the file.
        rows: Rows of a piece; None: as many as a row group of the stored file has.

    Yields:
        ``(n, n_columns)``.

    Raises:
        DataProcessingError: As ``read_table``.
    """
    with reading(path, encoding), warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)  # "leads to a loss of data"
        file = open_csv(path, encoding)
        names = [str(name) for name in file.parse(nrows=0).columns]
        rows = rows or group_rows(len(names))
        columns = _learn(file, names, rows)
        kept = [column for column in columns if column.has_value or not is_nameless(column.name)]
        schema = stored_schema(pa.schema([(column.name, column.type) for column in kept]))
        yield schema.empty_table()
        with file.parse(chunksize=rows, dtype={c.name: c.parsed_as for c in columns}) as pieces:
            for piece in pieces:
                arrays = [column.values(piece[column.name]) for column in kept]
                yield pa.table(arrays, schema=schema)


def _learn(file: CsvFile, names: list[str], rows: int) -> list[_Column]:
    columns = [_Column(name, file.decimal) for name in names]
    n_rows = 0
    with file.parse(chunksize=rows, dtype="str") as pieces:
        for piece in pieces:
            n_rows += len(piece)
            for position, column in enumerate(columns):
                column.look_at(pa.array(piece.iloc[:, position], pa.string(), from_pandas=True))
    if not n_rows:
        raise DataProcessingError(f"{file.path} has column names but no row.", remedy="Add rows.", stage="read")
    return columns


@dataclass(slots=True)
class _Column:
    """What the cells of a column have in common so far; each flag can only fall, or only rise."""

    name: str
    decimal: str
    has_value: bool = False
    has_missing: bool = False
    has_code: bool = False
    # Of the cells that are not empty: whether all are such.
    are: dict[str, bool] = field(default_factory=lambda: dict.fromkeys(("whole", "number"), True))
    # The same, with words for missing let pass.
    has_said: bool = False
    are_but_for_words: dict[str, bool] = field(default_factory=lambda: dict.fromkeys(("number", "boolean"), True))
    range: tuple[int, int] = (0, 0)

    def look_at(self, cells: Any) -> None:
        """Take in a piece of the column: ``(n,)`` strings, null where empty."""
        self.has_missing |= cells.null_count > 0
        cells = cells.drop_null()
        if not len(cells):
            return
        self.has_value = True
        self.has_code = self.has_code or _any(pc.match_substring_regex(cells, CODE))
        own = (COMMA_NUMBER if self.decimal == "," else NUMBER).pattern
        for what, pattern in (("whole", _WHOLE), ("number", f"^(?:{own}|{_INFINITY})$")):
            self.are[what] = self.are[what] and _all(pc.match_substring_regex(cells, pattern))
        if self.are["whole"]:
            self._widen(cells)
        said = cells.filter(pc.invert(pc.or_(pc.is_in(cells, _MISSING), pc.match_substring_regex(cells, _SPACE))))
        if len(said):
            self.has_said = True
            self.are_but_for_words["boolean"] &= _all(pc.is_in(said, _BOOLEANS))
            self.are_but_for_words["number"] &= _all(pc.match_substring_regex(said, f"^(?:{own})$"))

    def _widen(self, cells: Any) -> None:
        """The range of whole numbers, as far as it is beyond 63 bits or tells a sign."""
        if pc.max(pc.utf8_length(cells)).as_py() < _LONG:
            found = [-1] if self.range[0] == 0 and _any(pc.match_substring(cells, "-")) else [0]
        else:
            found = [int(cell) for cell in cells.to_pylist()]
        self.range = min(self.range[0], *found), max(self.range[1], *found)

    @property
    def type(self) -> Any:
        """The Arrow type of the column's values."""
        if not self.has_value:
            return pa.float64()
        if self.are["number"] or self.are["whole"]:
            return pa.string() if self.has_code else self._numeric()
        if self.are_but_for_words["boolean"] and self.has_said:
            return pa.bool_()
        is_number = self.has_said and self.are_but_for_words["number"] and not self.has_code
        return pa.float64() if is_number else pa.string()

    def _numeric(self) -> Any:
        if not self.are["whole"] or self.has_missing:
            return pa.float64()
        if self._fits_int64:
            return pa.int64()
        lowest, highest = self.range
        if lowest >= 0 and highest < 2**64:
            return pa.uint64()
        return pa.float64() if lowest >= -(2**63) and highest < 2**64 else pa.string()

    @property
    def _fits_int64(self) -> bool:
        return self.range[0] >= -(2**63) and self.range[1] < 2**63

    @property
    def parsed_as(self) -> str:
        """The dtype that the parser gives the column's cells."""
        has_words = self.has_value and not (self.are["number"] or self.are["whole"])
        is_beyond = self.type == pa.float64() and self.are["whole"] and not self._fits_int64
        as_text = has_words or is_beyond or self.type == pa.string()
        return "str" if as_text else str(self.type).replace("double", "float64")

    def values(self, cells: pd.Series[Any]) -> Any:
        """A piece of the column's values, of ``(n,)`` cells as the parser gave them."""
        values = pa.array(cells, from_pandas=True)
        if self.parsed_as != "str":
            return values.cast(self.type)
        values = values.cast(pa.string())
        if self.type == pa.string():
            return values
        means = pc.invert(pc.or_(pc.is_in(values, _MISSING), pc.match_substring_regex(values, _SPACE)))
        said = pc.if_else(pc.and_(pc.is_valid(values), means), values, None)
        if self.type == pa.bool_():
            return pc.if_else(pc.is_valid(said), pc.is_in(said, _TRUE), None)
        return pa.array([None if t is None else float(t.replace(",", ".")) for t in said.to_pylist()], pa.float64())


def _all(flags: Any) -> bool:
    return bool(pc.all(flags).as_py())


def _any(flags: Any) -> bool:
    return bool(pc.any(flags).as_py())
