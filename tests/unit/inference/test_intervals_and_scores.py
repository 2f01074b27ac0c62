"""Intervals of regressions and scores of anomaly detectors, over HTTP and in Python."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from ml_core.exceptions import InvalidRequestError
from ml_core.ids import ModelId
from ml_core.inference.predictor import Predictor
from ml_core.models.loading import LoadedModel
from ml_core.training.fit import FittedModel, fit_model
from ml_core.training.request import TrainingRequest
from support.inprocess_cell import ACME, MEASURE, Cell, promote, servable
from support.tables import measures

FRAME = measures(300).drop(columns=["outcome"])
ROWS = FRAME.head(20).to_dict("records")


def trained(model_id: str, model_type: str, target: Any, **hyperparameters: Any) -> FittedModel:
    request = TrainingRequest(ModelId(model_id), model_type, (FRAME, target), hyperparameters=hyperparameters)
    return fit_model(request)


@pytest.fixture(scope="module")
def price() -> FittedModel:
    """A regression with 60 held-out rows."""
    noise = np.random.default_rng(3).normal(size=len(FRAME))
    return trained("price", "regression", FRAME["m0"] * 3 + noise, algorithm="ridge")


@pytest.fixture(scope="module")
def odd() -> FittedModel:
    """An isolation forest that calls a twentieth of its rows anomalies."""
    return trained("odd", "anomaly_detection", None, n_estimators=20, contamination=0.05)


@pytest.fixture
def both(cell: Cell, price: FittedModel, odd: FittedModel) -> Cell:
    """A cell that serves them."""
    for model in (price, odd):
        promote(cell.table, servable(cell.store, model))
    return cell


@pytest.fixture
def predictor() -> Predictor:
    """For models that are loaded already."""
    return Predictor(None, tenant_id=ACME)  # type: ignore[arg-type]


def test_intervals_over_http_are_those_in_python(
    both: Cell, key: str, price: FittedModel, predictor: Predictor
) -> None:
    """Around each prediction, as wide as the coverage asks for."""
    widths = []
    for coverage in (0.5, 0.9):
        body = both.predict("price", ROWS, key=key, interval=coverage).json()
        low, high = np.array(body["intervals"]).T
        assert np.allclose((low + high) / 2, body["predictions"])
        widths.append(np.unique((high - low).round(9)).tolist())
        loaded = LoadedModel(servable(both.store, price), price.pipeline)
        assert np.allclose(predictor.predict_interval(loaded, FRAME.head(20), coverage), body["intervals"])
        assert predictor.predict_interval(loaded, ROWS[0], coverage) == pytest.approx(tuple(body["intervals"][0]))
    assert len(widths[0]) == len(widths[1]) == 1
    assert 0 < widths[0][0] < widths[1][0]


@pytest.mark.parametrize("interval", [0, 1, -1, 90, True, "0.9", [0.9], 0.999])
def test_a_coverage_that_can_not_be_had_is_refused(both: Cell, key: str, interval: Any) -> None:
    """One that is no probability, or that 60 held-out rows do not allow."""
    answer = both.predict("price", ROWS, key=key, interval=interval)
    assert (answer.status_code, answer.json()["error"]["details"]["field"]) == (400, "interval")


def test_what_a_model_does_not_have_is_refused_by_name(both: Cell, key: str) -> None:
    """A classifier has neither."""
    for body in ({"interval": 0.9}, {"scores": True}):
        answer = both.predict("measures", [MEASURE], key=key, **body)
        assert (answer.status_code, answer.json()["error"]["details"]["field"]) == (400, next(iter(body)))


def test_a_score_above_the_threshold_is_an_anomaly(
    both: Cell, key: str, odd: FittedModel, predictor: Predictor
) -> None:
    """Exactly; and a row far from all others has a higher score than any of them."""
    rows = [*FRAME.head(99).to_dict("records"), dict.fromkeys(FRAME.columns, 40.0)]
    body = both.predict("odd", rows, key=key, scores=True).json()
    assert ((np.array(body["scores"]) > body["threshold"]) == (np.array(body["predictions"]) == -1)).all()
    assert 0 < body["predictions"].count(-1) < 20
    assert np.argmax(body["scores"]) == 99
    assert 0 < min(body["scores"]) < max(body["scores"]) < 1
    loaded = LoadedModel(servable(both.store, odd), odd.pipeline)
    assert predictor.predict_scores(loaded, rows) == pytest.approx(np.array(body["scores"]))
    assert predictor.predict_scores(loaded, rows[0]) == pytest.approx(body["scores"][0])


def test_a_regression_has_no_scores(both: Cell, price: FittedModel, predictor: Predictor) -> None:
    """In Python as over HTTP."""
    with pytest.raises(InvalidRequestError, match="no anomaly scores"):
        predictor.predict_scores(LoadedModel(servable(both.store, price), price.pipeline), ROWS)


def test_contamination_chooses_the_threshold(odd: FittedModel) -> None:
    """A twentieth of the training rows is above it."""
    assert odd.metrics["train"]["anomaly_rate"] == pytest.approx(0.05, abs=0.005)


def test_requests_that_ask_for_different_things_share_a_batch(both: Cell, key: str) -> None:
    """Each gets what it asked for, and an anomaly detector that is asked for probabilities has none."""

    async def ask() -> list[Any]:
        bodies: list[dict[str, Any]] = [{"scores": True}, {}, {"proba": True}]
        path = "/t/acme/models/odd/predict"
        return await asyncio.gather(*(both.ask_async(path, key, {"rows": ROWS, **body}) for body in bodies))

    scored, plain, probable = (answer.json() for answer in asyncio.run(ask()))
    assert scored["predictions"] == plain["predictions"] == probable["predictions"]
    assert len(scored["scores"]) == len(ROWS)
    assert "scores" not in plain
    assert "scores" not in probable
    assert probable["probabilities"] is None


def test_the_open_inference_protocol_answers_as_before(both: Cell, key: str) -> None:
    """An anomaly detector that is asked for probabilities gives its predictions alone."""
    columns = [
        {"name": name, "shape": [20], "datatype": "FP64", "data": FRAME[name].head(20).tolist()} for name in FRAME
    ]
    body = {"inputs": columns, "outputs": [{"name": "predictions"}, {"name": "probabilities"}]}
    answer = both.ask("POST", "/t/acme/v2/models/odd/infer", key=key, json=body)
    assert answer.status_code == 200
    (output,) = answer.json()["outputs"]
    assert output["data"] == both.predict("odd", ROWS, key=key).json()["predictions"]
