"""The evidence on which a column's kind is judged, and the judgement.

Numbers, booleans and datetimes are told by their dtype or, in columns of Python objects, by their type. Strings are
told by what they say: numbers, datetimes, codes that repeat (a category), words (a text) or a different code in each
row (an identifier).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

import numpy as np
import pandas as pd

from ml_core.domain.columns import ColumnKind
from ml_core.domain.values import DoesNotFitError, category_text, is_missing, read_datetime, read_number, says_nothing
from ml_core.exceptions import DataProcessingError

# Strings of at most so many distinct values, each on average at least twice, repeat: they are categories.
FEW = 50
# A column of mixed types is a category only when it has very few values; more is more likely an accident.
FEW_MIXED = 20
# Below so many rows, all values being different says little.
MIN_ROWS_FOR_IDENTIFIER = 20
# The share of different values from which single words are identifiers, as guide: almost no category repeats so little.
IDENTIFIER_SHARE = 0.95
# Words a value, on average, that make a text: of values that repeat (categories such as "Bank transfer (automatic)"
# have three), and of values that mostly do not (names of places have one or two).
TEXT_WORDS_REPEATING = 4.0
TEXT_WORDS = 2.0
# Values looked at for words and date forms; evenly spaced, so sorted files are no trap.
SAMPLE = 5_000
# The share of strings that must be of a form for the others to count as mistakes in it.
NEARLY_ALL = 0.9

_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_ID_NAME = re.compile(r"(?:^|[_\s.-])(?:id|uuid|guid|rowid|rownames|index)$|[a-z](?:Id|ID)$|^Unnamed: \d+$", re.ASCII)
# Dates that can be read in several ways (01/02/2026), depend on a language (Jan 1, 2026) or name a period (2026Q1).
_MONTH_NAME = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]{0,6}\.?"
_OTHER_DATE = re.compile(
    r"\d{1,2}[/-]\d{1,2}[/-](?:\d{4}|\d{2})(?:[ T,].*)?"
    rf"|(?:[a-z]{{3,9}},? )?(?:\d{{1,2}}[ -]{_MONTH_NAME}[ -]\d{{2,4}}|{_MONTH_NAME}[ -]\d{{1,2}},?[ -]\d{{4}})(?: .*)?"
    rf"|{_MONTH_NAME}[ /'-]?\d{{2,4}}|\d{{4}}[ -]{_MONTH_NAME}|\d{{4}}[ :-]?q[1-4]|q[1-4][ :/-]?\d{{4}}",
    re.ASCII | re.IGNORECASE,
)
_WRITTEN_NUMBER = re.compile(r"[-+(]?[$€£]?\s?\d[\d.,'\s]*\s?[%$€£]?\)?", re.ASCII)

TypeName = Literal["string", "number", "boolean", "datetime", "code"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """A kind and why; None is a column that can't be used."""

    kind: ColumnKind | None
    reason: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """A column without its missing values.

    Attributes:
        name: The column's name.
        values: The values that are not missing; the index holds their row positions.
        n_rows: Rows of the table.
    """

    name: str
    values: pd.Series[Any]
    n_rows: int

    @classmethod
    def of(cls, name: str, series: pd.Series[Any]) -> Evidence:
        """The evidence of a series."""
        series = series.reset_index(drop=True)
        if isinstance(series.dtype, pd.CategoricalDtype):
            missing = [v for v in series.cat.categories if isinstance(v, str) and says_nothing(v)]
            present = series.notna() & ~series.isin(missing)
        elif _holds_objects(series):
            present = pd.Series([not _is_nothing(v) for v in series.tolist()], dtype=bool)
        else:
            present = series.notna()
        return cls(name, series[present.to_numpy(dtype=bool)], len(series))

    @property
    def n_missing(self) -> int:
        """Rows without a value."""
        return self.n_rows - len(self.values)

    @property
    def n_distinct(self) -> int:
        """Different values."""
        return int(self.values.nunique())

    def counts(self) -> Iterator[tuple[Any, int]]:
        """Each different value and how often it occurs. Equal values of several types (1 and True) stay apart."""
        if pd.api.types.is_object_dtype(self.values.dtype):
            typed = Counter((type(value), value) for value in self.values.tolist())
            yield from ((value, count) for (_, value), count in typed.items())
        else:
            tally = self.values.value_counts()
            yield from ((value, int(count)) for value, count in zip(tally.index.tolist(), tally, strict=True) if count)

    def sample(self) -> list[Any]:
        """At most ``SAMPLE`` values, evenly spaced."""
        return self.values.iloc[:: max(1, -(-len(self.values) // SAMPLE))].tolist()

    def error(self, message: str, remedy: str) -> DataProcessingError:
        """An error about this column."""
        return DataProcessingError(f"Column {self.name!r} {message}", remedy=remedy, column=self.name, stage="infer")


def _is_nothing(value: Any) -> bool:
    return says_nothing(value) if isinstance(value, str) else is_missing(value)


def _holds_objects(series: pd.Series[Any]) -> bool:
    dtype = series.dtype
    is_string = isinstance(dtype, pd.StringDtype) or (isinstance(dtype, pd.ArrowDtype) and dtype.type is str)
    return is_string or pd.api.types.is_object_dtype(dtype)


def judge(evidence: Evidence) -> Verdict:
    """The kind of a column that has values.

    Raises:
        DataProcessingError: Values of mixed types, of a type that no kind holds, or infinite.
    """
    dtype = evidence.values.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return _unless_constant(evidence, ColumnKind.CATEGORY)
    if _holds_objects(evidence.values):
        return _judge_objects(evidence)
    if pd.api.types.is_bool_dtype(dtype):
        return _unless_constant(evidence, ColumnKind.BOOLEAN)
    if pd.api.types.is_complex_dtype(dtype):
        raise evidence.error("holds complex numbers.", "Split it into real and imaginary part.")
    if pd.api.types.is_numeric_dtype(dtype):
        return _judge_numbers(evidence)
    if pd.api.types.is_datetime64_any_dtype(dtype):
        return _unless_constant(evidence, ColumnKind.DATETIME)
    if pd.api.types.is_timedelta64_dtype(dtype):
        raise evidence.error("holds durations.", "Give them as numbers: frame[column].dt.total_seconds().")
    return _judge_objects(evidence)


def _unless_constant(evidence: Evidence, kind: ColumnKind, detail: str | None = None) -> Verdict:
    distinct = evidence.n_distinct
    if distinct == 1 and not evidence.n_missing:
        return Verdict(None, f"every value is {_shown(evidence.values.iloc[0])}")
    return Verdict(kind, detail or f"{distinct:,} distinct value{'s' if distinct > 1 else ''}")


def _judge_numbers(evidence: Evidence) -> Verdict:
    numbers = evidence.values.to_numpy(dtype=np.float64, na_value=np.nan)
    infinite = np.flatnonzero(np.isinf(numbers))
    if len(infinite):
        raise evidence.error(
            f"has {len(infinite)} infinite values, the first in row {evidence.values.index[infinite[0]]}.",
            "Replace them by a number or by a missing value.",
        )
    if _ID_NAME.search(evidence.name) and evidence.n_distinct == evidence.n_rows > 2 and (numbers % 1 == 0).all():
        return Verdict(None, "an identifier by its name, with a different number in every row")
    return _unless_constant(evidence, ColumnKind.NUMBER, f"{numbers.min():g} to {numbers.max():g}")


def _judge_objects(evidence: Evidence) -> Verdict:
    values = evidence.values.tolist()
    types = Counter(_type_name(evidence, value) for value in values)
    if types.keys() == {"string"}:
        return _judge_strings(evidence, values)
    if types.keys() == {"boolean"}:
        return _unless_constant(evidence, ColumnKind.BOOLEAN)
    if types.keys() <= {"number", "boolean"}:
        return _judge_numbers(Evidence(evidence.name, evidence.values.map(float), evidence.n_rows))
    if types.keys() == {"datetime"}:
        return _unless_constant(evidence, ColumnKind.DATETIME)
    if types.keys() == {"code"}:
        return Verdict(None, "an identifier: UUIDs")
    return _judge_mixed(evidence, values, types)


def _type_name(evidence: Evidence, value: Any) -> TypeName:
    if isinstance(value, str):
        return "string"
    if isinstance(value, bool | np.bool_):
        return "boolean"
    if isinstance(value, int | float | np.number | Decimal) and not isinstance(value, np.complexfloating):
        return "number"
    if isinstance(value, date | np.datetime64):
        return "datetime"
    if isinstance(value, UUID):
        return "code"
    raise evidence.error(
        f"holds values of type {type(value).__name__}, such as {_shown(value)}.",
        "Turn them into numbers, strings or datetimes, or drop the column.",
    )


def _judge_mixed(evidence: Evidence, values: list[Any], types: Counter[TypeName]) -> Verdict:
    for kind, read in ((ColumnKind.NUMBER, read_number), (ColumnKind.DATETIME, read_datetime)):
        if all(_fits(read, value) for value in values):
            return _unless_constant(evidence, kind)
    distinct = len({category_text(value) for value in values})
    if distinct <= FEW_MIXED and distinct <= len(values) / 2:
        return Verdict(ColumnKind.CATEGORY, f"{distinct} distinct values of several types")
    common, rare = types.most_common()[0][0], types.most_common()[-1][0]
    row = next(i for i, value in enumerate(values) if _type_name(evidence, value) == rare)
    counts = " and ".join(f"{count:,} {name}s" for name, count in types.most_common())
    raise evidence.error(
        f"mixes {counts}; row {evidence.values.index[row]} is {_shown(values[row])}.",
        f"Make all of them {common}s, name the column's kind (a category takes all types), or drop the column.",
    )


def _judge_strings(evidence: Evidence, values: list[str]) -> Verdict:
    distinct = evidence.n_distinct
    if distinct == 1:
        return _unless_constant(evidence, ColumnKind.CATEGORY)
    sample = evidence.sample()
    if (verdict := _numbers_or_datetimes(evidence, values, sample)) is not None:
        return verdict
    words = sum(_count_words(text) for text in sample) / len(sample)
    repeats = distinct <= FEW and distinct <= len(values) / 2
    if words >= (TEXT_WORDS_REPEATING if repeats else TEXT_WORDS):
        return Verdict(ColumnKind.TEXT, f"{words:.1f} words on average, {distinct:,} distinct values")
    if not repeats and len(values) >= MIN_ROWS_FOR_IDENTIFIER and distinct >= IDENTIFIER_SHARE * len(values):
        return Verdict(None, f"an identifier: {distinct:,} different codes in {len(values):,} rows{_hint(sample)}")
    return Verdict(ColumnKind.CATEGORY, f"{distinct:,} distinct values{_hint(sample)}")


def _numbers_or_datetimes(evidence: Evidence, values: list[str], sample: list[str]) -> Verdict | None:
    """The verdict on strings that are numbers or datetimes, None on others.

    Raises:
        DataProcessingError: Nearly all are numbers or datetimes, but some can't be read.
    """
    if all(_is_plain_number(text) for text in sample) and all(_is_plain_number(text) for text in values):
        numbers = Evidence(evidence.name, evidence.values.map(float), evidence.n_rows)
        return _judge_numbers(numbers)
    if evidence.n_distinct > FEW_MIXED and _share(sample, lambda text: _fits(read_number, text)) >= NEARLY_ALL:
        _refuse_mixture(evidence, values)
    if _share(sample, lambda text: _fits(read_datetime, text)) >= NEARLY_ALL:
        bad = [i for i, text in enumerate(values) if not _fits(read_datetime, text)]
        if not bad:
            return _unless_constant(evidence, ColumnKind.DATETIME)
        raise evidence.error(
            f"holds datetimes, but {len(bad):,} of {len(values):,} can't be read; "
            f"row {evidence.values.index[bad[0]]} is {_shown(values[bad[0]])}.",
            "Correct them, leave them empty, name the column's kind, or drop the column.",
        )
    if _share(sample, lambda text: _OTHER_DATE.fullmatch(text.strip()) is not None) >= NEARLY_ALL:
        return Verdict(
            None,
            f"dates such as {_shown(sample[0])} are of no form that is read in one way only; write them as ISO 8601 "
            "(2026-01-31), in training data and in requests",
        )
    return None


def _refuse_mixture(evidence: Evidence, values: list[str]) -> None:
    """Refuse numbers with a few words among them; codes of digits alone (``007``) are no mixture.

    Raises:
        DataProcessingError: There is a word; names its row.
    """
    words = [i for i, text in enumerate(values) if not _fits(read_number, text)]
    if words:
        raise evidence.error(
            f"mixes {len(values) - len(words):,} numbers and {len(words):,} other texts; "
            f"row {evidence.values.index[words[0]]} is {_shown(values[words[0]])}.",
            "Correct them, leave them empty, name the column's kind (a category takes all), or drop the column.",
        )


def _is_plain_number(text: str) -> bool:
    """Whether a string is a number and not a code with leading zeros, such as ``007``."""
    return _fits(read_number, text) and not (text.strip()[:1] == "0" and text.strip()[1:2].isdigit())


def _fits(read: Any, value: Any) -> bool:
    try:
        read(value)
    except DoesNotFitError:
        return False
    return True


def _share(values: list[str], test: Any) -> float:
    return sum(1 for value in values if test(value)) / len(values)


def _count_words(text: str) -> float:
    """Words between spaces; in a script without spaces, two characters count as one."""
    return max(len(text.split()), len(_CJK.findall(text)) / 2)


def _hint(sample: list[str]) -> str:
    if _share(sample, lambda text: _WRITTEN_NUMBER.fullmatch(text.strip()) is not None) < NEARLY_ALL:
        return ""
    return f"; {_shown(sample[0])} looks like a number, which has to be written plainly, such as 1234.5"


def _shown(value: Any) -> str:
    text = repr(value.item() if isinstance(value, np.generic) else value)
    return text if len(text) <= 40 else f"{text[:37]}…"
