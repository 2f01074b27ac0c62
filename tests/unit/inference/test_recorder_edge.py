"""Recording without a registry: labels that are refused or can't be stored, and what is recorded of answers."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.api_key import Scope
from ml_core.domain.assignment import AssignmentDelta
from ml_core.domain.tenant_policies import PredictionPolicy
from ml_core.inference.edge.app import build_app
from ml_core.inference.prediction_log import MAX_STORING_PER_TENANT, PredictionLog, PredictionRecorder
from ml_core.registry.predictions.ingest import PredictionIngest
from ml_core.settings import DatabaseSettings, PlatformSettings, PredictionLogSettings, Settings
from support.inprocess_cell import ACME, GLOBEX, MEASURE

PATH = "/t/acme/models/measures/feedback"
LABEL = {"request_id": "r", "row": 0, "label": "b"}


@pytest.fixture
def key(cell):
    """A key of acme that may predict and label."""
    return cell.key(ACME, Scope.PREDICT, Scope.LABEL)


@pytest.fixture
def cell_without_registry(cell, tmp_path):
    """A cell whose registry can't be reached."""
    url = "postgresql://mlcore_app@127.0.0.1:1/mlcore"
    db = DatabaseConnection(settings=Settings(DatabaseSettings(url=url), platform=PlatformSettings(home=tmp_path)))
    log = PredictionLog(PredictionIngest(db), PredictionLogSettings(flush_s=0.01))
    cell.service.recorder = PredictionRecorder(cell.assignment, log, db)
    cell.app = build_app(cell.service)
    log.start()
    yield cell
    log.close(0)
    db.close()


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"{", "body"),
        (b"[]", "body"),
        (b"{}", "request_id"),
        (b'{"request_id": "r"}', "label"),
        (b'{"request_id": "a b", "label": 1}', "request_id"),
        (b'{"request_id": "r", "label": null}', "label"),
        (b'{"request_id": "r", "label": {}}', "label"),
        (b'{"request_id": "r", "label": 1, "row": -1}', "row"),
        (b'{"request_id": "r", "label": 1, "row": "0"}', "row"),
        (b'{"request_id": "r", "lable": 1}', "lable"),
    ],
)
def test_a_malformed_label_names_the_field(cell, key, body, field):
    """Each is 400 with what is wrong."""
    answer = cell.ask("POST", PATH, key=key, content=body)
    assert (answer.status_code, answer.json()["error"]["details"]["field"]) == (400, field)


@pytest.mark.parametrize("scope", [scope for scope in Scope if scope not in (Scope.LABEL, Scope.ADMIN)])
def test_a_label_takes_its_own_scope(cell, scope):
    """No other lets a key write one, and the refusal says which does."""
    answer = cell.ask("POST", PATH, key=cell.key(ACME, scope), json=LABEL)
    assert (answer.status_code, answer.json()["error"]["details"]) == (403, {"scope": "label"})
    action = {"operation": "keys.create", "arguments": {"tenant": "acme", "scope": "label"}}
    assert answer.json()["error"]["action"] == action


def test_a_key_that_labels_does_not_predict(cell):
    """Nor read."""
    key = cell.key(ACME, Scope.LABEL)
    assert cell.predict("measures", [MEASURE], key=key).status_code == 403
    assert cell.ask("GET", "/t/acme/v2/models/measures", key=key).status_code == 403


def test_a_key_of_another_tenant_finds_nothing_to_label(cell):
    """As for predict."""
    assert cell.ask("POST", PATH, key=cell.key(GLOBEX, Scope.LABEL), json=LABEL).status_code == 404


def test_a_model_that_can_not_be_is_not_found(cell, key):
    """As for predict."""
    assert cell.ask("POST", "/t/acme/models/UPPER/feedback", key=key, json=LABEL).status_code == 404


def test_a_label_that_can_not_be_stored_is_not_accepted(cell_without_registry, key):
    """503 with Retry-After, and without the registry's address."""
    answer = cell_without_registry.ask("POST", PATH, key=key, json=LABEL)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "registry_unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    assert "127.0.0.1" not in answer.text


def test_one_tenant_does_not_take_every_place_of_labels(cell, key, tmp_path):
    """While the registry hangs, its labels beyond its share are refused at once, and another tenant's are not."""
    theirs = cell.key(GLOBEX, Scope.LABEL)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://mlcore_app@127.0.0.1:{silent.getsockname()[1]}/mlcore"
        db = DatabaseConnection(settings=Settings(DatabaseSettings(url=url), platform=PlatformSettings(home=tmp_path)))
        log = PredictionLog(PredictionIngest(db), PredictionLogSettings())
        cell.service.recorder = PredictionRecorder(cell.assignment, log, db)

        async def label(client, tenant, holder):
            headers = {"authorization": f"Bearer {holder}", "x-request-timeout-ms": "1000"}
            path = f"/t/{tenant}/models/measures/feedback"
            return (await client.post(path, headers=headers, json=LABEL)).status_code

        async def ask():
            async with cell.client() as client:
                mine = [label(client, "acme", key) for _ in range(MAX_STORING_PER_TENANT + 1)]
                return await asyncio.gather(*mine, label(client, "globex", theirs))

        *accepted, refused, other = asyncio.run(ask())
    assert (set(accepted), refused, other) == ({504}, 429, 504)
    cell.service.recorder.close()
    db.close()


def test_predictions_are_answered_and_counted_while_the_registry_is_away(cell_without_registry, key):
    """Health says how many wait and why."""
    assert cell_without_registry.predict("measures", [MEASURE, MEASURE], key=key).status_code == 200
    counts = cell_without_registry.ask("GET", "/healthz").json()["prediction_log"]
    assert (counts["accepted"], counts["queued"], counts["written"]) == (2, 2, 0)
    assert "measures" not in json.dumps(counts)


@pytest.mark.parametrize(
    ("policy", "accepted"), [(PredictionPolicy.NOTHING, 0), (PredictionPolicy.DIGEST, 1), (PredictionPolicy.INPUTS, 1)]
)
def test_what_a_tenant_forbids_is_not_even_queued(cell_without_registry, key, policy, accepted):
    """A change of policy holds for the next answer; other tenants' policies do not matter."""
    cell = cell_without_registry
    cell.assignment.apply(
        AssignmentDelta(9, False, {}, {}, {}, prediction_policies={ACME: policy, GLOBEX: PredictionPolicy.DIGEST})
    )
    assert cell.predict("measures", [MEASURE], key=key).status_code == 200
    assert cell.ask("GET", "/healthz").json()["prediction_log"]["accepted"] == accepted


def test_a_deleted_tenants_policy_is_forgotten(cell):
    """Its name means nothing any more."""
    cell.assignment.apply(AssignmentDelta(9, False, {}, {}, {}, prediction_policies={ACME: PredictionPolicy.INPUTS}))
    assert cell.assignment.prediction_policy(ACME) is PredictionPolicy.INPUTS
    cell.assignment.apply(AssignmentDelta(10, False, {ACME: False}, {}, {}))
    assert cell.assignment.prediction_policy(ACME) is PredictionPolicy.DIGEST
