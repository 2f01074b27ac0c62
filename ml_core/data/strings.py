"""What a column of strings holds: numbers, datetimes, codes that repeat (a category), words (a text) or identifiers."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pandas as pd

from ml_core.data.cells import CODE, cells_of, count_infinite, decimal_of, floats, has_codes, truths
from ml_core.data.dates import NEARLY_ALL, WRITE_ISO, is_date, judge_dates
from ml_core.data.evidence import Evidence, Verdict, fits, judge_numbers, unless_constant
from ml_core.domain.columns import ColumnKind
from ml_core.domain.values import read_comma_number, read_number, zone_name
from ml_core.exceptions import shown

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

_CODE = re.compile(CODE, re.ASCII)
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
# Dates that can be read in several ways (01/02/2026), depend on a language (Jan 1, 2026) or name a period (2026Q1).
_MONTH_NAME = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]{0,6}\.?"
_OTHER_DATE = re.compile(
    r"\d{1,2}[/-]\d{1,2}[/-](?:\d{4}|\d{2})(?:[ T,].*)?"
    rf"|(?:[a-z]{{3,9}},? )?(?:\d{{1,2}}[ -]{_MONTH_NAME}[ -]\d{{2,4}}|{_MONTH_NAME}[ -]\d{{1,2}},?[ -]\d{{4}})(?: .*)?"
    rf"|{_MONTH_NAME}[ /'-]?\d{{2,4}}|\d{{4}}[ -]{_MONTH_NAME}|\d{{4}}[ :-]?q[1-4]|q[1-4][ :/-]?\d{{4}}",
    re.ASCII | re.IGNORECASE,
)
_WRITTEN_NUMBER = re.compile(r"[-+(]?[$€£]?\s?\d[\d.,'\s]*\s?[%$€£]?\)?", re.ASCII)


def judge_strings(evidence: Evidence, values: list[str]) -> Verdict:
    """The kind of a column of strings.

    Raises:
        DataProcessingError: Nearly all are numbers or datetimes, but some can't be read.
    """
    distinct = evidence.n_distinct
    cells = cells_of(evidence.values)
    verdict = None if cells is None else _numbers_or_booleans(evidence, cells)
    if verdict is not None:
        return verdict
    if distinct == 1:
        return unless_constant(evidence, ColumnKind.CATEGORY)
    sample = evidence.sample()
    _refuse_mixture(evidence, values, sample)
    if (verdict := _datetimes(evidence, values, sample)) is not None:
        return verdict
    words = sum(_count_words(text) for text in sample) / len(sample)
    repeats = distinct <= FEW and distinct <= len(values) / 2
    if words >= (TEXT_WORDS_REPEATING if repeats else TEXT_WORDS):
        return Verdict(ColumnKind.TEXT, f"{words:.1f} words on average, {distinct:,} distinct values")
    form, hint = _form_of_codes(values) or ("", _hint(sample))
    if not repeats and len(values) >= MIN_ROWS_FOR_IDENTIFIER and distinct >= IDENTIFIER_SHARE * len(values):
        return Verdict(None, f"an identifier: {distinct:,} different codes{form} in {len(values):,} rows{hint}")
    return Verdict(ColumnKind.CATEGORY, f"{distinct:,} {'codes' if form else 'distinct values'}{form}{hint}")


def is_code(text: str) -> bool:
    """Whether a string is a number by its characters but written as codes are, such as ``007`` or ``+4930123456``."""
    return _CODE.match(text) is not None and fits(read_number, text)


def _form_of_codes(values: list[str]) -> tuple[str, str] | None:
    """Why the strings count as codes, and what to do if they are not; None for other strings."""
    code = next((text for text in values if is_code(text)), None)
    if code is None:
        return None
    form = " that begin with a plus sign" if code.strip()[0] == "+" else " with leading zeros"
    return form, f", such as {shown(code)}; if they are quantities, name the column's kind: number"


def _numbers_or_booleans(evidence: Evidence, cells: Any) -> Verdict | None:
    """The verdict on strings that are all numbers or all booleans, None on others and on codes.

    Raises:
        DataProcessingError: Some numbers are infinite.
    """
    if (found := truths(cells)) is not None:
        flags = pd.Series(found.to_numpy(zero_copy_only=False))
        return unless_constant(replace(evidence, values=flags), ColumnKind.BOOLEAN)
    decimal = decimal_of(cells, has_commas=evidence.has_commas)
    if decimal is None:
        if infinite := count_infinite(cells):
            raise evidence.error(f"has {infinite} infinite values.", "Replace them by a number or by a missing value.")
        return None
    if has_codes(cells):
        return None
    found = floats(cells, decimal_comma=decimal == ",").to_numpy(zero_copy_only=False)
    return replace(judge_numbers(evidence, found), decimal_comma=decimal == ",")


def _refuse_mixture(evidence: Evidence, values: list[str], sample: list[str]) -> None:
    """Refuse numbers with a few words among them.

    Raises:
        DataProcessingError: There is a word; names its row.
    """
    if evidence.n_distinct <= FEW_MIXED or any(map(is_code, sample)):
        return
    for read in (read_number, read_comma_number):
        if _share(sample, lambda text, read=read: fits(read, text)) < NEARLY_ALL:
            continue
        words = [i for i, text in enumerate(values) if not fits(read, text)]
        if words and not any(map(is_code, values)):
            raise evidence.error(
                f"mixes {len(values) - len(words):,} numbers and {len(words):,} other texts; "
                f"row {evidence.values.index[words[0]]} is {shown(values[words[0]])}.",
                "Correct them, leave them empty, name the column's kind (a category takes all), or drop the column.",
            )


def _datetimes(evidence: Evidence, values: list[str], sample: list[str]) -> Verdict | None:
    """The verdict on strings that are datetimes, None on others.

    Raises:
        DataProcessingError: Nearly all are datetimes, but some can't be read.
    """
    if _share(sample, is_date) >= NEARLY_ALL and (verdict := judge_dates(evidence, values)) is not None:
        return verdict
    if _share(sample, _has_unread_zone) >= NEARLY_ALL:
        why = f"dates such as {shown(sample[0])} name a time zone that may mean several offsets"
        return Verdict(None, f"{why}; write UTC, or an offset such as +01:00")
    if _share(sample, lambda text: _OTHER_DATE.fullmatch(text.strip()) is not None) >= NEARLY_ALL:
        return Verdict(
            None, f"dates such as {shown(sample[0])} are of no form that is read in one way only; {WRITE_ISO}"
        )
    return None


def _has_unread_zone(text: str) -> bool:
    name = zone_name(text)
    return name is not None and is_date(text.strip().removesuffix(name))


def _share(values: list[str], test: Any) -> float:
    return sum(1 for value in values if test(value)) / len(values)


def _count_words(text: str) -> float:
    """Words between spaces; in a script without spaces, two characters count as one."""
    return max(len(text.split()), len(_CJK.findall(text)) / 2)


def _hint(sample: list[str]) -> str:
    if _share(sample, lambda text: _WRITTEN_NUMBER.fullmatch(text.strip()) is not None) < NEARLY_ALL:
        return ""
    return f"; {shown(sample[0])} looks like a number, which has to be written plainly, such as 1234.5"
