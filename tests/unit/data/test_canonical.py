"""Data frames and JSON rows give the same canonical columns."""

import csv
import json
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from ml_core.data.canonical import columns_from_frame, frame_from_columns
from ml_core.data.kinds import infer_columns
from ml_core.data.reading import read_table, rows_from_frame
from ml_core.domain.columns import ColumnKind, DateOrder
from ml_core.domain.signature import InputColumn, Output, OutputKind, Signature
from ml_core.exceptions import DataProcessingError, SignatureMismatchError

OFFSET = timezone(timedelta(hours=-7))
floats = st.floats(allow_infinity=False)
int64s = st.integers(-(2**63), 2**63 - 1)
words = st.text(max_size=12) | st.sampled_from(["", "  ", "NA", "null", "yes", "no", "3", "3.0"])
naive = st.datetimes(datetime(1700, 1, 1), datetime(2250, 1, 1))  # noqa: DTZ001 - naive on purpose
NULL = st.none()

# For each: a kind, the values that a column may hold, and the dtype that pandas is told (None: it decides).
COLUMNS = {
    "float64": (ColumnKind.NUMBER, floats, "float64"),
    "float32": (ColumnKind.NUMBER, st.floats(width=32, allow_infinity=False), "float32"),
    "int64": (ColumnKind.NUMBER, int64s, "int64"),
    "uint8": (ColumnKind.NUMBER, st.integers(0, 255), "uint8"),
    "Int64": (ColumnKind.NUMBER, int64s | NULL, "Int64"),
    "Float64": (ColumnKind.NUMBER, st.floats(allow_infinity=False, allow_nan=False) | NULL, "Float64"),
    "int64[pyarrow]": (ColumnKind.NUMBER, int64s | NULL, "int64[pyarrow]"),
    "double[pyarrow]": (ColumnKind.NUMBER, st.floats(allow_infinity=False, allow_nan=False) | NULL, "double[pyarrow]"),
    "number objects": (ColumnKind.NUMBER, floats | int64s | NULL | st.booleans() | int64s.map(str), "object"),
    "bool": (ColumnKind.BOOLEAN, st.booleans(), "bool"),
    "boolean": (ColumnKind.BOOLEAN, st.booleans() | NULL, "boolean"),
    "bool[pyarrow]": (ColumnKind.BOOLEAN, st.booleans() | NULL, "bool[pyarrow]"),
    "bool objects": (ColumnKind.BOOLEAN, st.sampled_from([True, False, None, "true", "False", "NA", 0, 1.0]), "object"),
    "bool as number": (ColumnKind.NUMBER, st.booleans(), "bool"),
    "str": (ColumnKind.CATEGORY, words | NULL, "str"),
    "text": (ColumnKind.TEXT, words | NULL, "str"),
    "text objects": (ColumnKind.TEXT, words | NULL, "object"),
    "string[pyarrow]": (ColumnKind.TEXT, words | NULL, pd.ArrowDtype(pa.string())),
    "mixed category": (ColumnKind.CATEGORY, words | NULL | int64s | st.booleans() | floats, "object"),
    "int category": (ColumnKind.CATEGORY, int64s, "int64"),
    "float category": (ColumnKind.CATEGORY, floats, "float64"),
    "bool category": (ColumnKind.CATEGORY, st.booleans(), "bool"),
    "categorical": (ColumnKind.CATEGORY, words | NULL, "category"),
    "int categorical": (ColumnKind.CATEGORY, st.integers(0, 3) | NULL, "category"),
    "categorical number": (ColumnKind.NUMBER, st.integers(0, 3) | NULL, "category"),
    "datetime64[ns]": (ColumnKind.DATETIME, naive | NULL, "datetime64[ns]"),
    "datetime64[us]": (ColumnKind.DATETIME, st.datetimes() | NULL, "datetime64[us]"),
    "datetime64[us, tz]": (
        ColumnKind.DATETIME,
        st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1)).map(  # noqa: DTZ001 - made aware just below
            lambda t: t.replace(tzinfo=OFFSET)
        )
        | NULL,
        "datetime64[us, America/Phoenix]",
    ),
    "ISO strings": (ColumnKind.DATETIME, st.datetimes().map(datetime.isoformat) | NULL, "str"),
    "date strings": (ColumnKind.DATETIME, st.dates().map(lambda d: f"{d.day}.{d.month}.{d.year:04}"), "str"),
    "ordered dates": (
        ColumnKind.DATETIME,
        st.dates().map(lambda d: f"{d.day:02}/{d.month}/{d.year:04}")
        | st.datetimes().map(lambda t: f"{t.day}-{t.month:02}-{t.year:04} {t:%H:%M}")
        | st.datetimes().map(lambda t: f"{t.day}/{t.month}/{t.year:04} {t.hour}:{t:%M:%S}")
        | st.dates().map(str)
        | st.sampled_from(["", "NA"])
        | NULL,
        "str",
    ),
    "date objects": (ColumnKind.DATETIME, st.dates() | st.datetimes() | NULL, "object"),
}


