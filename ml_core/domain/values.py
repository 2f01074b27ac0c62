"""What one raw value means in a column of a kind: the same for a JSON row, a CSV cell and a data frame's element.

The cells of a text file are strings, and nothing else is known of them until the column's kind is. These rules hold
everywhere, so that a row of the training CSV scores the same when it is sent over HTTP:

* A blank string is missing. So is, in a number, boolean or datetime, a word that ``pandas.read_csv`` reads as missing
  (``NA``, ``null``, …). In a category or text it is a value: ``NA`` is Namibia's code, and ``None`` may be an answer.
* Numbers and booleans may be written as strings, as they are in a CSV: ``"1.5"``, ``"true"``.
* A datetime is a ``datetime``, a ``date`` or a string of a form that can be read in only one way; without an offset
  it is UTC. A column whose training data shows the order of day and month is read by that order too.
* A column of numbers whose training data had decimal commas reads strings by that rule: ``"1.200,5"`` is 1200.5 and
  ``"1.200"`` is 1200. A JSON number means itself.
* The category of a string is its text: ``1.10`` and ``1.1`` are two categories, ``12E4`` is one. Only what writes one
  value in several ways is brought to one text: ``True``, ``TRUE`` and ``true`` are ``true``, as is JSON ``true``, and
  letters with accents are composed (Unicode NFC), in texts too.
* A number in a category column means the category that training saw written as that number: JSON ``3`` means ``3``, and
  JSON ``1`` or ``1.0`` means ``1.0`` where training saw that text and no other of the same value. A string such as
  ``1.0`` that training did not see means ``1`` where training saw that.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any
from uuid import UUID

import numpy as np

from ml_core.domain.columns import ColumnKind, DateOrder

# What pandas.read_csv reads as missing by default (pandas 3.1, ``pandas._libs.parsers.STR_NA_VALUES``).
MISSING_STRINGS = frozenset(
    {
        "",
        "#N/A",
        "#N/A N/A",
        "#NA",
        "-1.#IND",
        "-1.#QNAN",
        "-NaN",
        "-nan",
        "1.#IND",
        "1.#QNAN",
        "<NA>",
        "N/A",
        "NA",
        "NULL",
        "NaN",
        "None",
        "n/a",
        "nan",
        "null",
    }
)

# Named once: building a union of types on each call costs more than the check.
_NUMBERS = (int, float, np.number, np.bool_, Decimal)
_CATEGORIES = (str, int, float, np.generic, Decimal, date, UUID)

_LONGEST_MISSING_STRING = max(map(len, MISSING_STRINGS))
# Read alike by Python and by RE2, in which \s has no vertical tab.
_BLANKS = r"[ \t\n\r\f\v]*"
NUMBER = _BLANKS + r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?" + _BLANKS
# With a decimal comma; points then group thousands.
COMMA_NUMBER = (
    _BLANKS + r"[+-]?(?:(?:[1-9][0-9]{0,2}(?:\.[0-9]{3})+|[0-9]+)(?:,[0-9]*)?|,[0-9]+)(?:[eE][+-]?[0-9]+)?" + _BLANKS
)
_NUMBER = re.compile(NUMBER)
_COMMA_NUMBER = re.compile(COMMA_NUMBER)
_WHOLE_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)")
_YEAR_FIRST = re.compile(r"(\d{4})[/.](\d{1,2})[/.](\d{1,2})(?:[ T](.+))?", re.ASCII)
_DOTTED_DAY_FIRST = re.compile(r"(\d{1,2})\.(\d{1,2})\.(\d{4})(?:[ T](.+))?", re.ASCII)
_MONTH = re.compile(r"(\d{4})-(\d{2})", re.ASCII)
# Day and month in an order that only the whole column shows: 25/12/2026, 12-25-2026 3:30 PM.
ORDERED_DATE = re.compile(r"(\d{1,2})([/-])(\d{1,2})\2(\d{4})(?:[ T]([^ ]+)(?: ([AaPp][Mm]))?)?", re.ASCII)
# An offset, with or without a name for it, or the name of one that has a single meaning.
_OFFSET = r"([+-](?:0[0-9]|1[0-5]):?[0-5][0-9])"
_ZONE = re.compile(
    rf"(.*?[0-9].*?)(?:(?: |(?<=[:.][0-9]{{2}})){_OFFSET} [A-Z]{{3,5}}| {_OFFSET}| ?UTC| ?GMT| ?Z)", re.ASCII
)
_OTHER_ZONE = re.compile(
    r"(.*[0-9]:?[0-9]{2}(?:[.,][0-9]+)?) ?(?![AaPp][Mm]$)([A-Z]{2,5}|[A-Z][a-z]+/[A-Z][A-Za-z_]+)", re.ASCII
)
_LONGEST_DATETIME = 64  # characters, with any name of a zone
_TIME_OF_HALF_DAY = re.compile(r"(0?[1-9]|1[0-2])(:\d{2}(?::\d{2})?)?", re.ASCII)
# What the values that pandas.read_csv turns into booleans look like.
BOOLEAN_STRINGS = {"true": 1.0, "True": 1.0, "TRUE": 1.0, "false": 0.0, "False": 0.0, "FALSE": 0.0}
_TRUTHS = {text: "true" if number else "false" for text, number in BOOLEAN_STRINGS.items()}
_DATETIME_FORMS = (
    "an ISO 8601 date or time, such as '2026-01-31' or '2026-01-31T08:30:00Z' "
    "('2026/01/31' and '31.01.2026' are read too)"
)


class DoesNotFitError(ValueError):
    """A single value is not of its column's kind; carries what was expected."""


