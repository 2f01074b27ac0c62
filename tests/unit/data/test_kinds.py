"""What columns are inferred to hold."""

from datetime import date, datetime, timedelta
from decimal import Decimal
from uuid import uuid4

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy import sparse

from ml_core.data.canonical import columns_from_frame
from ml_core.data.frames import as_frame
from ml_core.data.kinds import infer_columns
from ml_core.domain.columns import ColumnKind, DateOrder
from ml_core.exceptions import DataProcessingError

N = 100
CODES = [f"T-{i:05d}" for i in range(N)]
SENTENCES = [f"my printer number {i} does not work" for i in range(N)]


def infer(values, name="column", **kwargs):
    """The verdict on one column beside a plain number."""
    series = values if isinstance(values, pd.Series) else pd.Series(values)
    frame = pd.DataFrame({name: series.to_numpy() if series.dtype == object else series.array})
    return infer_columns(frame.assign(beside=np.arange(len(frame)) % 7), **kwargs)[0]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([0.5, None] * 50, "number"),
        ([1, 2] * 50, "number"),
        (pd.Series([1, None] * 50, dtype="Int64"), "number"),
        (pd.Series([Decimal("1.5"), None] * 50, dtype=pd.ArrowDtype(pa.decimal128(5, 2))), "number"),
        (pd.Series([Decimal("1.5"), Decimal("2")] * 50, dtype=object), "number"),
        ([f"{i}.5" for i in range(N)], "number"),
        (pd.Series([1, "2.5"] * 50, dtype=object), "number"),
        ([True, False] * 50, "boolean"),
        (pd.Series([True, None, False, None] * 25, dtype=object), "boolean"),
        (pd.Series([True, None] * 50, dtype="boolean"), "boolean"),
        (["yes", "no"] * 50, "category"),
        (["007", "008"] * 50, "category"),
        (["Bank transfer (automatic)", "Electronic check"] * 50, "category"),
        (pd.Series([1, 2] * 50, dtype="category"), "category"),
        (pd.Series([1, "a"] * 50, dtype=object), "category"),
        ([f"city{i % 60}" for i in range(N)], "category"),
        (SENTENCES, "text"),
        (pd.Series(SENTENCES, dtype=pd.ArrowDtype(pa.string())), "text"),
        (["it does not work at all", "please call me back soon"] * 50, "text"),
        ([f"プリンターが動きません{i}" for i in range(N)], "text"),
        (pd.date_range("2026-01-01", periods=N, tz="Europe/Berlin"), "datetime"),
        (pd.date_range("2026-01-01", periods=N).strftime("%Y-%m-%d"), "datetime"),
        (pd.date_range("2026-01-01", periods=N).strftime("%Y/%m/%d"), "datetime"),
        (pd.date_range("2026-01-01", periods=N).strftime("%d.%m.%Y %H:%M"), "datetime"),
        (pd.date_range("2026-01-01", periods=N).strftime("%Y-%m-%d %H:%M:%S UTC"), "datetime"),
        (pd.date_range("2026-01-01", periods=N).strftime("%Y-%m-%d %H:%M:%S +0000 UTC"), "datetime"),
        (pd.date_range("2026-01-01", periods=N).strftime("%d/%m/%Y %H:%M GMT"), "datetime"),
        (["true", "FALSE", "True"] * 30, "boolean"),
        ([f"{i},5" for i in range(N)], "number"),
        (pd.Series([date(2026, 1, 1), datetime(2026, 1, 2), None, "2026-01-03"] * 25, dtype=object), "datetime"),  # noqa: DTZ001 - naive on purpose
    ],
)
def test_kinds_are_inferred_and_can_be_read(values, kind):
    """Each kind in its dtypes; and what was inferred is readable, with the nullability found."""
    found = infer(values)
    assert found.kind is ColumnKind(kind), found.reason
    assert found.reason.startswith(f"{kind}: ")
    series = pd.DataFrame({"column": values})
    columns_from_frame(series, [found.input])


