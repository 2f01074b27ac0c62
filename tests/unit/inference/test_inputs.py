"""What may be handed to ``predict``: every shape is read in the one way in which it can be meant, or refused."""

from __future__ import annotations

import collections
import dataclasses
from datetime import datetime
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_core.domain.columns import ColumnKind
from ml_core.domain.signature import InputColumn, Output, OutputKind, Signature
from ml_core.exceptions import DataProcessingError, SignatureMismatchError
from ml_core.inference.inputs import read_input


def signature(**columns: ColumnKind) -> Signature:
    """Of columns that may all be missing."""
    inputs = tuple(InputColumn(name, kind, nullable=True) for name, kind in columns.items())
    return Signature(inputs, Output(OutputKind.NUMBER))


ONE = signature(size=ColumnKind.NUMBER)
TWO = signature(size=ColumnKind.NUMBER, color=ColumnKind.CATEGORY)
NUMBERED = signature(**{"0": ColumnKind.NUMBER})
VALUES = [1.5, None, -3.0, 0.25]
SIZES = np.array([1.5, np.nan, -3.0, 0.25])
Pair = collections.namedtuple("Pair", "color size")  # the other way round than the signature


@dataclasses.dataclass
class Thing:
    color: str
    size: float


class Capsule:
    """A table of a library that pandas does not know, which is all that it shows of itself."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)


def size(data: object, of: Signature = ONE, **options: bool) -> tuple[list[float | None], bool]:
    """The values of ``size``, and whether they are of a single row."""
    table = read_input(data, of, **options)
    values = table.columns[of.inputs[0].name]
    assert table.rows == len(values)
    return [None if np.isnan(value) else value for value in values], table.is_single


@pytest.mark.parametrize(
    "data",
    [
        pd.Series(VALUES),
        pd.Series(VALUES, name="size"),
        pd.Series(VALUES, name="size", index=list("abcd")),
        pd.Series(VALUES, index=[7, 7, 8, 9]),
        pd.Series(VALUES, dtype="Float64"),
        pd.Series(VALUES, index=pd.date_range("2026-01-01", periods=4)),
        pd.Index(VALUES, dtype="float64"),
        pd.array(VALUES, dtype="Float64"),
        pa.array(VALUES),
        pa.chunked_array([VALUES[:1], VALUES[1:]]),
        Capsule(pa.chunked_array([VALUES])),
        SIZES,
        SIZES.reshape(-1, 1),
        np.ma.masked_invalid(SIZES),
        SIZES.astype(object),
        VALUES,
        tuple(VALUES),
        [[value] for value in VALUES],
        [{"size": value} for value in VALUES],
        {"size": VALUES},
        {"size": dict(enumerate(VALUES))},
        {"size": pd.Series(VALUES), "other": [1, 2, 3, 4]},
        {"size": pa.array(VALUES)},
        pd.DataFrame({"size": VALUES}),
        pd.DataFrame({"x": range(4)}, index=pd.Index(VALUES, name="size")),
        pa.table({"size": VALUES, "x": VALUES}),
        Capsule(pa.table({"x": VALUES, "size": VALUES})),
        np.array([(value,) for value in SIZES], dtype=[("size", float)]),
    ],
    ids=lambda data: f"{type(data).__module__}.{type(data).__name__}",
)
def test_four_values_of_a_model_of_one_column_are_four_rows(data):
    """However they are held, and whichever of the two ways of predicting is asked."""
    assert size(data) == (VALUES, False)
    assert size(data, is_batch=True)[0] == VALUES


@pytest.mark.parametrize(
    "data",
    [
        {"size": 1.5},
        {"size": 1.5, "other": [1, 2]},
        pd.Series({"size": 1.5}),
        pd.Series({"size": 1.5, "other": 3.0}),
        pd.Series([1.5]),
        pd.DataFrame({"size": [1.5]}),
        pd.DataFrame({"size": [1.5]}).iloc[0],
        pa.table({"size": [1.5]}),
        {"size": [1.5]},
        np.array([1.5]),
        [1.5],
        np.array([(1.5,)], dtype=[("size", float)])[0],
    ],
    ids=lambda data: f"{type(data).__module__}.{type(data).__name__}",
)
def test_one_value_is_one_row(data):
    """Also where it could be a list of one."""
    assert size(data) == ([1.5], True)


@pytest.mark.parametrize("data", [[], (), np.array([]), np.empty((0, 1)), pd.Series([], dtype=float), pd.DataFrame()])
def test_nothing_is_no_rows(data):
    """An empty answer, not an error: a program may have nothing to ask today."""
    assert size(data) == ([], False)


@pytest.mark.parametrize(
    "data",
    [
        pd.Series(VALUES, name="weight"),
        pd.Series(VALUES, index=list("abcd")),
        pd.Series({"Size": 1.5}),
        pd.Index(VALUES, name="weight"),
    ],
)
def test_a_series_that_may_be_either_is_refused(data):
    """A column of another name, or a row without the model's column: it can't be known."""
    with pytest.raises(SignatureMismatchError, match=r"series.to_frame\('size'\)"):
        read_input(data, ONE)


def test_a_numbered_column_is_not_mistaken_for_a_label():
    """The labels 0 to 3 are positions of values, or names of columns; a name or labels with gaps decide."""
    assert size(pd.Series(VALUES), NUMBERED) == (VALUES, False)
    assert size(pd.DataFrame(VALUES), NUMBERED) == (VALUES, False)
    assert size(pd.Series({0: 2.0, 5: 1.0}), NUMBERED) == ([2.0], True)
    for row_or_column in (pd.DataFrame([VALUES, VALUES]).iloc[0], pd.DataFrame(VALUES)[0]):
        with pytest.raises(SignatureMismatchError, match="or be one row"):
            read_input(row_or_column, NUMBERED)


@pytest.mark.parametrize("data", [None, 7.0, "row", b"row", np.array(7.0), np.zeros((2, 2, 2)), object(), {1.0, 2.0}])
def test_what_is_no_table_is_refused(data):
    """A single value is none either: it has no name."""
    with pytest.raises(DataProcessingError, match="neither a row nor a table"):
        read_input(data, ONE)


def test_values_are_a_row_but_not_a_batch():
    """Of a model of two columns."""
    for values in ([1.5, "red"], np.array([1.5, "red"], dtype=object)):
        assert size(values, TWO) == ([1.5], True)
        with pytest.raises(DataProcessingError, match="neither a row"):
            read_input(values, TWO, is_batch=True)
    with pytest.raises(SignatureMismatchError, match="size, color"):
        read_input([1.5, "red", 3], TWO)


@pytest.mark.parametrize(
    "data",
    [
        Pair("red", 1.5),
        Thing("red", 1.5),
        np.array([("red", 1.5)], dtype=[("color", "U3"), ("size", float)])[0],
        np.array([("red", 1.5)], dtype=[("color", "U3"), ("size", float)]),
        [Pair("red", 1.5)],
        [Thing("red", 1.5)],
        list(pd.DataFrame({"color": ["red"], "size": [1.5]}).itertuples()),
        [pd.DataFrame({"color": ["red"], "size": [1.5]})],
        pd.MultiIndex.from_tuples([("red", 1.5)], names=["color", "size"]),
        pd.DataFrame({"size": [1.5]}, index=pd.Index(["red"], name="color")),
    ],
    ids=lambda data: type(data).__name__,
)
def test_what_has_names_is_read_by_name(data):
    """Never by the order of its fields."""
    table = read_input(data, TWO)
    assert (table.columns["size"].tolist(), table.columns["color"].tolist()) == ([1.5], ["red"])


def test_a_named_tuple_is_one_row_of_a_model_of_one_column():
    """Not as many rows as it has fields."""
    assert size(Pair(7.0, 1.5)) == ([1.5], True)
    assert size([Pair(7.0, 1.5), Pair(8.0, 2.5)]) == ([1.5, 2.5], False)


def test_a_named_tuple_that_lost_a_name_is_refused():
    """``itertuples`` calls a column with a blank in its name ``_2``."""
    rows = list(pd.DataFrame({"size": [1.5, 2.5], "co lor": ["a", "b"]}).itertuples())
    with pytest.raises(SignatureMismatchError, match="records"):
        read_input(rows, signature(**{"size": ColumnKind.NUMBER, "co lor": ColumnKind.CATEGORY}))


@pytest.mark.parametrize(
    "data",
    [
        {"size": [1.5, 2.5], "color": ["red"]},
        {"size": 1.5, "color": ["red"]},
        {"size": pd.Series([1.5, 2.5]), "color": pd.Series(["red", "blue"], index=[1, 2])},
    ],
)
def test_columns_that_do_not_belong_together_are_refused(data):
    """Pandas would repeat the single one, or fill what is not in both."""
    with pytest.raises(DataProcessingError, match="differ in length or labels"):
        read_input(data, TWO)


@pytest.mark.parametrize(
    "data",
    [
        pd.DataFrame([[1.5, 2.5]], columns=["size", "size"]),
        [pd.DataFrame([[1.5, 2.5]], columns=["size", "size"])],
        pd.Series([1.5, 2.5], index=["size", "size"]),
        pa.Table.from_arrays([pa.array([1.5]), pa.array([2.5])], names=["size", "size"]),
    ],
)
def test_two_values_for_one_column_are_refused(data):
    """Neither is chosen."""
    with pytest.raises(SignatureMismatchError, match="several columns named 'size'"):
        read_input(data, TWO)


@pytest.mark.parametrize(
    ("data", "hint"),
    [
        ({"SIZE": 1.5}, "Did you mean 'size' instead of 'SIZE'"),
        ({" size": 1.5}, "Did you mean 'size'"),
        ({"sise": 1.5}, "Did you mean 'size'"),
        ({"x": 1.5}, "Known columns: size, color"),
        ({}, "Known columns: size, color"),
        ({"row": {"size": 1.5}}, "The value of 'row' has them"),
        ({"rows": [{"size": 1.5}]}, "The value of 'rows' has them"),
        ([{"size": 1.5}, {"inputs": {"size": 1.5}}], "Row 1 has none .* The value of 'inputs'"),
        (pd.DataFrame({"Size": [1.5, 2.5]}), "The table has none .* Did you mean 'size'"),
        (pd.Series([1.5, 2.5]), "Row 0 has none"),
        (pa.table({"x": [1.5]}), "The table has none"),
        ({"Size": [1.5, 2.5], "color": ["a", "b"]}, "none|'Size'"),
        ({"Size": 1.5, "color": "red"}, "no column 'size'. Did you mean 'size' instead of 'Size'"),
        (pd.DataFrame({"size": [1.5], "Color": ["red"]}), "no column 'color'. Did you mean"),
    ],
)
def test_names_that_are_not_the_models_are_refused(data, hint):
    """They would be ignored, and the answer would be that for a missing value."""
    with pytest.raises(SignatureMismatchError, match=hint):
        read_input(data, TWO)


def test_a_column_that_can_not_be_null_is_corrected():
    """A name that is near is more likely meant than left out; one that is not is ignored as ever."""
    strict = Signature((*TWO.inputs, InputColumn("colour", ColumnKind.NUMBER, nullable=False)), TWO.output)
    with pytest.raises(SignatureMismatchError, match="Did you mean 'colour' instead of 'coloru'"):
        read_input({"size": 1.5, "coloru": 1}, strict)
    with pytest.raises(SignatureMismatchError, match="'colour' is missing"):
        read_input({"size": 1.5, "x": 1}, strict)


def test_a_row_of_a_frame_keeps_its_whole_numbers():
    """As one Series they would be floats beside its floats, and 2**60 + 1 another number."""
    frame = pd.DataFrame({"size": [1.5], "color": [2**60 + 1]})
    for data in (frame, [frame]):
        assert read_input(data, TWO).columns["color"].tolist() == [str(2**60 + 1)]


CELLS = st.lists(
    st.tuples(
        st.none() | st.floats(-1e9, 1e9),
        st.none() | st.integers(-(2**63), 2**63 - 1) | st.text("abcé", max_size=3),
        st.none() | st.booleans(),
        st.none() | st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1)),  # noqa: DTZ001 - as in a table,
    ),
    min_size=1,
    max_size=6,
)
MIXED = signature(
    n=ColumnKind.NUMBER, c=ColumnKind.CATEGORY, b=ColumnKind.BOOLEAN, t=ColumnKind.DATETIME, d=ColumnKind.DATETIME
)


@given(CELLS)
def test_a_table_of_another_library_is_read_as_its_rows(cells):
    """Whichever types Arrow holds the values in: none changes, least of all a whole number beside a missing one."""
    rows = [
        {"n": n, "c": c if isinstance(c, int) else None, "b": b, "t": t, "d": t and t.date()} for n, c, b, t in cells
    ]
    arrow = pa.table(
        {
            "d": pa.array([row["d"] for row in rows], pa.date32()),
            "t": pa.array([row["t"] for row in rows], pa.timestamp("us")),
            "b": pa.array([row["b"] for row in rows], pa.bool_()),
            "c": pa.array([row["c"] for row in rows], pa.int64()),
            "n": pa.array([row["n"] for row in rows], pa.float64()),
        }
    )
    expected = read_input(rows, MIXED).columns
    for table in (arrow, Capsule(arrow), arrow.to_batches()[0]):
        found = read_input(table, MIXED).columns
        for name, values in expected.items():
            np.testing.assert_array_equal(found[name], values)


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
)
def test_texts_of_another_library_are_texts(kind):
    """Polars holds them as views."""
    values = ["a", None, "NA", "é"]
    table = pa.table({"color": pa.array(values).cast(kind)})
    assert read_input(Capsule(table), TWO).columns["color"].tolist() == values


def test_decimals_of_another_library_are_numbers():
    """Exactly."""
    table = pa.table({"size": [Decimal("1.50"), None]})
    assert size(Capsule(table)) == ([1.5, None], False)


def test_another_encoding_of_an_accent_is_no_other_name():
    """Of the two that Unicode has for one name, neither is unknown."""
    model = signature(größe=ColumnKind.NUMBER, color=ColumnKind.CATEGORY)
    model.check_names({"gro\u0308ße": 1.5, "id": 1}, 0)


def test_a_model_of_unknown_columns_answers_nothing():
    """Instead of no answers for four rows."""
    with pytest.raises(DataProcessingError, match="has no signature"):
        read_input(pd.DataFrame({"size": VALUES}), signature())
