"""How a raw value is read in a column of a kind: equal for a JSON row, a CSV cell and an element of a data frame.

A row of the training CSV therefore gives the same prediction when it is sent over HTTP. The rules:

* Missing: a blank string is missing in a column of any kind. In a number, boolean or datetime, so is a word that
  ``pandas.read_csv`` reads as missing (``NA``, ``null``, …). In a category or text such a word is a value.
* Numbers and booleans may be strings: ``"1.5"``, ``"true"``.
* Datetimes: a ``datetime``, a ``date`` or a string in an unambiguous form; UTC without an offset. If the training data
  shows the order of day and month, dates in that order are read too.
* Decimal commas: if the training data had them, strings are read accordingly: ``"1.200,5"`` is 1200.5 and ``"1.200"``
  is 1200. JSON numbers are not affected.
* Categories: a string is its own category: ``1.10`` and ``1.1`` differ. ``True``, ``TRUE``, ``true`` and JSON ``true``
  are the category ``true``. Letters with accents are composed (Unicode NFC), also in texts.
* Numbers in a category column: JSON ``3`` is the category ``3``. JSON ``1`` or ``1.0`` is the category ``1.0`` if
  training saw that text and no other of the same value. The string ``1.0`` is ``1`` if training saw only ``1``.
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

# The strings that pandas.read_csv reads as missing by default (pandas 3.1, ``pandas._libs.parsers.STR_NA_VALUES``).
_MISSING = ",#N/A,#N/A N/A,#NA,-1.#IND,-1.#QNAN,-NaN,-nan,1.#IND,1.#QNAN,<NA>,N/A,NA,NULL,NaN,None,n/a,nan,null"
MISSING_STRINGS = frozenset(_MISSING.split(","))  # the first is the empty string

# Named once: building a union of types on each call costs more than the check.
_NUMBERS = (int, float, np.number, np.bool_, Decimal)
_CATEGORIES = (str, int, float, np.generic, Decimal, date, UUID)

_LONGEST_MISSING_STRING = max(map(len, MISSING_STRINGS))
# Spelled out, so that Python and RE2 match the same strings: \s of RE2 has no vertical tab.
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
# Day and month in an order that only the values of the column show: 25/12/2026, 12-25-2026 3:30 PM.
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
# The strings that pandas.read_csv reads as booleans.
BOOLEAN_STRINGS = {"true": 1.0, "True": 1.0, "TRUE": 1.0, "false": 0.0, "False": 0.0, "FALSE": 0.0}
_TRUTHS = {text: "true" if number else "false" for text, number in BOOLEAN_STRINGS.items()}
_DATETIME_FORMS = (
    "an ISO 8601 date or time, such as '2026-01-31' or '2026-01-31T08:30:00Z' "
    "('2026/01/31' and '31.01.2026' are read too)"
)


class DoesNotFitError(ValueError):
    """A value does not fit the kind of its column; the message names what was expected."""


def is_blank(text: str) -> bool:
    """Whether a string is empty or white space, and so missing in a column of any kind."""
    return not text or text.isspace()


def says_missing(text: str) -> bool:
    """Whether a string is missing in a number, boolean or datetime column: blank, or in ``MISSING_STRINGS``."""
    if len(text) > _LONGEST_MISSING_STRING:
        return text.isspace()
    return text in MISSING_STRINGS or text.isspace()


def is_missing(value: Any) -> bool:
    """Whether a value that is not a string is missing: None, NaN, NaT or ``pandas.NA``."""
    if value is None:
        return True
    try:
        return bool(value != value)  # NaN and NaT differ from themselves; math.isnan would refuse NaT
    except TypeError:  # pandas.NA, which this layer does not import, refuses to be a truth value
        return True
    except ValueError:  # an array
        return False


def read_number(value: Any) -> float:
    """Read a finite float from a number, boolean or numeric string.

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
    except OverflowError:  # of an integer; a string such as "1e999" becomes infinite instead
        raise DoesNotFitError("a number that fits a 64-bit float") from None
    if not math.isfinite(number):
        raise DoesNotFitError("a finite number")
    return number


def read_comma_number(value: Any) -> float:
    """Read a number, with a decimal comma in strings: ``"1.200,5"`` is 1200.5.

    Raises:
        DoesNotFitError: The value is not a number; a string with a decimal point is not one.
    """
    if not isinstance(value, str):
        return read_number(value)
    if not _COMMA_NUMBER.fullmatch(value):
        raise DoesNotFitError("a number with a decimal comma as in training, such as '1.234,5', or a JSON number")
    return read_number(value.replace(".", "").replace(",", "."))


def read_boolean(value: Any) -> float:
    """Read 1.0 or 0.0 from a boolean, 0, 1, or a string of one, as ``pandas.read_csv`` accepts them.

    Raises:
        DoesNotFitError: The value is of another type.
    """
    if isinstance(value, bool | np.bool_):
        return float(value)
    if isinstance(value, str) and value in BOOLEAN_STRINGS:
        return BOOLEAN_STRINGS[value]
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = float(value)  # "0" and "1.0", as a column of booleans beside missing values is written
    if isinstance(value, int | float | np.number) and value in (0, 1):
        return 1.0 if value == 1 else 0.0
    raise DoesNotFitError("true or false")


