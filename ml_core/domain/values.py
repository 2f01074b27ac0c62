"""What one raw value means in a column of a kind: the same for a JSON row, a CSV cell and a data frame's element.

Three rules hold everywhere, so that a row of the training CSV scores the same when it is sent over HTTP:

* A blank string is missing. So is, in a number, boolean or datetime, a word that ``pandas.read_csv`` reads as missing
  (``NA``, ``null``, …). In a category or text it is a value: ``NA`` is Namibia's code, and ``None`` may be an answer.
* Numbers and booleans may be written as strings, as they are in a CSV: ``"1.5"``, ``"true"``.
* A datetime is a ``datetime``, a ``date`` or a string of a form that can be read in only one way; without an offset
  it is UTC. A column whose training data told the order of day and month is read by that order too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
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
_NUMBER = re.compile(r"\s*[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?\s*", re.ASCII)
_YEAR_FIRST = re.compile(r"(\d{4})[/.](\d{1,2})[/.](\d{1,2})(?:[ T](.+))?", re.ASCII)
_DOTTED_DAY_FIRST = re.compile(r"(\d{1,2})\.(\d{1,2})\.(\d{4})(?:[ T](.+))?", re.ASCII)
_MONTH = re.compile(r"(\d{4})-(\d{2})", re.ASCII)
# Day and month in an order that only the whole column tells: 25/12/2026, 12-25-2026 3:30 PM.
ORDERED_DATE = re.compile(r"(\d{1,2})([/-])(\d{1,2})\2(\d{4})(?:[ T]([^ ]+)(?: ([AaPp][Mm]))?)?", re.ASCII)
_TIME_OF_HALF_DAY = re.compile(r"(0?[1-9]|1[0-2])(:\d{2}(?::\d{2})?)?", re.ASCII)
# What the values that pandas.read_csv turns into booleans look like.
BOOLEAN_STRINGS = {"true": 1.0, "True": 1.0, "TRUE": 1.0, "false": 0.0, "False": 0.0, "FALSE": 0.0}
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
        DoesNotFitError: It is none of them, or not finite.
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


def read_boolean(value: Any) -> float:
    """1.0 or 0.0 of a boolean, 0, 1, or ``"true"``, ``"false"`` as ``pandas.read_csv`` knows them.

    Raises:
        DoesNotFitError: It is none of them.
    """
    if isinstance(value, bool | np.bool_):
        return float(value)
    if isinstance(value, str) and value in BOOLEAN_STRINGS:
        return BOOLEAN_STRINGS[value]
    if isinstance(value, int | float | np.number) and value in (0, 1):
        return 1.0 if value == 1 else 0.0
    raise DoesNotFitError("true or false")


def read_datetime(value: Any, order: DateOrder | None = None) -> float:
    """Seconds since 1970-01-01 UTC, to the microsecond, of a datetime, date or string.

    Args:
        value: What to read.
        order: How ``01/02/2026`` is read; None: not at all.

    Raises:
        DoesNotFitError: It is none of them, a string that can be read in several ways, or one against the order.
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
    an order also ``31/01/2026`` or ``01/31/2026``, with ``/`` or ``-``, whose time may be of ``AM`` and ``PM``.

    Raises:
        DoesNotFitError: It is of none of these forms.
    """
    text = text.strip()
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        pass
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
    if time and time[1:2] == ":":
        time = f"0{time}"
    try:
        return datetime.fromisoformat(f"{year}-{month:0>2}-{day:0>2}" + (f"T{time}" if time else ""))
    except ValueError:
        raise DoesNotFitError(_forms(order)) from None


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


def read_text(value: Any) -> str:
    """The string itself.

    Raises:
        DoesNotFitError: It is not a string.
    """
    if not isinstance(value, str):
        raise DoesNotFitError("a string")
    return value


def read_category(value: Any) -> str:
    """``category_text`` of a string, number, boolean, date or UUID.

    Raises:
        DoesNotFitError: It is none of them.
    """
    if not isinstance(value, _CATEGORIES):
        raise DoesNotFitError("a string, number or boolean")
    return category_text(value)


def category_text(value: Any) -> str:
    """The canonical text of a category: ``true``/``false`` for booleans, whole numbers without a point, else ``str``.

    So ``3``, ``3.0`` and ``"3"`` are one category, whichever of CSV, Parquet and JSON they came through.
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
