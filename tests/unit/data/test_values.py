"""What one raw value means."""

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from pandas._libs.parsers import STR_NA_VALUES

from ml_core.domain.columns import ColumnKind, DateOrder
from ml_core.domain.signature import InputColumn
from ml_core.domain.values import (
    MISSING_STRINGS,
    DoesNotFitError,
    is_blank,
    is_missing,
    read_boolean,
    read_category,
    read_datetime,
    read_number,
    says_missing,
)
from ml_core.exceptions import SignatureMismatchError

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC).timestamp()


def test_missing_strings_are_those_of_pandas():
    """A CSV cell that pandas reads as missing is missing in a JSON row too."""
    assert MISSING_STRINGS == STR_NA_VALUES


@pytest.mark.parametrize("text", ["", "   ", "\t\n", " " * 200])
def test_blank_strings_are_missing_in_every_kind(text):
    """Of any length."""
    assert is_blank(text)
    assert says_missing(text)


@pytest.mark.parametrize("text", ["NA", "null", "None"])
def test_words_for_missing_are_no_blanks(text):
    """They are missing in numbers, booleans and datetimes only."""
    assert says_missing(text)
    assert not is_blank(text)


@pytest.mark.parametrize("text", ["0", "none of it", "na na", "x" * 200])
def test_other_strings_say_something(text):
    """Words that contain a word for missing are kept."""
    assert not says_missing(text)


@pytest.mark.parametrize("value", [None, float("nan"), np.nan, pd.NaT, pd.NA, np.datetime64("NaT", "s")])
def test_every_missing_value_is_known(value):
    """None, NaN, NaT and NA."""
    assert is_missing(value)


@pytest.mark.parametrize("value", [0, False, [], {}, np.array([1.0, np.nan])])
def test_other_values_are_not_missing(value):
    """Falsy values and containers are values."""
    assert not is_missing(value)


@pytest.mark.parametrize(
    ("value", "number"),
    [(3, 3.0), ("1.5", 1.5), (" -2e3 ", -2000.0), (True, 1.0), (Decimal("0.1"), 0.1), (np.float32(0.5), 0.5)],
)
def test_numbers_are_read(value, number):
    """Python, numpy and decimal numbers, and numbers written as in a CSV."""
    assert read_number(value) == number


@pytest.mark.parametrize("value", ["abc", "1,5", "1_000", "0x10", "١", "inf", float("inf"), 10**400, "1e999", 1j, [1]])  # noqa: RUF001 - on purpose
def test_what_is_no_finite_number_is_refused(value):
    """Words, separators, infinities, overflow and complex numbers."""
    with pytest.raises(DoesNotFitError):
        read_number(value)


@pytest.mark.parametrize(
    ("value", "truth"),
    [(True, 1.0), ("false", 0.0), ("TRUE", 1.0), (0, 0.0), (np.bool_(True), 1.0), ("1", 1.0), ("0.0", 0.0)],
)
def test_booleans_are_read(value, truth):
    """Booleans, 0 and 1, and the words that pandas reads as booleans."""
    assert read_boolean(value) == truth


@pytest.mark.parametrize("value", [2, "yes", 0.5, [True], "2", "inf"])
def test_other_values_are_no_booleans(value):
    """``yes`` is a category: pandas reads no boolean from it either."""
    with pytest.raises(DoesNotFitError):
        read_boolean(value)


@pytest.mark.parametrize(
    "value",
    [
        "2026-01-01",
        "2026-01",
        "2026-01-01T00:00:00Z",
        "2026-01-01 01:00+01:00",
        "2026/1/1",
        "2026.01.01",
        "1.1.2026",
        "01.01.2026 0:00",
        "2026-01-01 00:00:00 UTC",
        "2026-01-01 00:00:00 +0000 UTC",
        "2026-01-01 00:00:00.000000000 +0000 UTC",
        "2026-01-01 01:00:00 +0100 CET",
        "2026-01-01T01:00:00+01:00 CET",
        "2026-01-01 01:00 +01:00",
        "2025-12-31 21:00 -0300",
        "2026-01-01 GMT",
        "1.1.2026 0:00 Z",
        date(2026, 1, 1),
        datetime(2026, 1, 1),  # noqa: DTZ001 - naive on purpose
        datetime(2026, 1, 1, 5, tzinfo=timezone(timedelta(hours=5))),
        pd.Timestamp("2026-01-01"),
        np.datetime64("2026-01-01"),
    ],
)
def test_datetimes_are_read(value):
    """Every form of the first moment of 2026."""
    assert read_datetime(value) == NEW_YEAR


@pytest.mark.parametrize(
    "value",
    [
        "01/02/2026",
        "Jan 1, 2026",
        "32.01.2026",
        "2026-13",
        "2026-01-01 08:00:00 CET",
        "2026-01-01 08:00 IST",
        "2026-01-01 08:00 +2500",
        "tomorrow",
        20260101,
        None,
        "9999-12-31T23:00:00-23:00x",
    ],
)
def test_ambiguous_and_wrong_datetimes_are_refused(value):
    """Forms that can be read in several ways, dates that do not exist, and numbers."""
    with pytest.raises(DoesNotFitError):
        read_datetime(value)