def read_datetime(value: Any, order: DateOrder | None = None) -> float:
    """Read seconds since 1970-01-01 UTC, to the microsecond, from a datetime, date or string.

    Without an order, dates such as ``01/02/2026`` are refused.

    Raises:
        DoesNotFitError: The value has another type, or the string is ambiguous or contradicts the order.
    """
    if isinstance(value, str):
        value = parse_datetime(value, order)
    elif isinstance(value, np.datetime64):
        value = value.astype("datetime64[us]").item()
    if isinstance(value, datetime):
        if type(value) is not datetime:  # pandas.Timestamp rounds nanoseconds, while the other types truncate them
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
    """Parse a datetime in an unambiguous form.

    The forms are ISO 8601 (also ``2026-01``), ``2026/01/31``, ``2026.01.31`` and ``31.01.2026``, with or without a
    time. With an order, ``31/01/2026`` or ``01/31/2026`` (``/`` or ``-``) is accepted too, with an optional ``AM`` or
    ``PM``. ``UTC``, ``GMT``, ``Z`` or an offset may follow, and a zone name may follow an offset: ``+0200 CEST``.

    Raises:
        DoesNotFitError: The text has none of these forms.
    """
    text = text.strip()
    try:
        return datetime.fromisoformat(text)  # first: it is the usual form, and much faster than the expressions below
    except ValueError:
        pass
    if len(text) > _LONGEST_DATETIME:
        raise DoesNotFitError(_forms(order))
    if zone := _ZONE.fullmatch(text):
        return _with_offset(zone, order)
    if zone_name(text) is not None:
        raise DoesNotFitError(
            f"an offset such as +01:00 after the time, since {zone_name(text)} is ambiguous (UTC and GMT are not)"
        )
    day, time = _day_and_time(text, order)
    if time and time[1:2] == ":":
        time = f"0{time}"  # fromisoformat takes no hour of one digit
    try:
        return datetime.fromisoformat(day + (f"T{time}" if time else ""))
    except ValueError:
        raise DoesNotFitError(_forms(order)) from None


def _day_and_time(text: str, order: DateOrder | None) -> tuple[str, str | None]:
    """Split a date that is not ISO 8601 into ``2026-01-31`` and the time, if it has one."""
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
    """The ambiguous time zone name, such as ``CET`` or ``IST``, after a time; None if there is none."""
    text = text.strip()
    is_long = len(text) > _LONGEST_DATETIME
    match = None if is_long or _ZONE.fullmatch(text) else _OTHER_ZONE.fullmatch(text)
    return match[2] if match else None


def ordered_date(text: str) -> re.Match[str] | None:
    """Match a date whose order of day and month only its column shows; None for any other string."""
    text = text.strip()
    match = ORDERED_DATE.fullmatch(text)
    if match is None and len(text) <= _LONGEST_DATETIME:
        zone = _ZONE.fullmatch(text) or _OTHER_ZONE.fullmatch(text)
        match = ORDERED_DATE.fullmatch(zone[1]) if zone else None
    return match


def _time_of_day(time: str, half: str, order: DateOrder) -> str:
    """Convert ``3:30`` and ``PM`` to ``15:30``."""
    match = _TIME_OF_HALF_DAY.fullmatch(time)
    if match is None:
        raise DoesNotFitError(_forms(order))
    return f"{int(match[1]) % 12 + 12 * (half.lower() == 'pm'):02}{match[2] or ':00'}"  # 12 AM is midnight


def _forms(order: DateOrder | None) -> str:
    if order is None:
        return _DATETIME_FORMS
    example = "'31/01/2026', the day first" if order is DateOrder.DAY_FIRST else "'01/31/2026', the month first"
    return f"a date or time such as {example} as in training, or '2026-01-31T08:30:00Z'"


def composed(text: str) -> str:
    """Normalize a string to Unicode's composed form (NFC)."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def read_text(value: Any) -> str:
    """Read a string, composed.

    Raises:
        DoesNotFitError: It is not a string.
    """
    if not isinstance(value, str):
        raise DoesNotFitError("a string")
    return composed(value)


def read_category(value: Any, categories: tuple[str, ...] = ()) -> str:
    """Read the canonical text of a string, number, boolean, date or UUID in a category column.

    Of the categories that training saw, a number is the one that is written as that number.

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
    """Convert ``1.0`` to ``1`` if training saw only ``1``."""
    # Tools that turn integers into floats send 1.0.
    whole = text[:-2]
    return whole if whole in categories and text not in categories and _WHOLE_NUMBER.fullmatch(whole) else text


@lru_cache(maxsize=4096)
def _numerals(categories: tuple[str, ...]) -> dict[float, str | None]:
    """Number → the category that is written as that number; None if several are."""
    found: dict[float, str | None] = {}
    for text in categories:
        if _NUMBER.fullmatch(text):
            number = int(text) if _WHOLE_NUMBER.fullmatch(text) else float(text)
            found[number] = None if number in found else text
    return found


def label_of(text: str) -> bool | int | float | str:
    """Convert a string to a label: a boolean, a number, or the string itself."""
    if text in BOOLEAN_STRINGS:
        return bool(BOOLEAN_STRINGS[text])
    if not _NUMBER.fullmatch(text):
        return text
    return int(text) if _WHOLE_NUMBER.fullmatch(text.strip()) else float(text)


def category_text(value: Any) -> str:
    """The text of a label or category: ``true``/``false`` for booleans, no decimal point in whole numbers."""
    # 3, 3.0 and "3" have one text, whether they came through Parquet or JSON.
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