@pytest.mark.parametrize(
    ("values", "name", "why"),
    [
        (["same"] * N, "column", "every value is 'same'"),
        ([3] * N, "column", "every value is 3"),
        (CODES, "column", "an identifier: 100 different codes"),
        ([uuid4() for _ in range(N)], "column", "an identifier: UUIDs"),
        (range(N), "ticket_id", "an identifier by its name"),
        (range(N), "Unnamed: 0", "an identifier by its name"),
        (range(N), "userId", "an identifier by its name"),
        ([f"{i % 12 + 1}/{i % 9 + 1}/2026" for i in range(N)], "column", "with the day first or with the month first"),
        (["25/12/2026", "12/25/2026"] * 50, "column", "'25/12/2026' gives the day first, '12/25/2026' the month"),
        ([f"{i % 28 + 1}/12/26" for i in range(N)], "column", "ISO 8601"),
        ([f"2026-01-{i % 28 + 1:02} 08:00:00 CET" for i in range(N)], "column", "write UTC, or an offset such as"),
        ([f"{i % 28 + 1}/01/2026 08:00 CET" for i in range(N)], "column", "write UTC, or an offset such as"),
        ([f"Jan {i % 28 + 1}, 2026" for i in range(N)], "column", "ISO 8601"),
        ([f"{1950 + i}Q1" for i in range(N)], "column", "ISO 8601"),
        ([f"{1950 + i}-Jan" for i in range(N)], "column", "ISO 8601"),
        ([f"Jan-1-{1950 + i}" for i in range(N)], "column", "ISO 8601"),
        ([f"{i + 1},{i + 100}" for i in range(N)], "column", "looks like a number"),
    ],
)
def test_columns_that_are_of_no_use_say_why(values, name, why):
    """Constants, identifiers and dates that can be read in several ways."""
    found = infer(values, name)
    assert found.input is None
    assert found.reason.startswith("not used: ")
    assert why in found.reason


@pytest.mark.parametrize(
    ("values", "name"),
    [(range(N), "x"), (range(N), "valid"), ([0.5 + i for i in range(N)], "id"), ([1, 1, *range(2, N)], "id")],
)
def test_numbers_are_identifiers_only_by_name_and_when_all_differ(values, name):
    """A counter without such a name may be a measurement."""
    assert infer(values, name).kind is ColumnKind.NUMBER


def test_a_constant_with_missing_values_is_used():
    """Which rows lack it may say something."""
    found = infer(["paid", None] * 50)
    assert (found.kind, found.input.nullable) == (ColumnKind.CATEGORY, True)
    assert found.reason == "category: 1 distinct value, 50 missing"


@pytest.mark.parametrize("blank", ["", "   ", None, float("nan"), pd.NA])
def test_blank_strings_are_missing(blank):
    """In whatever form they come."""
    found = infer(pd.Series(["a", "b", blank, "a"] * 25, dtype=object))
    assert found.input.nullable
    assert found.input.categories == ("a", "b")


def test_categories_are_listed_most_frequent_first():
    """Equal counts in the order of the text, so that the list is the same each time."""
    assert infer(["b", "c", "c", "a"] * 25).input.categories == ("c", "a", "b")


@pytest.mark.parametrize("dtype", ["str", "object", "category"])
def test_words_for_missing_are_values_of_a_category(dtype):
    """NA is Namibia's code."""
    found = infer(pd.Series(["DE", "NA", "NA", "FR", ""] * 20, dtype=dtype))
    assert (found.kind, found.input.nullable, found.input.categories) == (ColumnKind.CATEGORY, True, ("NA", "DE", "FR"))
    assert found.reason.endswith("distinct values, 20 missing")


def test_a_word_for_missing_beside_one_value_tells_two_classes():
    """Nothing is missing in such a column."""
    found = infer(["paid", "None"] * 50)
    assert (found.input.nullable, found.input.categories) == (False, ("None", "paid"))


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([f"{i}.5" for i in range(90)] + ["NA"] * 10, "number"),
        (["2026-01-31", "2026-02-01", "null", "2026-03-01"] * 25, "datetime"),
    ],
)
def test_words_for_missing_are_missing_among_numbers_and_datetimes(values, kind):
    """They say that there is no value."""
    found = infer(values)
    assert (found.kind, found.input.nullable) == (ColumnKind(kind), True)