def is_blank(text: str) -> bool:
    """Whether a string holds nothing but white space: missing in a column of any kind."""
    return not text or text.isspace()


def says_missing(text: str) -> bool:
    """Whether a string is missing in a number, boolean or datetime: blank, or one of ``MISSING_STRINGS``."""
    if len(text) > _LONGEST_MISSING_STRING:
        return text.isspace()
    return text in MISSING_STRINGS or text.isspace()


def is_missing(value: Any) -> bool:
    """Whether a value that is not a string is missing: None, NaN, NaT or ``pandas.NA``."""
    if value is None:
        return True
    try:
        return bool(value != value)  # NaN and NaT differ from themselves
    except TypeError:  # pandas.NA, which this layer does not import, refuses to be a truth value
        return True
    except ValueError:  # an array
        return False


def read_number(value: Any) -> float:
    """A finite float of a number, boolean or numeric string.

    Raises:
        DoesNotFitError: The value is of another type, or not finite.
    """
    if isinstance(value, str):
        if not _NUMBER.fullmatch(value):
            raise DoesNotFitError("a number")
    elif not isinstance(value, _NUMBERS) or isinstance(value, np.complexfloating):
        raise DoesNotFitError("a number")
    try:
        number = float(value)
    except OverflowError:
        raise DoesNotFitError("a number that fits a 64-bit float") from None
    if not math.isfinite(number):
        raise DoesNotFitError("a finite number")
    return number


def read_comma_number(value: Any) -> float:
    """As ``read_number``, with strings of a decimal comma: ``"1.200,5"`` is 1200.5.

    Raises:
        DoesNotFitError: The value is not a number; a string with a decimal point is not one.
    """
    if not isinstance(value, str):
        return read_number(value)
    if not _COMMA_NUMBER.fullmatch(value):
        raise DoesNotFitError("a number with a decimal comma as in training, such as '1.234,5', or a JSON number")
    return read_number(value.replace(".", "").replace(",", "."))


def read_boolean(value: Any) -> float:
    """1.0 or 0.0 of a boolean, 0, 1, or of their texts: ``"true"`` and ``"false"`` as ``pandas.read_csv`` knows them.

    Raises:
        DoesNotFitError: The value is of another type.
    """
    if isinstance(value, bool | np.bool_):
        return float(value)
    if isinstance(value, str) and value in BOOLEAN_STRINGS:
        return BOOLEAN_STRINGS[value]
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = float(value)
    if isinstance(value, int | float | np.number) and value in (0, 1):
        return 1.0 if value == 1 else 0.0
    raise DoesNotFitError("true or false")


