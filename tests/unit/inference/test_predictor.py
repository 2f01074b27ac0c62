"""``Predictor``: one row or many in any shape, batches, probabilities, and a cache that never answers for another."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import sklearn

from ml_core.cache import CacheConfig, CacheMechanism
from ml_core.client.clients import PredictionResult
from ml_core.exceptions import DataProcessingError, PredictionError, SignatureMismatchError
from ml_core.inference.predictor import Predictor
from ml_core.models.loading import LoadedModel, load_version
from support.inprocess_cell import MEASURE, TICKET, fitted, renamed, servable
from support.tables import measures

FRAME = measures(10, seed=5).drop(columns=["outcome"])


class Manager:
    """Loads what it was given, and counts."""

    def __init__(self, **models: LoadedModel) -> None:
        self.models = models
        self.loads = 0

    def load_model(self, model_id: str, version: str | None = None) -> LoadedModel:
        self.loads += 1
        return self.models[model_id]


@pytest.fixture
def model(store, fitted_measures):
    return load_version(store, servable(store, fitted_measures))


@pytest.fixture
def text_model(store, fitted_tickets):
    return load_version(store, servable(store, fitted_tickets))


@pytest.fixture
def predictor(model, text_model):
    return Predictor(Manager(measures=model, tickets=text_model), CacheMechanism(CacheConfig()), tenant_id="acme")


@pytest.mark.parametrize(
    "row",
    [
        FRAME.iloc[0].to_dict(),
        FRAME.iloc[0],
        FRAME.iloc[:1],
        FRAME.iloc[0].to_numpy(),
        FRAME.iloc[0].tolist(),
    ],
    ids=["dict", "Series", "1-row frame", "1-d array", "list of values"],
)
def test_one_row_gives_one_prediction(predictor, model, row):
    """A Python value of the target's type."""
    expected = model.predict_frame(FRAME)[0]
    for given in (model, "measures"):
        answer = predictor.predict(given, row)
        assert answer == expected
        assert type(answer) is str


@pytest.mark.parametrize(
    "rows",
    [
        FRAME,
        FRAME.to_numpy(),
        FRAME.to_numpy().tolist(),
        FRAME.to_dict("records"),
        [row for _, row in FRAME.iterrows()],
    ],
    ids=["frame", "2-d array", "list of lists", "list of dicts", "list of Series"],
)
def test_many_rows_give_an_array(predictor, model, rows):
    """Of the same length and order."""
    answer = predictor.predict(model, rows)
    assert isinstance(answer, np.ndarray)
    assert answer.tolist() == model.predict_frame(FRAME).tolist()


@pytest.mark.parametrize(
    ("rows", "kind"),
    [
        (FRAME.set_axis([f"row {i}" for i in range(10)]), pd.DataFrame),
        (FRAME.iloc[3:4], pd.DataFrame),
        (FRAME.convert_dtypes(dtype_backend="pyarrow").set_axis(range(90, 100)), pd.DataFrame),
        (pl.DataFrame(FRAME), pl.DataFrame),
        (pa.Table.from_pandas(FRAME), pa.Table),
        (FRAME.to_dict("records"), pd.DataFrame),
        (FRAME.to_numpy(), pd.DataFrame),
        (FRAME.iloc[0], pd.DataFrame),
        (MEASURE, pd.DataFrame),
    ],
    ids=["index", "one row", "pandas of Arrow", "polars", "pyarrow", "rows", "array", "Series", "dict"],
)
def test_the_result_is_a_table_like_the_input_on_request(predictor, model, rows, kind):
    """Of the caller's library and with its index; the same predictions and probabilities as without."""
    table = predictor.predict(model, rows, as_frame=True)
    probabilities = predictor.predict_proba(model, rows, as_frame=True)
    assert (type(table), type(probabilities)) == (kind, kind)
    plain, mappings = predictor.predict(model, rows), predictor.predict_proba(model, rows)
    plain, mappings = ([plain], [mappings]) if isinstance(plain, str) else (list(plain), mappings)
    of_client = PredictionResult(
        predictions=plain, probabilities=mappings, model="m", version="1", rollout="stable", request_id="r"
    ).frame(rows)
    assert type(of_client) is kind
    columns = values_of(of_client)
    assert columns == {**values_of(table), **values_of(probabilities)}
    assert columns["prediction"] == plain
    assert [columns[f"probability_{each}"][0] for each in mappings[0]] == list(mappings[0].values())
    if isinstance(rows, pd.DataFrame):
        pd.testing.assert_index_equal(table.index, rows.index)
        pd.testing.assert_index_equal(of_client.index, rows.index)


def values_of(table):
    """Column → values."""
    return table.to_pydict() if isinstance(table, pa.Table) else {name: list(table[name]) for name in table.columns}


def test_a_list_of_one_row_gives_an_array_of_one(predictor, model):
    """A list is many rows, even of one; an empty one gives an empty array."""
    assert predictor.predict(model, [MEASURE]).shape == (1,)
    assert len(predictor.predict(model, [])) == 0