def test_words_for_missing_are_values_where_a_category_is_told():
    """As where it is inferred."""
    found = infer(["1", "2", "None"] * 40, kinds={"column": ColumnKind.CATEGORY})
    assert (found.input.nullable, found.input.categories) == (False, ("1", "2", "None"))


@pytest.mark.parametrize(
    "values",
    [
        [f"{n:05d}" for n in range(9990, 10015)] * 4,
        pd.Series([*(f"{n:05d}" for n in range(9990, 10000)), *range(10000, 10015)] * 4, dtype=object),
        [*(f"{n:05d}" for n in range(9980, 10004)), "K1A 0B1"] * 4,
    ],
)
def test_codes_with_leading_zeros_are_categories(values):
    """Postal codes: as strings, as a spreadsheet's strings and numbers, with a foreign one among them."""
    found = infer(values)
    assert found.kind is ColumnKind.CATEGORY
    assert found.reason.startswith("category: 25 codes with leading zeros, such as '09")
    assert found.reason.endswith("if they are quantities, name the column's kind: number")


def test_zero_padded_numbers_are_numbers_where_told():
    """As the reason of the category says."""
    found = infer(["007", "008", "1250"] * 40, kinds={"column": ColumnKind.NUMBER})
    frame = pd.DataFrame({"column": ["007", "1250"]})
    assert columns_from_frame(frame, [found.input])["column"].tolist() == [7.0, 1250.0]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([f"{n:06d}" for n in range(N)], "an identifier: 100 different codes with leading zeros in 100 rows"),
        ([f"+4930{n:06d}" for n in range(N)], "an identifier: 100 different codes that begin with a plus sign"),
    ],
)
def test_codes_that_all_differ_are_identifiers(values, reason):
    """Member and phone numbers."""
    found = infer(values)
    assert found.input is None
    assert reason in found.reason


@pytest.mark.parametrize(
    ("values", "order"),
    [
        ([f"{i % 28 + 1}/{i % 12 + 1}/2026" for i in range(N)], DateOrder.DAY_FIRST),
        ([f"{i % 12 + 1}-{i % 28 + 1}-2026 8:30" for i in range(N)], DateOrder.MONTH_FIRST),
        ([f"{i % 12 + 1}/{i % 28 + 1}/2026 3:30 PM" for i in range(N)], DateOrder.MONTH_FIRST),
        (["1/2/2026", "2026-01-31", "NA", "31/01/2026"] * 25, DateOrder.DAY_FIRST),
        (["2026-01-31", "2026-02-01"] * 50, None),
    ],
)
def test_the_order_of_day_and_month_is_that_of_the_whole_column(values, order):
    """One date that can be read in one way tells it; ISO 8601 needs none."""
    found = infer(values)
    assert (found.kind, found.input.date_order) == (ColumnKind.DATETIME, order)


def test_the_order_of_datetimes_of_a_given_kind_is_found_too():
    """Although the kind is known."""
    found = infer(["1/2/2026", "31/1/2026"] * 50, kinds={"column": ColumnKind.DATETIME})
    assert found.input.date_order is DateOrder.DAY_FIRST


def test_a_given_kind_does_not_show_the_order_of_day_and_month():
    """The error says what to do."""
    with pytest.raises(DataProcessingError, match="the order of day and month is not known") as caught:
        infer(["1/2/2026", "2/2/2026"] * 50, kinds={"column": ColumnKind.DATETIME})
    assert "ISO 8601" in (caught.value.remedy or "")