def as_json(value):
    """The value as a client sends it."""
    if value is pd.NaT or value is pd.NA or value is None or value != value:
        return None
    return value.isoformat() if hasattr(value, "isoformat") else value


CELLS = {
    "number": st.one_of(
        int64s.map(str), st.floats(-1e9, 1e9).map(repr), st.sampled_from(["", "NA", "1e3", " 2 ", "-.5"])
    ),
    "boolean": st.sampled_from(["true", "FALSE", "True", "", "NA"]),
    "datetime": st.sampled_from(["2026-01-31", "2026-02-01T08:00:00+02:00", "2026/03/01 7:30", "1.4.2026", "null"]),
    "category": st.sampled_from(["yes", "no", "007", "3.0", "N/A", " ", "ä"]),
    "country": st.sampled_from(["NA", "DE", ""]),
    "zip": st.sampled_from(["01234", "1234", "00123", ""]),
    "phone": st.sampled_from(["+4930123456", "4930123456", "0301234567"]),
    "word or number": st.sampled_from(["1", "2.50", "None"]),
    "day first": st.sampled_from(["25/12/2026", "1/2/2026", "01/02/2026 8:30", "2026-01-31", "NA"]),
    "month first": st.sampled_from(["12-25-2026", "1-2-2026 3:30 PM", "01-02-2026 08:30:15", ""]),
    "text": st.sampled_from(["my printer does not work", "where is my invoice, please?", "", "call me back \nsoon!"]),
}


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_line_of_a_csv_sent_as_it_stands_agrees_with_its_frame(tmp_path_factory, data):
    """Whatever read_table and infer_columns made of the file, its raw cells are accepted and mean the same."""
    rows = data.draw(st.lists(st.fixed_dictionaries(CELLS), min_size=20, max_size=40))
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(CELLS))
        writer.writeheader()
        writer.writerows([dict.fromkeys(CELLS, "") | row for row in rows])
    frame = read_table(path).dropna(axis=1, how="all")
    try:
        inferred = infer_columns(frame)
    except DataProcessingError:  # all blank, or all the same
        reject()
    inputs = tuple(column.input for column in inferred if column.input)
    sent = Signature(inputs, Output(OutputKind.NUMBER)).columns_from_rows(rows)
    for name, array in columns_from_frame(frame, inputs).items():
        assert_equal(array, sent[name])


def assert_equal(first, second):
    assert first.dtype == second.dtype
    if first.dtype == object:
        assert first.tolist() == second.tolist()
    else:
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("case", COLUMNS)
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_frame_and_its_json_rows_agree(case, data):
    """Value by value, for every dtype that pandas may have made of the column."""
    kind, values, dtype = COLUMNS[case]
    raw = data.draw(st.lists(values, min_size=1, max_size=8))
    series = pd.Series(raw, dtype=dtype) if dtype != "datetime64[us, America/Phoenix]" else _aware(raw)
    order = DateOrder.DAY_FIRST if case == "ordered dates" else None
    column = InputColumn("c", kind, nullable=True, date_order=order)
    signature = Signature((column,), Output(OutputKind.NUMBER))
    rows = json.loads(json.dumps([{"c": as_json(value)} for value in series.tolist()]))
    from_frame = columns_from_frame(series.to_frame("c"), [column])["c"]
    assert_equal(from_frame, signature.columns_from_rows(rows)["c"])
    assert_equal(from_frame, signature.columns_from_rows([{"c": value} for value in series.tolist()])["c"])
    assert_equal(from_frame, signature.columns_from_rows(rows_from_frame(series.to_frame("c")))["c"])


