"""One table in the frames of several libraries: each reads, sends and stores the values that the rows have."""

import datetime as dt

import numpy as np
import orjson
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ml_core.client.rows import rows_to_send
from ml_core.data.canonical import columns_from_frame
from ml_core.data.frames import as_frame
from ml_core.data.kinds import infer_columns
from ml_core.data.tables import frame_of, table_from_frame
from ml_core.domain.columns import ColumnKind
from ml_core.domain.signature import InputColumn, Output, OutputKind, Signature
from ml_core.exceptions import DataProcessingError, SignatureMismatchError
from ml_core.inference.inputs import read_input

BERLIN = "Europe/Berlin"
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6) | st.sampled_from(["NA", "1.5", ""])
# Within what nanoseconds hold; naive, as a column of a table may be.
MOMENTS = st.integers(-8_520_336_000 * 10**6, 8_835_984_000 * 10**6).map(
    lambda microseconds: dt.datetime(1970, 1, 1) + dt.timedelta(microseconds=microseconds)  # noqa: DTZ001
)
# Name → kind, type in polars, values.
COLUMNS = {
    "whole": (ColumnKind.NUMBER, pl.Int64, st.integers(-(2**63), 2**63 - 1)),
    "small": (ColumnKind.NUMBER, pl.Int8, st.integers(-128, 127)),
    "unsigned": (ColumnKind.NUMBER, pl.UInt64, st.integers(0, 2**64 - 1)),
    "ratio": (ColumnKind.NUMBER, pl.Float64, st.floats(allow_nan=False, allow_infinity=False)),
    "price": (ColumnKind.NUMBER, pl.Decimal(18, 4), st.decimals(-(10**12), 10**12, places=4)),
    "flag": (ColumnKind.BOOLEAN, pl.Boolean, st.booleans()),
    "code": (ColumnKind.CATEGORY, pl.Int64, st.integers(-(2**63), 2**63 - 1)),
    "plan": (ColumnKind.CATEGORY, pl.String, TEXTS),
    "note": (ColumnKind.TEXT, pl.String, TEXTS),
    "day": (ColumnKind.DATETIME, pl.Date, st.dates(dt.date(1, 1, 1), dt.date(9999, 12, 31))),
    "moment": (ColumnKind.DATETIME, pl.Datetime("us", "UTC"), MOMENTS.map(lambda each: each.replace(tzinfo=dt.UTC))),
    "naive": (ColumnKind.DATETIME, pl.Datetime("us"), MOMENTS),
}
SCHEMA = {name: kind for name, (_, kind, _) in COLUMNS.items()}
SIGNATURE = Signature(
    tuple(InputColumn(name, kind, nullable=True) for name, (kind, _, _) in COLUMNS.items()), Output(OutputKind.NUMBER)
)
ROWS = st.lists(st.fixed_dictionaries({n: st.none() | values for n, (_, _, values) in COLUMNS.items()}), min_size=1)


def classic(rows):
    """Numpy's dtypes where they hold every value, else objects."""
    return pd.DataFrame({name: pd.Series([row[name] for row in rows], dtype=object) for name in SCHEMA})


def nullable(rows, text="string"):
    """The dtypes of pandas that hold a missing value."""
    types = {"whole": "Int64", "small": "Int8", "unsigned": "UInt64", "ratio": "Float64", "flag": "boolean"}
    types |= {"code": "Int64", "plan": text, "note": text}
    frame = classic(rows).astype(types)
    moments = {
        name: pd.to_datetime(frame[name], utc=True).astype("datetime64[us, UTC]") for name in ("moment", "naive")
    }
    return frame.assign(moment=moments["moment"], naive=moments["naive"].dt.tz_localize(None))


