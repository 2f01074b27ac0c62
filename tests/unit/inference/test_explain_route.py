"""``explain`` over ASGI: contributions, refusals, bounds, and predictions that do not wait for it."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace

import pytest

from ml_core.client import MLClient
from ml_core.domain.api_key import Scope
from ml_core.evaluation.explaining import Explainer
from ml_core.inference import explanations
from ml_core.inference.inputs import read_input
from ml_core.models.loading import load_version
from support.inprocess_cell import ACME, GLOBEX, MEASURE, TICKET, fitted, listening, promote, renamed, servable
from support.tables import split_target, tickets
from support.waiting import wait_until

PATH = "/t/acme/models/measures/explain"


def explain(cell, key, rows, model="measures", **body):
    return cell.ask("POST", f"/t/acme/models/{model}/explain", key=key, json={"rows": rows, **body})


def test_contributions_add_up_to_the_probabilities(cell, key):
    """For each class of each row, by raw column; the probabilities are those of predict."""
    answer = explain(cell, key, [MEASURE, {**MEASURE, "m0": 3.0}])
    body = answer.json()
    assert answer.status_code == 200
    assert body["request_id"] == answer.headers["x-request-id"]
    named = {name: body[name] for name in ("method", "unit", "model", "version", "rollout")}
    assert named == {
        "method": "tree",
        "unit": "probability",
        "model": "measures",
        "version": "1",
        "rollout": "stable",
    }
    predicted = cell.predict("measures", [MEASURE, {**MEASURE, "m0": 3.0}], key=key, proba=True).json()
    for row, label, probabilities in zip(
        body["explanations"], predicted["predictions"], predicted["probabilities"], strict=True
    ):
        assert row["prediction"] == label
        for output in row["outputs"]:
            total = output["base"] + sum(output["contributions"].values())
            assert total == pytest.approx(output["score"], abs=1e-9)
            assert total == pytest.approx(probabilities[output["label"]], abs=1e-9)
            assert output["contributions"].keys() == MEASURE.keys()


def test_the_strongest_words_of_a_text_are_shown(cell, key):
    """What they add is part of their column's contribution."""
    body = explain(cell, key, [TICKET], model="tickets").json()
    (row,) = body["explanations"]
    assert (body["method"], body["unit"], row["prediction"]) == ("linear", "logit", "billing")
    assert "charged" in row["words"]["subject"]
    assert len(row["words"]["subject"]) <= 5


@pytest.mark.parametrize(
    ("body", "status", "hint"),
    [
        ({"rows": []}, 400, "'rows'"),
        ({"rows": [MEASURE], "proba": True}, 400, "'proba' is not known"),
        ({"rows": [{**MEASURE, "m0": "many"}]}, 422, "column 'm0' is 'many'"),
        ({"rows": [MEASURE] * 101}, 413, "the limit is 100"),
        ({"rows": [MEASURE], "version": "9"}, 404, "version"),
    ],
)
def test_what_can_not_be_explained_is_refused(cell, key, body, status, hint):
    """As predict refuses it, with fewer rows."""
    answer = cell.ask("POST", PATH, key=key, json=body)
    assert answer.status_code == status
    assert hint in answer.json()["error"]["message"]


@pytest.mark.parametrize("option", ["proba", "scores", "interval"])
def test_what_only_predict_answers_is_refused(cell, key, option):
    """Rather than ignored."""
    answer = cell.ask("POST", PATH, key=key, json={"rows": [MEASURE], option: 0.9 if option == "interval" else True})
    assert answer.status_code == 400
    assert option in answer.json()["error"]["message"]


def test_it_needs_a_key_of_the_tenant_with_the_scope_predict(cell):
    """As predict does."""
    assert cell.ask("POST", PATH, json={"rows": [MEASURE]}).status_code == 401
    assert explain(cell, cell.key(ACME, Scope.LABEL), [MEASURE]).status_code == 403
    assert explain(cell, cell.key(GLOBEX, Scope.PREDICT), [MEASURE]).status_code == 404


