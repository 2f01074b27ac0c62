"""The stored form of a table: one form for each meaning, whatever pandas or Arrow called it."""

import datetime as dt
from decimal import Decimal
from uuid import UUID

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from ml_core.data import tables
from ml_core.data.tables import MAX_COLUMNS, stored_schema, table_from_frame, to_stored
from ml_core.exceptions import DataProcessingError

UTC = dt.UTC
moment = dt.datetime.fromisoformat


def stored(values, **options):
    """The Arrow type and the values of a column of Python objects, or of a dtype."""
    column = table_from_frame(pd.DataFrame({"x": pd.Series(values, **options)})).column("x")
    return str(column.type), column.to_pylist()


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        (pd.Series([1.5, np.nan]), ("double", [1.5, None])),
        (pd.Series([1, None], dtype="Int64"), ("int64", [1, None])),
        (pd.Series(["b", "a", None], dtype="category"), ("string", ["b", "a", None])),
        (pd.Series(["b", None]), ("string", ["b", None])),
        (pd.Series(np.array([1], "float16")), ("float", [1.0])),
        (pd.Series([True, None], dtype="boolean"), ("bool", [True, None])),
        (pd.Series(pd.arrays.SparseArray([0, 2])), ("int64", [0, 2])),
        (
            pd.Series(pd.to_datetime(["2026-01-01 01:00"]).tz_localize("Europe/Berlin")),
            ("timestamp[us, tz=UTC]", [dt.datetime(2026, 1, 1, tzinfo=UTC)]),
        ),
        (
            pd.Series(np.array(["1969-12-31T23:59:59.999999999"], "datetime64[ns]")),
            ("timestamp[us]", [moment("1969-12-31T23:59:59.999999")]),
        ),
    ],
    ids=lambda value: str(value.dtype) if isinstance(value, pd.Series) else "",
)
def test_each_dtype_has_one_form(series, expected):
    """Categories are strings, NaN is null, moments are microseconds (cut off, never rounded), zones are UTC."""
    column = table_from_frame(series.to_frame("x")).column("x")
    assert (str(column.type), column.to_pylist()) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([True, 2, None], ("double", [1.0, 2.0, None])),
        (["01234", 94110, 1.0, None], ("string", ["01234", "94110", "1", None])),
        ([UUID(int=1), None], ("string", [str(UUID(int=1)), None])),
        ([1, 10**20], ("string", ["1", str(10**20)])),
        ([Decimal("1.50"), None], ("decimal128(3, 2)", [Decimal("1.50"), None])),
        ([None, None], ("null", [None, None])),
        ([dt.date(2026, 1, 1), pd.NaT], ("date32[day]", [dt.date(2026, 1, 1), None])),
        (
            [dt.date(2026, 1, 1), moment("2026-01-02T03:00")],
            ("timestamp[us]", [moment("2026-01-01"), moment("2026-01-02T03:00")]),
        ),
    ],
    ids=["booleans and numbers", "codes", "uuid", "big", "decimal", "nothing", "dates", "dates and moments"],
)
def test_python_objects_keep_their_meaning(values, expected):
    """Nothing is cut off and nothing rounded where several types are together."""
    assert stored(values, dtype=object) == expected


def test_long_columns_of_strings_are_cast_in_slices(monkeypatch):
    """One array of type string holds no more than 2 GiB; several do."""
    monkeypatch.setattr(tables, "_SLICE_ROWS", 2)
    column = table_from_frame(pd.DataFrame({"x": pd.Series(["a", "b", None, "d", "e"], dtype="str")})).column("x")
    assert (column.num_chunks, column.to_pylist()) == (3, ["a", "b", None, "d", "e"])


def test_the_index_is_left_out():
    """It is no column, whatever its name."""
    frame = pd.DataFrame({"x": [1, 2]}, index=pd.Index([7, 8], name="id"))
    assert table_from_frame(frame).column_names == ["x"]


@pytest.mark.parametrize(
    ("series", "words"),
    [
        (pd.Series([[1]]), "list<"),
        (pd.Series([{"a": 1}]), "struct<"),
        (pd.Series([b"x"]), "binary"),
        (pd.Series([pd.Timedelta("1s")]), "numbers of seconds"),
        (pd.Series([dt.time(1)]), "Give times of day"),
        (pd.Series([1j]), "complex"),
        (pd.Series(pd.interval_range(0, 1)), "struct|interval"),
        (pd.Series([object()]), "type object"),
        (pd.Series(["\ud800"], dtype=object), "not valid Unicode"),
        (pd.Series(np.array(["12026-01-01"], "datetime64[s]")), "years 1 to 9999"),
    ],
)
def test_what_a_dataset_can_not_hold_is_refused_by_name(series, words):
    """With what to do instead."""
    with pytest.raises(DataProcessingError, match=words) as caught:
        table_from_frame(pd.DataFrame({"good": [1], "bad": series}))
    assert (caught.value.column, caught.value.stage) == ("bad", "store")
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], "no column"),
        (["a", "a"], "Several columns are called 'a'"),
        ([" "], "no name"),
        (["a\0b"], "not valid text"),
        ([f"c{n}" for n in range(MAX_COLUMNS + 1)], "10,001 columns"),
    ],
    ids=["none", "twice", "blank", "NUL", "too many"],
)
def test_names_that_can_not_be_columns_are_refused(names, words):
    """Before anything is written."""
    with pytest.raises(DataProcessingError, match=words):
        table_from_frame(pd.DataFrame([range(len(names))], columns=names))


def test_an_arrow_table_gets_the_same_form():
    """As the same content from pandas."""
    table = pa.table(
        {
            "s": pa.array(["a", None]).dictionary_encode(),
            "f": pa.array([float("nan"), 1.0]),
            "t": pa.array([1, None], pa.timestamp("ms", "America/New_York")),
        }
    )
    found = to_stored(table, stored_schema(table.schema))
    assert [str(kind) for kind in found.schema.types] == ["string", "double", "timestamp[us, tz=UTC]"]
    assert found.column("f").to_pylist() == [None, 1.0]
