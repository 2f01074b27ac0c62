"""What a client asks over HTTP is in the prediction log a moment later, as its tenant allows, and can be labelled."""

from __future__ import annotations

import pytest

from ml_core.domain.prediction_record import PredictionRecord
from ml_core.domain.tenant_policies import PredictionPolicy
from ml_core.ids import ModelId
from ml_core.registry.predictions import PredictionRepository
from support.tables import measures
from support.waiting import wait_until

MEASURE = measures(1).drop(columns=["outcome"]).iloc[0].to_dict()


@pytest.fixture
def predictions(platform, globex):
    """The prediction log of a tenant that serves ``measures``; its policy is the usual one again afterwards."""
    repository = PredictionRepository(platform.db, globex.tenant_id)
    yield repository
    repository.set_policy(PredictionPolicy.DIGEST)


def found(predictions: PredictionRepository, request_id: str, rows: int = 1) -> list[PredictionRecord]:
    """The rows of a request, once they are there."""
    wait_until(lambda: len(predictions.get(request_id)) == rows)
    return list(predictions.get(request_id))


def test_an_answer_is_in_the_log(globex, predictions):
    """Every row with its prediction, version and digest, and without its inputs unless they are wanted."""
    body = globex.predict("measures", [MEASURE, {**MEASURE, "m0": 9.0}], proba=True).json()
    first, second = found(predictions, body["request_id"], 2)
    assert [first.prediction, second.prediction] == body["predictions"]
    assert [first.probabilities, second.probabilities] == body["probabilities"]
    assert (first.model_id, first.version, first.rollout) == ("measures", body["version"], "stable")
    assert (first.environment, first.inputs) == ("production", None)
    assert first.input_digest != second.input_digest
    assert 0 < first.latency_ms < 10_000


def test_both_protocols_note_the_same_inputs_alike(globex, predictions):
    """A row sent as tensors has the digest of the same row sent as JSON."""
    body = globex.predict("measures", [MEASURE]).json()
    inputs = [{"name": n, "datatype": "FP64", "shape": [1], "data": [v]} for n, v in MEASURE.items()]
    answer = globex.post(f"/v2/models/measures/versions/{body['version']}/infer", json={"inputs": inputs})
    (by_json,) = found(predictions, body["request_id"])
    (by_tensor,) = found(predictions, answer.headers["x-request-id"])
    assert by_json.input_digest == by_tensor.input_digest
    assert (by_tensor.environment, by_tensor.rollout) == (None, "explicit")


def test_inputs_are_kept_once_the_tenant_wants_them(globex, predictions):
    """Replicas hear of it by themselves, and what is kept is what was sent."""
    predictions.set_policy(PredictionPolicy.INPUTS)

    def kept() -> bool:
        globex.predict("measures", [MEASURE])
        return any(record.inputs == MEASURE for record in predictions.list(limit=1000).items)

    wait_until(kept, 10)


def test_a_label_joins_what_was_answered(globex, predictions):
    """Sent right after the answer, before that is written."""
    request_id = globex.predict("measures", [MEASURE]).json()["request_id"]
    answer = globex.post("/models/measures/feedback", json={"request_id": request_id, "label": "high"})
    assert (answer.status_code, answer.json()) == (
        200,
        {"model": "measures", "request_id": request_id, "row": 0, "label": "high"},
    )
    assert found(predictions, request_id)[0].label == "high"


def test_a_label_for_a_model_that_is_not_there_is_not_found(globex):
    """404, as for predict."""
    answer = globex.post(f"/models/{ModelId('nothing')}/feedback", json={"request_id": "r", "label": 1})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


def test_a_refused_request_is_not_in_the_log(globex, predictions):
    """There was no prediction."""
    refused = globex.predict("measures", [{"m0": "many"}], strict=True)
    assert refused.status_code == 422
    answered = globex.predict("measures", [MEASURE]).json()["request_id"]
    found(predictions, answered)
    assert predictions.list(request_id=refused.headers["x-request-id"]).items == []