@pytest.mark.parametrize(
    ("value", "text"), [(3, "3"), (3.0, "3"), ("3", "3"), (True, "true"), (np.bool_(False), "false"), (0.5, "0.5")]
)
def test_a_category_has_one_text(value, text):
    """Whichever type it came as."""
    assert read_category(value) == text


@pytest.mark.parametrize("value", [[1], {"a": 1}, b"x", np.array(["a"]), object()])
def test_containers_and_bytes_are_no_categories(value):
    """Their text would say nothing of their value."""
    with pytest.raises(DoesNotFitError):
        read_category(value)


@pytest.mark.parametrize("kind", [ColumnKind.CATEGORY, ColumnKind.TEXT])
def test_a_blank_string_is_scored_though_not_nullable(kind):
    """It was sent, as an unseen category is; a null was not."""
    assert InputColumn("c", kind, nullable=False).read([" "]).tolist() == [None]


@pytest.mark.parametrize("kind", [ColumnKind.CATEGORY, ColumnKind.TEXT])
def test_words_for_missing_are_values_of_categories_and_texts(kind):
    """Namibia's code, and an answer called None."""
    assert InputColumn("c", kind, nullable=True).read(["NA", "None"]).tolist() == ["NA", "None"]


@pytest.mark.parametrize("kind", [ColumnKind.NUMBER, ColumnKind.BOOLEAN, ColumnKind.DATETIME])
def test_words_for_missing_are_missing_elsewhere(kind):
    """As empty cells are."""
    assert np.isnan(InputColumn("c", kind, nullable=True).read(["NA", "null", ""])).all()


@pytest.mark.parametrize("zone", ["CET", "EST", "IST", "PST", "Europe/Berlin"])
def test_a_zone_that_may_mean_several_offsets_is_named(zone):
    """The error says what to write instead."""
    with pytest.raises(SignatureMismatchError, match=f"an offset such as .01:00 .* since {zone} is ambiguous"):
        InputColumn("at", ColumnKind.DATETIME, nullable=False).read([f"2026-01-01 08:00:00 {zone}"])


@pytest.mark.parametrize(
    ("order", "text"),
    [
        (DateOrder.DAY_FIRST, "2/1/2026"),
        (DateOrder.MONTH_FIRST, "01-02-2026"),
        (DateOrder.DAY_FIRST, " 02/01/2026 0:00 "),
        (DateOrder.MONTH_FIRST, "1/2/2026 12:00 AM"),
        (DateOrder.MONTH_FIRST, "2026-01-02T01:00:00+01:00"),
        (DateOrder.MONTH_FIRST, "2.1.2026"),
        (DateOrder.DAY_FIRST, "02/01/2026 1:00 AM +0100 CET"),
        (DateOrder.MONTH_FIRST, "01/02/2026 00:00 UTC"),
    ],
)
def test_a_date_is_read_by_the_order_of_its_column(order, text):
    """With or without a time; forms that need no order are read as ever."""
    assert read_datetime(text, order) == NEW_YEAR + 86_400


@pytest.mark.parametrize(
    ("text", "hour"), [("1/2/2026 3:30 pm", 15), ("1/2/2026 12:30 PM", 12), ("1/2/2026 9:30 AM", 9)]
)
def test_times_of_half_days_are_read(text, hour):
    """As spreadsheets of the United States write them."""
    assert read_datetime(text, DateOrder.MONTH_FIRST) == NEW_YEAR + 86_400 + hour * 3600 + 1800


@pytest.mark.parametrize("text", ["12/25/2026", "25/12/26", "25/12-2026", "25/12/2026 13:00 PM", "25/12/2026 25:00"])
def test_a_date_against_the_order_is_refused(text):
    """The error says how the column is read."""
    column = InputColumn("when", ColumnKind.DATETIME, nullable=False, date_order=DateOrder.DAY_FIRST)
    with pytest.raises(SignatureMismatchError, match=r"Row 1: column 'when' is .*the day first") as caught:
        column.read(["25/12/2026", text])
    assert caught.value.column == "when"


@pytest.mark.parametrize("kind", list(ColumnKind))
def test_null_is_refused_where_training_had_none(kind):
    """The error names the row and the column."""
    column = InputColumn("c", kind, nullable=False)
    with pytest.raises(SignatureMismatchError, match="Row 0: column 'c' is missing") as caught:
        column.read([None])
    assert (caught.value.row, caught.value.column) == (0, "c")


def test_an_empty_number_is_refused_where_training_had_none():
    """An empty CSV cell sent as a string can't be a number."""
    with pytest.raises(SignatureMismatchError, match="''"):
        InputColumn("c", ColumnKind.NUMBER, nullable=False).read([""])