def test_a_kind_that_is_told_is_used():
    """Even for a column that would be left out."""
    found = infer(CODES, kinds={"column": ColumnKind.CATEGORY})
    assert (found.kind, found.reason) == (ColumnKind.CATEGORY, "category: as given")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([None] * N, "has no value in any of the 100 rows"),
        (["", "NA"] * 50, "has no value in any of the 100 rows"),
        (pd.Series([*range(97), "a", "b", "c"], dtype=object), "mixes 97 numbers and 3 strings; row 97 is 'a'"),
        ([*map(str, range(98)), "a lot", "?"], "mixes 98 numbers and 2 other texts; row 98 is 'a lot'"),
        ([1.0, float("inf")] * 50, "has 50 infinite values, the first in row 1"),
        ([*pd.date_range("2026-01-01", periods=N - 1).strftime("%Y-%m-%d"), "soon"], "row 99 is 'soon'"),
        ([*pd.date_range("2026-01-01", periods=N - 1).strftime("%d/%m/%Y"), "31/02/2026"], "row 99 is '31/02/2026'"),
        ([timedelta(1)] * N, "holds durations"),
        ([1j, 2j] * 50, "holds complex numbers"),
        (pd.Series([[1], [2]] * 50, dtype=object), "holds values of type list"),
        (pd.Series(pd.period_range("2026-01", periods=N, freq="M")), "holds values of type Period"),
    ],
)
def test_columns_that_cannot_be_used_are_errors(values, message):
    """Each names the column, says what is wrong and what to do."""
    with pytest.raises(DataProcessingError) as caught:
        infer(values)
    assert caught.value.column == "column"
    assert message in caught.value.message
    assert caught.value.remedy


def test_a_name_used_twice_is_an_error():
    """A request could fill only one of them."""
    with pytest.raises(DataProcessingError, match="Two columns are called 'x'"):
        infer_columns(pd.DataFrame([[1, 2]], columns=["x", "x"]))


def test_a_kind_for_no_column_suggests_the_nearest():
    """A typing mistake is not ignored."""
    with pytest.raises(DataProcessingError, match="Did you mean 'amount'"):
        infer_columns(pd.DataFrame({"amount": [1, 2]}), kinds={"amuont": ColumnKind.NUMBER})


@pytest.mark.parametrize("frame", [pd.DataFrame({"x": []}), pd.DataFrame(index=range(3))])
def test_an_empty_table_is_an_error(frame):
    """No rows or no columns."""
    with pytest.raises(DataProcessingError, match=r"The table has \d rows and \d columns"):
        infer_columns(frame)


def test_a_table_of_useless_columns_is_an_error():
    """It says why each is of no use."""
    with pytest.raises(DataProcessingError, match=r"'x': not used: every value is 1"):
        infer_columns(pd.DataFrame({"x": [1, 1]}))


@pytest.mark.parametrize("rows", [30, 39, 70, 201])
def test_a_tenth_of_the_values_may_be_mistakes(rows):
    """Then the others show the kind, and the mistakes are refused; with one more the column is something else."""
    numbers, few = [f"{index}.5" for index in range(rows)], rows // 10
    with pytest.raises(DataProcessingError, match=f"mixes {rows - few} numbers and {few} other texts"):
        infer(numbers[few:] + ["soon"] * few)
    assert infer(["soon"] * (few + 1) + numbers[few + 1 :]).kind is not ColumnKind.NUMBER


@pytest.mark.parametrize(
    "values",
    [
        pd.Series(pd.cut(np.arange(float(N)), 4)),
        pd.Series(pd.Categorical(pd.period_range("2026-01", periods=N, freq="M"))),
    ],
)
def test_categories_of_no_plain_type_are_refused(values):
    """As ``pandas.cut`` makes them; the message says how to give them."""
    with pytest.raises(DataProcessingError, match=r"holds categories of type (Interval|Period).*astype\(str\)"):
        infer(pd.Series(values))


def test_a_sparse_matrix_is_refused_as_what_it_is():
    """pandas would take each of its rows for one value."""
    with pytest.raises(DataProcessingError, match="from_spmatrix"):
        as_frame(sparse.csr_matrix(np.eye(3)))
