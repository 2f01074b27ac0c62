"""The kind of a column of strings: numbers, booleans, datetimes, a category (values repeat), a text, or identifiers.

``01/02/2026`` alone can be read in two ways. A column in which some first number is above 12 and no second one gives
the day first, and vice versa; without such a date the order of the column is unknown.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ml_core.data.cells import CODE, cells_of, count_infinite, literals
from ml_core.data.evidence import Evidence, Inference, fits, infer_numbers, unless_constant
from ml_core.domain.columns import ColumnKind, DateOrder
from ml_core.domain.values import ordered_date, read_comma_number, read_datetime, read_number, zone_name
from ml_core.exceptions import shown

# Strings of at most so many distinct values, each on average at least twice, repeat: they are categories.
FEW = 50
# A column of mixed types is a category only when it has very few values; more is more likely an accident.
FEW_MIXED = 20
# Below so many rows, all values being different proves little.
MIN_ROWS_FOR_IDENTIFIER = 20
# The share of different values from which single words are identifiers, such as a guid: almost no category repeats so
# little.
IDENTIFIER_SHARE = 0.95
# Words a value, on average, that make a text: of values that repeat (categories such as "Bank transfer (automatic)"
# have three), and of values that mostly do not (names of places have one or two).
TEXT_WORDS_REPEATING = 4.0
TEXT_WORDS = 2.0
# The share of strings that must be of a form for the others to count as mistakes in it.
NEARLY_ALL = 0.9

_WRITE_ISO = "write them as ISO 8601 (2026-01-31), in training data and in requests"
_MONTHS = 12
_ORDER_IN_WORDS = {DateOrder.DAY_FIRST: "the day first", DateOrder.MONTH_FIRST: "the month first"}
_CODE = re.compile(CODE, re.ASCII)
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
# What every date of an unknown order contains; read by RE2, which is 50 times as fast as the row reader.
_MAYBE_ORDERED = r"(?:^|[^0-9])[0-9]{1,2}[/-][0-9]{1,2}[/-]"
# Dates that can be read in several ways (01/02/2026), depend on a language (Jan 1, 2026) or name a period (2026Q1).
_MONTH_NAME = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]{0,6}\.?"
_OTHER_DATE = re.compile(
    r"\d{1,2}[/-]\d{1,2}[/-](?:\d{4}|\d{2})(?:[ T,].*)?"
    rf"|(?:[a-z]{{3,9}},? )?(?:\d{{1,2}}[ -]{_MONTH_NAME}[ -]\d{{2,4}}|{_MONTH_NAME}[ -]\d{{1,2}},?[ -]\d{{4}})(?: .*)?"
    rf"|{_MONTH_NAME}[ /'-]?\d{{2,4}}|\d{{4}}[ -]{_MONTH_NAME}|\d{{4}}[ :-]?q[1-4]|q[1-4][ :/-]?\d{{4}}",
    re.ASCII | re.IGNORECASE,
)
_WRITTEN_NUMBER = re.compile(r"[-+(]?[$€£]?\s?\d[\d.,'\s]*\s?[%$€£]?\)?", re.ASCII)


def infer_strings(evidence: Evidence, values: list[str]) -> Inference:
    """The kind of a column of strings.

    Raises:
        DataProcessingError: Nearly all values are numbers or datetimes, but some can't be read.
    """
    distinct = evidence.n_distinct
    cells = cells_of(evidence.values)
    if cells is not None and (found := _numbers_or_booleans(evidence, cells)) is not None:
        return found
    if distinct == 1:
        return unless_constant(evidence, ColumnKind.CATEGORY)
    sample = evidence.sample()
    if distinct > FEW_MIXED and not any(map(is_code, sample)):
        _refuse_mixture(evidence, values, sample)
    if (found := _datetimes(evidence, values, sample)) is not None:
        return found
    words = sum(_count_words(text) for text in sample) / len(sample)
    repeats = distinct <= FEW and distinct <= len(values) / 2
    if words >= (TEXT_WORDS_REPEATING if repeats else TEXT_WORDS):
        return Inference(ColumnKind.TEXT, f"{words:.1f} words on average, {distinct:,} distinct values")
    form, hint = _form_of_codes(values) or ("", _hint(sample))
    if not repeats and len(values) >= MIN_ROWS_FOR_IDENTIFIER and distinct >= IDENTIFIER_SHARE * len(values):
        return Inference(None, f"an identifier: {distinct:,} different codes{form} in {len(values):,} rows{hint}")
    return Inference(ColumnKind.CATEGORY, f"{distinct:,} {'codes' if form else 'distinct values'}{form}{hint}")


def is_code(text: str) -> bool:
    """Whether a string is a number by its characters but written as codes are, such as ``007`` or ``+4930123456``."""
    return _CODE.match(text) is not None and fits(read_number, text)


def _form_of_codes(values: list[str]) -> tuple[str, str] | None:
    """Why the strings count as codes, and what to do if they are quantities; None for other strings."""
    code = next((text for text in values if is_code(text)), None)
    if code is None:
        return None
    form = " that begin with a plus sign" if code.strip()[0] == "+" else " with leading zeros"
    return form, f", such as {shown(code)}; if they are quantities, name the column's kind: number"


def _numbers_or_booleans(evidence: Evidence, cells: Any) -> Inference | None:
    """The inference for strings that are all numbers or all booleans; None for others and for codes.

    Raises:
        DataProcessingError: Some numbers are infinite.
    """
    found = literals(cells, has_commas=evidence.has_commas)
    if found is None:
        if infinite := count_infinite(cells):
            raise evidence.error(f"has {infinite} infinite values.", "Replace them by a number or by a missing value.")
        return None
    values = found.values.to_numpy(zero_copy_only=False)
    if pa.types.is_boolean(found.values.type):
        return unless_constant(replace(evidence, values=pd.Series(values)), ColumnKind.BOOLEAN)
    return replace(infer_numbers(evidence, values), decimal_comma=found.decimal_comma)


def _refuse_mixture(evidence: Evidence, values: list[str], sample: list[str]) -> None:
    """Refuse numbers with a few words among them.

    Raises:
        DataProcessingError: There is a word; names its row.
    """
    for read in (read_number, read_comma_number):
        if not _nearly_all(sample, partial(fits, read)):
            continue
        words = [i for i, text in enumerate(values) if not fits(read, text)]
        if words and not any(map(is_code, values)):
            raise evidence.error(
                f"mixes {len(values) - len(words):,} numbers and {len(words):,} other texts; "
                f"row {evidence.values.index[words[0]]} is {shown(values[words[0]])}.",
                "Correct them, leave them empty, name the column's kind (a category takes all), or drop the column.",
            )


def _datetimes(evidence: Evidence, values: list[str], sample: list[str]) -> Inference | None:
    """The inference for strings that are datetimes; None for others.

    Raises:
        DataProcessingError: Nearly all are datetimes, but some can't be read.
    """
    if _nearly_all(sample, _is_date) and (found := _dates(evidence, values)) is not None:
        return found
    if _nearly_all(sample, _has_unread_zone):
        why = f"dates such as {shown(sample[0])} name a time zone that may mean several offsets"
        return Inference(None, f"{why}; write UTC, or an offset such as +01:00")
    if _nearly_all(sample, lambda text: _OTHER_DATE.fullmatch(text.strip()) is not None):
        return Inference(None, f"dates such as {shown(sample[0])} are not in an unambiguous form; {_WRITE_ISO}")
    return None


def _dates(evidence: Evidence, values: list[str]) -> Inference | None:
    """The inference for strings of which nearly all are dates; None where too many can't be read.

    Raises:
        DataProcessingError: Some can't be read.
    """
    seen = _OrderSeen.of(evidence)
    order = seen.order
    bad = [i for i, text in enumerate(values) if not fits(partial(read_datetime, order=order), text)]
    if not bad:
        detail = f"{evidence.n_distinct:,} distinct values, {_ORDER_IN_WORDS[order]}" if order else None
        return replace(unless_constant(evidence, ColumnKind.DATETIME, detail), date_order=order)
    if len(bad) > (1 - NEARLY_ALL) * len(values):
        if seen.example is None or order:
            return None
        return Inference(None, f"{seen.doubt}; {_WRITE_ISO}")
    raise evidence.error(
        f"holds datetimes, but {len(bad):,} of {len(values):,} can't be read; "
        f"row {evidence.values.index[bad[0]]} is {shown(values[bad[0]])}.",
        "Correct them, leave them empty, name the column's kind, or drop the column.",
    )


def order_of_datetimes(evidence: Evidence) -> DateOrder | None:
    """The order of day and month in a column that is known to hold datetimes; None where none is needed.

    Raises:
        DataProcessingError: An order is needed, and the values do not determine it.
    """
    seen = _OrderSeen.of(evidence)
    if seen.example is not None and seen.order is None:
        raise evidence.error(
            f"was given the kind datetime, but the order of day and month is not known: {seen.doubt}.",
            f"Don't give its kind, or {_WRITE_ISO}.",
        )
    return seen.order


@dataclass(frozen=True, slots=True)
class _OrderSeen:
    """What dates such as ``25/12/2026`` show of their order.

    Attributes:
        example: The first such date; None without any.
        witness: For each order a date that can be read in no other.
    """

    example: str | None
    witness: dict[DateOrder, str]

    @classmethod
    def of(cls, evidence: Evidence) -> _OrderSeen:
        """What all strings of a column show."""
        cells = cells_of(evidence.values)
        if cells is None:
            values = evidence.values.tolist()
        else:
            values = cells.filter(pc.match_substring_regex(cells, _MAYBE_ORDERED)).to_pylist()
        example: str | None = None
        witness: dict[DateOrder, str] = {}
        for value in values:
            match = ordered_date(value) if isinstance(value, str) else None
            if match is None:
                continue
            example = example or value
            if int(match[1]) > _MONTHS:
                witness.setdefault(DateOrder.DAY_FIRST, value)
            if int(match[3]) > _MONTHS:
                witness.setdefault(DateOrder.MONTH_FIRST, value)
        return cls(example, witness)

    @property
    def order(self) -> DateOrder | None:
        """The order, if exactly one was seen."""
        return next(iter(self.witness)) if len(self.witness) == 1 else None

    @property
    def doubt(self) -> str:
        """Why the order is unknown."""
        if self.witness:
            day_first, month_first = self.witness[DateOrder.DAY_FIRST], self.witness[DateOrder.MONTH_FIRST]
            return f"{shown(day_first)} gives the day first, {shown(month_first)} the month"
        return f"dates such as {shown(self.example)} can be read with the day first or with the month first"


def _is_date(text: str) -> bool:
    """Whether a string is a date, if only in a column whose order of day and month is known."""
    return ordered_date(text) is not None or fits(read_datetime, text)


def _has_unread_zone(text: str) -> bool:
    name = zone_name(text)
    return name is not None and _is_date(text.strip().removesuffix(name))


def _nearly_all(values: list[str], test: Callable[[str], bool]) -> bool:
    """Whether a test holds for ``NEARLY_ALL`` values; those after the mistake that decides are not tested."""
    mistakes = (value for value in values if not test(value))
    allowed = int(len(values) - NEARLY_ALL * len(values))
    return next(islice(mistakes, allowed, None), None) is None


def _count_words(text: str) -> float:
    """Words between spaces; in a script without spaces, two characters count as one."""
    return max(len(text.split()), len(_CJK.findall(text)) / 2)


def _hint(sample: list[str]) -> str:
    if not _nearly_all(sample, lambda text: _WRITTEN_NUMBER.fullmatch(text.strip()) is not None):
        return ""
    return f"; {shown(sample[0])} looks like a number, which has to be written plainly, such as 1234.5"