def _aware(raw):
    return pd.Series(pd.to_datetime(pd.Series(raw, dtype="object"), utc=True).dt.as_unit("us")).dt.tz_convert(
        "America/Phoenix"
    )


def test_nanoseconds_are_cut_off_alike():
    """Digits below a microsecond, before and after 1970."""
    series = pd.Series(pd.to_datetime([1_700_000_000_123_456_789, -1], unit="ns"))
    column = InputColumn("c", ColumnKind.DATETIME, nullable=False)
    seconds = columns_from_frame(series.to_frame("c"), [column])["c"]
    assert seconds.tolist() == [1_700_000_000.123456, -1e-06]
    assert seconds.tolist() == column.read(series.tolist()).tolist()


@pytest.mark.parametrize(
    ("series", "kind"),
    [
        (pd.Series([1.0, np.inf]), ColumnKind.NUMBER),
        (pd.Series([1.0, np.nan]), ColumnKind.NUMBER),
        (pd.Series([True, None], dtype="boolean"), ColumnKind.BOOLEAN),
        (pd.Series([datetime(2026, 1, 1, tzinfo=UTC), None]), ColumnKind.DATETIME),
        (pd.Series(["1", "x"]), ColumnKind.NUMBER),
        (pd.Series(["a", None], dtype="category"), ColumnKind.CATEGORY),
        (pd.Series(["a", "b", "b", None], dtype="category").iloc[[0, 3]], ColumnKind.CATEGORY),
        (pd.Series(["1", "x", "1", "x"], dtype="category").iloc[[0, 1, 2]], ColumnKind.NUMBER),
        (pd.Series(["a", 5], dtype="object"), ColumnKind.TEXT),
        (pd.Series([1.5 + 0j, 2j]), ColumnKind.NUMBER),
        (pd.Series(["25/12/2026", None]), ColumnKind.DATETIME),
        (pd.Series(["25/12/2026", "2026-01-31", "12/25/2026"]), ColumnKind.DATETIME),
        (pd.Series(["25/12/2026", "25/12/2026 25:00"]), ColumnKind.DATETIME),
        (pd.Series(["25/12/2026", "٢٥/12/2026"]), ColumnKind.DATETIME),
    ],
)
def test_the_row_that_does_not_fit_is_named(series, kind):
    """With the same words as for a JSON row."""
    order = DateOrder.DAY_FIRST if kind is ColumnKind.DATETIME else None
    column = InputColumn("c", kind, nullable=False, date_order=order)
    with pytest.raises(SignatureMismatchError) as of_rows:
        column.read(series.tolist())
    with pytest.raises(SignatureMismatchError) as of_frame:
        columns_from_frame(series.to_frame("c"), [column])
    assert str(of_frame.value) == str(of_rows.value)
    assert of_frame.value.row == of_rows.value.row


def test_a_column_that_the_frame_lacks_is_null():
    """As a key that a row lacks."""
    frame = pd.DataFrame({"x": [1, 2]})
    columns = columns_from_frame(frame, [InputColumn("y", ColumnKind.TEXT, nullable=True)])
    assert columns["y"].tolist() == [None, None]


def test_column_names_are_compared_as_strings():
    """A frame made of an array has numbers for names; JSON has only strings."""
    columns = columns_from_frame(pd.DataFrame([[1.0, 2.0]]), [InputColumn("1", ColumnKind.NUMBER, nullable=False)])
    assert columns["1"].tolist() == [2.0]


def test_a_shuffled_index_changes_nothing():
    """Rows are counted by position."""
    frame = pd.DataFrame({"x": ["b", "a"]}, index=[9, 3])
    assert columns_from_frame(frame, [InputColumn("x", ColumnKind.CATEGORY, False)])["x"].tolist() == ["b", "a"]


def test_a_frame_of_columns_gives_the_same_columns():
    """There and back, for processors that want a frame."""
    kinds = [("n", "number"), ("d", "datetime"), ("c", "category")]
    columns = {
        "n": np.array([1.5, np.nan]),
        "d": np.array([1_700_000_000.25, np.nan]),
        "c": np.array(["a", None], dtype=object),
    }
    frame = frame_from_columns(columns, kinds)
    again = columns_from_frame(frame, [InputColumn(name, ColumnKind(kind), True) for name, kind in kinds])
    for name in columns:
        assert_equal(again[name], columns[name])
