"""A table means the same to ``MLSystem.predict`` in this process and to ``MLClient.predict`` over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml_core.client import MLClient
from ml_core.domain.api_key import Scope
from ml_core.domain.assignment import AssignmentDelta
from ml_core.domain.columns import ColumnKind
from ml_core.exceptions import SignatureMismatchError
from ml_core.ids import ModelId
from ml_core.inference.predictor import Predictor
from ml_core.models.loading import LoadedModel, load_version
from ml_core.models.store import LocalStore
from ml_core.settings import ServingSettings
from ml_core.training.fit import fit_model
from ml_core.training.request import TrainingRequest
from support.inprocess_cell import ACME, listening, make_cell, promote, servable

KINDS = {
    "n": ColumnKind.NUMBER,
    "c": ColumnKind.CATEGORY,
    "b": ColumnKind.BOOLEAN,
    "t": ColumnKind.DATETIME,
    "x": ColumnKind.TEXT,
}
WORDS = ["true", "3", "2026-01-02", "1152921504606846977", "a", "00000000-0000-0000-0000-000000000003"]


class Capsule:
    """A table of a library that pandas does not know, which is all that it shows of itself."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LoadedModel, MLClient]]:
    """One model of a column of each kind, loaded here and served over HTTP."""
    random = np.random.default_rng(0)
    rows = 200
    frame = pd.DataFrame(
        {
            "n": random.normal(size=rows) * 3,
            "c": random.choice(WORDS, rows),
            "b": random.choice([True, False], rows),
            "t": pd.Timestamp("2026-01-01") + pd.to_timedelta(random.integers(0, 10**8, rows), unit="s"),
            "x": [" ".join(random.choice(["red", "green", "blue", "late"], 4)) for _ in range(rows)],
        }
    )
    frame = frame.astype(object)
    for position, name in enumerate(frame.columns):
        frame.loc[position * 3 : position * 3 + 1, name] = None
    y = random.choice(["p", "q", "r"], rows)  # by chance, so that a forest makes use of every column
    hyperparameters = {"n_estimators": 20, "max_depth": 8}
    fitted = fit_model(
        TrainingRequest(ModelId("mixed"), None, (frame, y), hyperparameters=hyperparameters, kinds=KINDS)
    )
    assert {column.name: column.kind for column in fitted.signature.inputs} == KINDS
    store = LocalStore(tmp_path_factory.mktemp("store"))
    cell = make_cell(store, ServingSettings())
    cell.assignment.apply(AssignmentDelta(1, True, {ACME: True}, {}, {}))
    version = servable(store, fitted)
    promote(cell.table, version)
    key = cell.key(ACME, Scope.PREDICT)
    with listening(cell) as url, MLClient(url, api_key=key, tenant_id="acme") as client:
        yield load_version(store, version), client
    cell.table.close()
    cell.service.close()


MOMENTS = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1))  # noqa: DTZ001 - as most tables have them
NUMBERS = st.floats(-1e6, 1e6)


def column(values: st.SearchStrategy[Any], make: Callable[[list[Any]], Any], missing: Any = None) -> Any:
    """A strategy of columns of four values, some of them missing."""
    return st.lists(values | st.just(missing), min_size=4, max_size=4).map(make)


def held_as(dtype: Any) -> Callable[[list[Any]], Any]:
    return lambda values: pd.Series(values, dtype=dtype)


