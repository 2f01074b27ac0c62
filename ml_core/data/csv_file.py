"""A CSV file, read so that its cells keep what they say.

pandas alone makes ``1234`` of ``01234``, and no number of a column with ``NA`` in it once it may not take every ``NA``,
such as Namibia's code, for missing. So columns with codes stay strings, and columns of numbers or booleans get their
dtype although words for missing stand among them.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ml_core.domain.values import BOOLEAN_STRINGS, MISSING_STRINGS, says_missing

# The key of ``DataFrame.attrs`` under which a frame names its columns of numbers that had a decimal comma.
DECIMAL_COMMA = "decimal_comma"
# A number that is a code: zero-padded, or written as phone numbers are. Read by Python and by RE2.
CODE = r"^\s*(?:0[0-9]|\+[0-9]{7,}\s*$)"

COMMA_NUMBER = re.compile(r"\s*[+-]?(?:\d+(?:,\d*)?|,\d+)(?:[eE][+-]?\d+)?\s*", re.ASCII)
NUMBER = re.compile(COMMA_NUMBER.pattern.replace(",", r"\."), re.ASCII)
_ROWS_A_PIECE = 200_000
# Cells of a column of strings that are looked at before all of them are.
_GLANCE = 100


@dataclass(frozen=True, slots=True)
class CsvFile:
    """What it takes to read the file; where the delimiter is a semicolon, ``1,5`` is one and a half."""

    path: Path
    encoding: str
    delimiter: str

    def read(self) -> pd.DataFrame:
        """The table. ``attrs[DECIMAL_COMMA]`` names the columns of numbers that had a decimal comma.

        Raises:
            pandas.errors.ParserError: It is no table.
            pandas.errors.ParserWarning: Its lines have more cells than its first line has names.
        """
        frame: pd.DataFrame = self.parse()
        dtypes = list(enumerate(frame.dtypes))
        numeric = [position for position, dtype in dtypes if dtype.kind in "iuf" and frame.iloc[:, position].count()]
        codes, commas = self._look_at(numeric) if numeric else ([], [])
        if codes:
            texts = self.parse(usecols=codes, dtype="str")
            for index, position in enumerate(codes):
                frame.isetitem(position, texts.iloc[:, index].array)
        for position, dtype in dtypes:
            if isinstance(dtype, pd.StringDtype):
                values = without_words(frame.iloc[:, position], decimal=self.decimal)
                if values is not None:
                    commas += [position] if self.decimal == "," and values.dtype.kind == "f" else []
                    frame.isetitem(position, values.array)
        frame.attrs[DECIMAL_COMMA] = [str(frame.columns[position]) for position in commas if position not in codes]
        return frame

    @property
    def decimal(self) -> str:
        """What a number's fraction begins with."""
        return "," if self.delimiter == ";" else "."

    def parse(self, **options: Any) -> Any:
        """What ``pandas.read_csv`` makes of it with the rules of this module and further options."""
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # "leads to a loss of data"
            return pd.read_csv(
                self.path,
                sep=self.delimiter,
                decimal=self.decimal,
                encoding=self.encoding,
                keep_default_na=False,  # a class may be called None, and a country's code be NA
                na_values=[""],
                low_memory=False,  # guesses dtypes in pieces, and leaves a long column half numbers, half strings
                index_col=False,  # a line that is too long is an error, not an index
                **options,
            )

    def _look_at(self, numeric: list[int]) -> tuple[list[int], list[int]]:
        """Which of the columns that pandas takes for numbers have codes, and which decimal commas, in their cells."""
        codes: set[int] = set()
        commas: set[int] = set()
        for piece in self._pieces(numeric):
            for index, position in enumerate(numeric):
                cells = pa.array(piece.iloc[:, index])
                if position not in codes and _any_matches(cells, CODE):
                    codes.add(position)
                if self.decimal == "," and position not in commas and _any_matches(cells, ","):
                    commas.add(position)
        return sorted(codes), sorted(commas)

    def _pieces(self, positions: list[int]) -> Iterator[pd.DataFrame]:
        with self.parse(usecols=positions, dtype="str", chunksize=_ROWS_A_PIECE) as pieces:
            yield from pieces


def _any_matches(cells: Any, pattern: str) -> bool:
    return bool(pc.any(pc.match_substring_regex(cells, pattern)).as_py())


def without_words(cells: pd.Series[Any], *, decimal: str = ".") -> pd.Series[Any] | None:
    """The values of a column of strings that are numbers or booleans but for words for missing.

    Args:
        cells: ``(n_rows,)`` of a string dtype.
        decimal: What a number's fraction begins with.

    Returns:
        ``(n_rows,)`` float64, or object of bool and NaN; None where other strings, codes, or nothing but words is in
        it.
    """
    pattern = COMMA_NUMBER if decimal == "," else NUMBER
    glance = cells.iloc[:: max(1, len(cells) // _GLANCE)].tolist()
    said = [cell for cell in glance if isinstance(cell, str) and not says_missing(cell)]
    if not all(cell in BOOLEAN_STRINGS or pattern.fullmatch(cell) for cell in said):
        return None
    present = cells[~(cells.isna() | cells.isin(list(MISSING_STRINGS)) | cells.str.isspace().fillna(True))]
    if present.empty:
        return None
    if present.isin(list(BOOLEAN_STRINGS)).all():
        truths = {text: bool(number) for text, number in BOOLEAN_STRINGS.items()}
        return present.map(truths).astype(object).reindex(cells.index)
    if present.str.match(CODE).any() or not present.str.fullmatch(pattern.pattern).all():
        return None
    numbers = np.array([float(text.replace(",", ".")) for text in present.tolist()], dtype=np.float64)
    return pd.Series(numbers, index=present.index, name=cells.name).reindex(cells.index)