POLARS = {
    "polars": lambda frame: frame,
    "polars, categorical": lambda frame: frame.with_columns(pl.col("plan", "note").cast(pl.Categorical)),
    "polars, enum": lambda frame: frame.with_columns(
        pl.col("plan").cast(pl.Enum(frame["plan"].unique().drop_nulls().to_list()))
    ),
    "polars, elsewhere": lambda frame: frame.with_columns(pl.col("moment").dt.convert_time_zone(BERLIN)),
    "polars, nanoseconds": lambda frame: frame.with_columns(pl.col("moment", "naive").dt.cast_time_unit("ns")),
    "polars, several chunks": lambda frame: pl.concat([frame, frame.head(0)], rechunk=False),
    "arrow": lambda frame: frame.to_arrow(),
    "arrow, dictionary": lambda frame: _encoded(frame.to_arrow()),
    "arrow, batches": lambda frame: pa.Table.from_batches(frame.to_arrow().to_batches(max_chunksize=2)),
    "pandas of Arrow": lambda frame: frame.to_arrow().to_pandas(types_mapper=pd.ArrowDtype),
    "mapping": lambda frame: frame.to_dict(as_series=False),
    "mapping of series": lambda frame: frame.to_dict(),
}
PANDAS = {
    "objects": classic,
    "nullable": nullable,
    "pyarrow strings": lambda rows: nullable(rows, "string[pyarrow]"),
    "category": lambda rows: nullable(rows).astype({"plan": "category", "note": "category", "code": "category"}),
    "elsewhere": lambda rows: nullable(rows).assign(moment=lambda frame: frame["moment"].dt.tz_convert(BERLIN)),
    "an index": lambda rows: nullable(rows).set_axis([f"row {i}" for i in range(len(rows))]),
}


def _encoded(table):
    for name in ("plan", "note", "code"):
        table = table.set_column(table.column_names.index(name), name, table[name].dictionary_encode())
    return table


def containers(rows):
    """Name → the rows in that form."""
    frame = pl.DataFrame(rows, schema=SCHEMA)
    return {name: make(frame) for name, make in POLARS.items()} | {name: make(rows) for name, make in PANDAS.items()}


def check(name, found, expected):
    """Fail with the column that differs, and both arrays of it."""
    for column, array in expected.items():
        assert np.array_equal(found[column], array, equal_nan=array.dtype.kind == "f"), (
            name,
            column,
            found[column],
            array,
        )


NOTHING = dict.fromkeys(SCHEMA)
LARGE = {**NOTHING, "whole": 2**53 + 1, "unsigned": 2**64 - 1, "code": 2**60 + 1}


@settings(max_examples=20, deadline=None)
@example(rows=[LARGE, NOTHING])  # beside a null pandas makes floats of whole numbers, which round these
@given(rows=ROWS)
def test_each_container_holds_what_the_rows_hold(rows):
    """In a prediction here, over HTTP, and in a dataset that a job reads."""
    rows = [*rows, NOTHING]  # several, and each column has a null
    expected = SIGNATURE.columns_from_rows(rows)
    for name, table in containers(rows).items():
        check(name, read_input(table, SIGNATURE).columns, expected)
        sent = orjson.loads(orjson.dumps(rows_to_send(table)))
        check(name, SIGNATURE.columns_from_rows(sent), expected)
        stored = frame_of(table_from_frame(as_frame(table)))
        check(name, columns_from_frame(stored, SIGNATURE.inputs), expected)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pl.Series([[1, 2], [3]]), "holds values of type ndarray|of type list"),
        (pl.Series([{"a": 1}, {"a": 2}]), "holds values of type dict|of type struct"),
        (pl.Series([b"x", b"y"]), "holds values of type bytes|of type binary"),
        (pl.Series([dt.time(1), dt.time(2)]), "holds values of type time|of type time64"),
        (pl.Series([dt.timedelta(1), dt.timedelta(2)]), "holds durations|of type duration"),
    ],
    ids=["list", "struct", "binary", "time", "duration"],
)
def test_a_type_that_no_kind_holds_is_refused_with_its_column(column, message):
    """In training, in a dataset and in a prediction that reads it."""
    table = pl.DataFrame({"odd": column, "size": [1, 2]})
    reading = Signature((InputColumn("odd", ColumnKind.NUMBER, True),), Output(OutputKind.NUMBER))
    with pytest.raises(DataProcessingError, match=rf"'odd' ({message})"):
        infer_columns(as_frame(table))
    with pytest.raises(DataProcessingError, match=rf"'odd' is ({message})|'odd' ({message})"):
        table_from_frame(as_frame(table))
    with pytest.raises(SignatureMismatchError, match="odd"):
        read_input(table, reading)


def test_a_query_is_refused_until_it_was_run():
    """A lazy frame has no rows yet; the message says how it gets them."""
    with pytest.raises(DataProcessingError, match=r"LazyFrame is a query.*collect"):
        as_frame(pl.DataFrame({"a": [1]}).lazy())