COLUMNS = {
    "n": st.one_of(
        column(NUMBERS, held_as("float64"), np.nan),
        column(NUMBERS, held_as("Float64"), pd.NA),
        column(st.floats(-1e6, 1e6, width=32), held_as("float32"), np.nan),
        column(st.floats(-1e6, 1e6, width=32).map(np.float32), held_as(object)),
        column(st.integers(-(10**6), 10**6), held_as("Int64"), pd.NA),
        column(st.integers(-(10**6), 10**6).map(np.int64), held_as(object), np.nan),
        column(st.decimals(-1000, 1000, places=2), held_as(object), Decimal("NaN")),
        column(st.booleans(), held_as("boolean"), pd.NA),
        column(st.sampled_from(["1.5", " 2 ", "", "NA", "1e3"]), held_as(object)),
        column(st.integers(2**62, 2**70), held_as(object)),
    ),
    "c": st.one_of(
        column(st.sampled_from(WORDS), held_as(object), np.nan),
        column(st.sampled_from(WORDS), held_as("category")),
        column(st.sampled_from(WORDS), held_as("string[pyarrow]"), pd.NA),
        column(st.sampled_from([3, 2**60 + 1, 5]), held_as("Int64"), pd.NA),
        column(st.sampled_from([3, 2**60 + 1]), held_as("category")),
        column(st.sampled_from([3.0, 0.1]), held_as("float64"), np.nan),
        column(st.booleans(), held_as("boolean"), pd.NA),
        column(st.booleans() | st.sampled_from([np.True_, "True"]), held_as(object)),
        column(st.sampled_from([date(2026, 1, 2), date(2026, 1, 3)]), held_as(object), pd.NaT),
        column(st.just(UUID(int=3)), held_as(object)),
        column(st.integers(2**64, 2**66), held_as(object)),
    ),
    "b": st.one_of(
        column(st.booleans(), held_as("boolean"), pd.NA),
        column(st.booleans() | st.sampled_from([0, 1, 1.0, "true", "False", np.True_, np.int8(0)]), held_as(object)),
        column(st.sampled_from([0.0, 1.0]), held_as("float64"), np.nan),
    ),
    "t": st.one_of(
        column(MOMENTS, held_as("datetime64[us]"), pd.NaT),
        column(MOMENTS, held_as("datetime64[ns]"), pd.NaT),
        column(
            MOMENTS.map(lambda moment: moment.replace(tzinfo=UTC)), held_as("datetime64[us, Europe/Berlin]"), pd.NaT
        ),
        column(MOMENTS.map(datetime.date), held_as(object)),
        column(MOMENTS, held_as(object), pd.NaT),
        column(MOMENTS.map(pd.Timestamp), held_as(object), pd.NA),
        column(MOMENTS.map(np.datetime64), held_as(object), np.datetime64("NaT")),
        column(MOMENTS.map(datetime.isoformat), held_as(object)),
    ),
    "x": st.one_of(
        column(st.sampled_from(["late red", "NA", "blue ✓", " "]), held_as(object)),
        column(st.sampled_from(["late red", "blue ✓"]), held_as("category")),
        column(st.sampled_from(["late red", "blue ✓"]), held_as("string[pyarrow]"), pd.NA),
    ),
    "extra": st.one_of(
        column(st.just(timedelta(1)), held_as(object)), column(st.just(b"x"), held_as(object)), st.just([[1], {}, 2, 3])
    ),
}


SHAPES = ("frame", "columns", "rows", "index", "series", "tuples", "array")


def assert_same(both: tuple[LoadedModel, MLClient], table: Any) -> None:
    """Equal to the last bit, or refused for the same row and column."""
    model, client = both
    predictor = Predictor(None)  # type: ignore[arg-type] - it is given a model and loads none
    answers = []
    for ask in (
        lambda: predictor.predict_proba(model, table),
        lambda: client.predict("mixed", table, proba=True).probabilities,
    ):
        try:
            found = ask()
            answers.append(found if isinstance(found, list) else [found])
        except SignatureMismatchError as error:
            answers.append((error.row, error.column))
    assert answers[0] == answers[1]


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.fixed_dictionaries(COLUMNS), st.sampled_from(["frame", "columns", "rows", "index", "series", "tuples", "array"])
)
def test_a_frame_over_http_is_answered_as_in_this_process(both, columns, shape):
    """Whatever types pandas holds the values in; and so are its columns and its rows."""
    frame = pd.DataFrame(columns)
    if shape == "columns":
        assert_same(both, columns)
    elif shape == "rows":
        rows = frame.to_dict("records")
        assert_same(both, rows)
        assert_same(both, rows[0])
    elif shape in ("series", "tuples"):
        named = [row for _, row in frame.astype(object).iterrows()] if shape == "series" else list(frame.itertuples())
        assert_same(both, named)
        assert_same(both, named[0])
    elif shape == "array":
        assert_same(both, frame.to_records(index=False))
    else:
        assert_same(both, frame.set_index("c") if shape == "index" else frame)


@settings(max_examples=30)
@given(st.fixed_dictionaries({name: COLUMNS[name] for name in ("n", "c", "b", "t", "x")}))
def test_a_table_of_another_library_over_http(both, columns):
    """By the Arrow interface; what Arrow can't hold is not in such a table."""
    try:
        table = pa.Table.from_pandas(pd.DataFrame(columns), preserve_index=False)
    except (pa.ArrowException, OverflowError, ValueError, TypeError):
        return
    assert_same(both, table)
    assert_same(both, Capsule(table))


@pytest.mark.parametrize("value", [timedelta(1), b"x", time(8), complex(1), object(), [1], {"a": 1}, {1}])
def test_what_no_column_holds_is_refused_alike(both, value):
    """And named; in a column that the model does not have it is ignored."""
    for name in KINDS:
        assert_same(both, [{"n": 1.0}, {"n": 2.0, name: value}])
    assert_same(both, {"n": 2.0, "other": value})


@pytest.mark.parametrize("name", ["n", "b", "t"])
def test_an_infinity_is_no_missing_value(both, name):
    """JSON has none, and a library may write null for it."""
    assert_same(both, [{"n": 1.0}, {"c": "a", name: float("inf")}])