@pytest.mark.parametrize("data", [None, 7, "row", np.zeros((2, 2, 2)), [[1.0], 2.0]])
def test_what_is_no_table_is_refused(predictor, model, data):
    """With what to give instead."""
    with pytest.raises((DataProcessingError, SignatureMismatchError)):
        predictor.predict(model, data)


def test_too_few_values_name_the_columns(predictor, model):
    """A list of values has to have one for each column."""
    with pytest.raises(SignatureMismatchError, match="m0, m1"):
        predictor.predict(model, [1.0, 2.0])


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_a_batch_comes_back_as_a_list_in_order(predictor, model, batch_size):
    """Whatever the size of the calls."""
    answer = predictor.predict_batch(model=model, input_batch=FRAME.to_dict("records"), batch_size=batch_size)
    assert answer == model.predict_frame(FRAME).tolist()


def test_a_batch_of_rows_of_values_is_rows(predictor, model):
    """A list of lists, and an empty one."""
    rows = FRAME.to_numpy().tolist()
    assert predictor.predict_batch(model, rows) == model.predict_frame(FRAME).tolist()
    assert predictor.predict_batch(model, []) == []
    with pytest.raises(DataProcessingError):
        predictor.predict_batch(model, rows, batch_size=0)


def test_probabilities_are_by_class(predictor, text_model):
    """One dict for one row, a list for many."""
    one = predictor.predict_proba(text_model, TICKET)
    assert set(one) == {"account", "billing", "bug"}
    assert sum(one.values()) == pytest.approx(1.0)
    assert predictor.predict_proba(text_model, [TICKET]) == [one]


def test_a_remembered_answer_needs_no_model(predictor, model, monkeypatch):
    """The second call is answered from the cache, with the same type; ``use_cache=False`` asks the model."""
    first = predictor.predict(model, FRAME)
    monkeypatch.setattr(LoadedModel, "predict", lambda *_: pytest.fail("asked the model"))
    again = predictor.predict(model, FRAME)
    assert again.tolist() == first.tolist()
    with pytest.raises(BaseException, match="asked the model"):
        predictor.predict(model, FRAME, use_cache=False)


def test_the_cache_never_answers_for_another_version_tenant_or_value(predictor, model, store, fitted_measures):
    """Each of them is part of the key."""
    version = servable(store, fitted_measures)
    other_tenant = dataclasses.replace(version.ref, tenant_id=type(version.ref.tenant_id)("globex"))
    models = [
        model,
        LoadedModel(renamed(version, "2"), model.pipeline),
        LoadedModel(dataclasses.replace(version, ref=other_tenant), model.pipeline),
    ]
    for loaded in models:
        predictor.predict(loaded, MEASURE)
        predictor.predict(loaded, {**MEASURE, "m0": MEASURE["m0"] + 1})
    assert predictor._cache.statistics().hits == 0


def test_null_and_nan_and_a_missing_column_are_the_same(predictor, text_model):
    """So a frame's NaN is scored as JSON's null."""
    rows = [
        {**TICKET, "minutes_open": None},
        {**TICKET, "minutes_open": float("nan")},
        {**TICKET, "minutes_open": pd.NA},
        TICKET,
    ]
    answers = predictor.predict_proba(text_model, rows)
    assert all(answer == answers[0] for answer in answers)


def test_a_model_without_probabilities_says_so(predictor, store):
    """Instead of inventing some."""
    regressor = fitted("minutes", (FRAME, FRAME["m0"] * 2.0), algorithm="ridge")
    model = load_version(store, servable(store, regressor))
    assert type(predictor.predict(model, MEASURE)) is float
    with pytest.raises(PredictionError, match="no probabilities"):
        predictor.predict_proba(model, MEASURE)


def test_half_a_surrogate_pair_is_remembered_like_any_text(predictor, text_model):
    """A Python string may hold one; two halves are not the whole, so the cache keeps them apart."""
    halves = {**TICKET, "subject": "refund \ud83d\ude00"}
    assert predictor.predict(text_model, halves) == predictor.predict(text_model, halves)
    assert predictor._cache.statistics().hits == 1
    predictor.predict(text_model, {**TICKET, "subject": "refund \U0001f600"})
    assert predictor._cache.statistics().hits == 1


@pytest.mark.parametrize("value", [1e39, -1e300, 1.7e308])
@pytest.mark.parametrize("assume_finite", [False, True])
def test_a_huge_number_is_answered_by_a_tree(predictor, model, value, assume_finite):
    """In a library call, and with the settings of a replica: as the largest number that a tree can compare."""
    with sklearn.config_context(assume_finite=assume_finite):
        huge = predictor.predict(model, {**MEASURE, "m0": value})
        assert huge == predictor.predict(model, {**MEASURE, "m0": 1e30 if value > 0 else -1e30})