def read_datetime(value: Any, order: DateOrder | None = None) -> float:
    """Seconds since 1970-01-01 UTC, to the microsecond, of a datetime, date or string.

    Args:
        value: What to read.
        order: How ``01/02/2026`` is read; None: not at all.

    Raises:
        DoesNotFitError: The value is of another type, a string that can be read in several ways, or one against the
            order.
    """
    if isinstance(value, str):
        value = parse_datetime(value, order)
    elif isinstance(value, np.datetime64):
        value = value.astype("datetime64[us]").item()
    if isinstance(value, datetime):
        if type(value) is not datetime:  # pandas.Timestamp rounds its nanoseconds; everything else here cuts them off
            value = datetime.combine(value.date(), value.timetz())
    elif isinstance(value, date):
        value = datetime(value.year, value.month, value.day)  # noqa: DTZ001 - made aware just below
    else:
        raise DoesNotFitError(_forms(order))
    try:
        return float((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp())
    except (OverflowError, ValueError):  # an offset that leaves the years 1 to 9999
        raise DoesNotFitError(_forms(order)) from None


def parse_datetime(text: str, order: DateOrder | None = None) -> datetime:
    """The datetime of a string that can be read in only one way.

    That is ISO 8601 (also ``2026-01``), ``2026/01/31``, ``2026.01.31`` or ``31.01.2026``, with or without a time; with
    an order also ``31/01/2026`` or ``01/31/2026``, with ``/`` or ``-``, whose time may be of ``AM`` and ``PM``. Behind
    it may stand ``UTC``, ``GMT``, ``Z`` or an offset, which a name may follow: ``+0200 CEST``.

    Raises:
        DoesNotFitError: It is of none of these forms.
    """
    text = text.strip()
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        pass
    if len(text) > _LONGEST_DATETIME:
        raise DoesNotFitError(_forms(order))
    if zone := _ZONE.fullmatch(text):
        return _with_offset(zone, order)
    if zone_name(text) is not None:
        raise DoesNotFitError(
            f"an offset such as +01:00 behind the time, since {zone_name(text)} names no single one (UTC and GMT do)"
        )
    day, time = _day_and_time(text, order)
    if time and time[1:2] == ":":
        time = f"0{time}"
    try:
        return datetime.fromisoformat(day + (f"T{time}" if time else ""))
    except ValueError:
        raise DoesNotFitError(_forms(order)) from None


def _day_and_time(text: str, order: DateOrder | None) -> tuple[str, str | None]:
    """``2026-01-31`` and the time as it is written, if there is one, of a date that is not ISO 8601."""
    time: str | None
    if match := _MONTH.fullmatch(text):
        year, month, day, time = match[1], match[2], "01", None
    elif match := _YEAR_FIRST.fullmatch(text):
        year, month, day, time = match.groups()
    elif match := _DOTTED_DAY_FIRST.fullmatch(text):
        day, month, year, time = match.groups()
    elif order is not None and (match := ORDERED_DATE.fullmatch(text)):
        first, _, second, year, time, half = match.groups()
        day, month = (first, second) if order is DateOrder.DAY_FIRST else (second, first)
        time = _time_of_day(time, half, order) if half else time
    else:
        raise DoesNotFitError(_forms(order))
    return f"{year}-{month:0>2}-{day:0>2}", time


def _with_offset(zone: re.Match[str], order: DateOrder | None) -> datetime:
    moment = parse_datetime(zone[1], order)
    if moment.tzinfo is not None:
        raise DoesNotFitError(_forms(order))
    try:
        return datetime.fromisoformat(f"{moment.isoformat()}{zone[2] or zone[3] or '+00:00'}")
    except ValueError:
        raise DoesNotFitError(_forms(order)) from None


def zone_name(text: str) -> str | None:
    """The name of a time zone behind a time that is not read, since it may mean several offsets: ``CET``, ``IST``."""
    text = text.strip()
    is_long = len(text) > _LONGEST_DATETIME
    match = None if is_long or _ZONE.fullmatch(text) else _OTHER_ZONE.fullmatch(text)
    return match[2] if match else None


def ordered_date(text: str) -> re.Match[str] | None:
    """The parts of a date whose order of day and month only its column shows; None of any other string."""
    text = text.strip()
    match = ORDERED_DATE.fullmatch(text)
    if match is None and len(text) <= _LONGEST_DATETIME:
        zone = _ZONE.fullmatch(text) or _OTHER_ZONE.fullmatch(text)
        match = ORDERED_DATE.fullmatch(zone[1]) if zone else None
    return match


def _time_of_day(time: str, half: str, order: DateOrder) -> str:
    """``15:30`` of ``3:30`` and ``PM``."""
    match = _TIME_OF_HALF_DAY.fullmatch(time)
    if match is None:
        raise DoesNotFitError(_forms(order))
    return f"{int(match[1]) % 12 + 12 * (half.lower() == 'pm'):02}{match[2] or ':00'}"


def _forms(order: DateOrder | None) -> str:
    if order is None:
        return _DATETIME_FORMS
    example = "'31/01/2026', the day first" if order is DateOrder.DAY_FIRST else "'01/31/2026', the month first"
    return f"a date or time such as {example} as in training, or '2026-01-31T08:30:00Z'"


def composed(text: str) -> str:
    """The string in Unicode's composed form (NFC), in which equal letters are equal characters."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def read_text(value: Any) -> str:
    """The string itself, composed.

    Raises:
        DoesNotFitError: It is not a string.
    """
    if not isinstance(value, str):
        raise DoesNotFitError("a string")
    return composed(value)


def read_category(value: Any, categories: tuple[str, ...] = ()) -> str:
    """The canonical text of a string, number, boolean, date or UUID in a category column.

    Args:
        value: What to read.
        categories: What training saw; a number means the one of them that is written as it.

    Raises:
        DoesNotFitError: The value is of another type.
    """
    if isinstance(value, str):
        text = _TRUTHS.get(value) or composed(str(value))
        return _whole(text, categories) if text[-2:] == ".0" else text
    if not isinstance(value, _CATEGORIES):
        raise DoesNotFitError("a string, number or boolean")
    text = category_text(value)
    if text in categories or not isinstance(value, _NUMBERS) or isinstance(value, bool | np.bool_):
        return text
    return _numerals(categories).get(int(text) if _WHOLE_NUMBER.fullmatch(text) else float(text)) or text


def _whole(text: str, categories: tuple[str, ...]) -> str:
    """``1`` of ``1.0`` where training saw only the former: tools that make floats of integers wrote the latter."""
    whole = text[:-2]
    return whole if whole in categories and text not in categories and _WHOLE_NUMBER.fullmatch(whole) else text


@lru_cache(maxsize=4096)
def _numerals(categories: tuple[str, ...]) -> dict[float, str | None]:
    """Number → the category that is written as it; None where several are."""
    found: dict[float, str | None] = {}
    for text in categories:
        if _NUMBER.fullmatch(text):
            number = int(text) if _WHOLE_NUMBER.fullmatch(text) else float(text)
            found[number] = None if number in found else text
    return found


def label_of(text: str) -> bool | int | float | str:
    """What a string says as a label: a boolean, a number, or itself."""
    if text in BOOLEAN_STRINGS:
        return bool(BOOLEAN_STRINGS[text])
    if not _NUMBER.fullmatch(text):
        return text
    return int(text) if _WHOLE_NUMBER.fullmatch(text.strip()) else float(text)


def category_text(value: Any) -> str:
    """The text of a label or of a category's value: ``true``/``false`` for booleans, whole numbers without a point.

    So ``3``, ``3.0`` and ``"3"`` are one, whichever of Parquet and JSON they came through. A string is itself.
    """
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, float | np.floating | Decimal):
        number = float(value)
        return str(int(number)) if number.is_integer() else str(number)
    if isinstance(value, date):
        return value.isoformat()
    return str(value)


READERS: dict[ColumnKind, Callable[[Any], Any]] = {
    ColumnKind.NUMBER: read_number,
    ColumnKind.BOOLEAN: read_boolean,
    ColumnKind.DATETIME: read_datetime,
    ColumnKind.CATEGORY: read_category,
    ColumnKind.TEXT: read_text,
}