def test_too_much_work_is_refused_with_the_number_of_rows(cell, key, monkeypatch):
    """And where no row is cheap enough, with the way that has no limit."""
    work = Explainer(cell.table.acquire_pointer(("acme", "measures", "production")).model).work_per_row
    monkeypatch.setattr(explanations, "MAX_WORK", 3 * work)
    assert explain(cell, key, [MEASURE] * 3).status_code == 200
    error = explain(cell, key, [MEASURE] * 4).json()["error"]
    assert (error["code"], error["details"]["limit"]) == ("too_large", 3)
    monkeypatch.setattr(explanations, "MAX_WORK", work - 1)
    answer = explain(cell, key, [MEASURE])
    assert (answer.status_code, "MLSystem.explain" in answer.text) == (413, True)


def test_predictions_do_not_wait_for_explanations(cell, key, monkeypatch):
    """While the thread is busy a prediction is answered; explanations wait, a few of them, until their deadline."""
    is_free, entered, steps = threading.Event(), threading.Event(), []

    def slow(self, columns):
        steps.append(columns)
        entered.set()
        assert is_free.wait(20)
        raise AssertionError("nobody waits for this answer any more")

    monkeypatch.setattr(Explainer, "explain", slow)
    monkeypatch.setattr(explanations, "_STEP_WORK", 0)

    async def scenario():
        headers = {"authorization": f"Bearer {key}", "x-request-timeout-ms": "1000"}
        async with cell.client() as client:
            asked = [
                asyncio.create_task(client.post(PATH, headers=headers, json={"rows": [MEASURE] * 3})) for _ in range(9)
            ]
            await asyncio.to_thread(entered.wait, 20)
            predicted = await cell.ask_async("/t/acme/models/measures/predict", key, {"rows": [MEASURE]})
            return predicted, [answer.status_code for answer in await asyncio.gather(*asked)]

    try:
        predicted, statuses = asyncio.run(scenario())
        assert predicted.status_code == 200
        assert sorted(statuses) == [429, *[504] * 8]
    finally:
        is_free.set()
    # What nobody waits for any more is not begun: neither further steps nor further requests.
    wait_until(lambda: cell.service.explanations.threads._pool._work_queue.empty(), 10)
    assert len(steps) == 1


@pytest.mark.parametrize("algorithm", ["logistic_regression", "lightgbm", "naive_bayes"])
def test_the_client_gets_the_numbers_of_the_library(cell, key, algorithm):
    """Over a socket, of exact and sampled methods."""
    X, y = split_target(tickets(), "category")
    version = servable(cell.store, fitted("explained", (X, y), algorithm=algorithm))
    promote(cell.table, version)
    with listening(cell) as url, MLClient(url, api_key=key, tenant_id=ACME, timeout_s=30) as client:
        found = client.explain("explained", X.head(3))
    expected = Explainer(load_version(cell.store, version)).explain(read_input(X.head(3), version.signature).columns)
    assert (found.method, found.unit, found.version) == (expected.method, expected.unit, "1")
    for row, wanted in zip(found.explanations, expected.to_json(), strict=True):
        assert row.prediction == wanted["prediction"]
        for output, theirs in zip(row.outputs, wanted["outputs"], strict=True):
            assert output.label == theirs["label"]
            assert output.contributions == pytest.approx(theirs["contributions"], abs=1e-9)
            assert output.base + sum(output.contributions.values()) == pytest.approx(output.score, abs=1e-9)


def test_the_named_version_is_explained(cell, key):
    """Whatever the pointer says."""
    first = cell.table.acquire_pointer(("acme", "measures", "production")).model.version
    second = renamed(replace(first), "2")
    promote(cell.table, second, generation=2)
    cell.registered[first.ref] = first
    assert explain(cell, key, [MEASURE]).json()["version"] == "2"
    assert explain(cell, key, [MEASURE], version="1").json()["version"] == "1"
