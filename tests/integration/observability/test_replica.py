"""A whole replica over a real registry: what it reports from training to the row in the prediction log."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from ml_core.domain.api_key import Scope
from ml_core.exceptions import TrainingError
from ml_core.ids import ModelId, VersionId
from ml_core.inference.edge.app import build_app
from ml_core.inference.replica import Replica
from ml_core.observability.prometheus import PrometheusHooks
from ml_core.registry.feed import renew_epoch
from ml_core.registry.keys import KeyRepository
from ml_core.registry.promotion.environments import PRODUCTION, EnvironmentRepository
from ml_core.settings import PredictionLogSettings, ServingSettings, Settings
from ml_core.training.trainer import Trainer
from support.hooks import Noted, values
from support.inprocess_cell import Cell
from support.tables import measures, split_target
from support.waiting import wait_until

DATA = split_target(measures(), "outcome")
ROW = DATA[0].iloc[0].to_dict()
FAST = {"n_estimators": 5}


@pytest.fixture
def hooks() -> PrometheusHooks:
    return PrometheusHooks(max_tenants=10)


@pytest.fixture
def replica(db, hooks) -> Iterator[Replica]:
    """A replica that follows the session's registry."""
    settings = dataclasses.replace(
        Settings.from_environment({"MLCORE_HOME": str(db.settings.platform.home), **db.environment}),
        serving=ServingSettings(poll_interval_s=0.1),
        prediction_log=PredictionLogSettings(flush_s=0.05),
    )
    replica = Replica(settings, hooks=hooks)
    assert replica.start(20)
    yield replica
    replica.stop()


def ask(replica: Replica, tenant_id: str, key: str) -> int:
    """Predict one row; the status of the answer."""
    app = build_app(replica.service)
    cell = Cell(None, None, replica.table, replica.service, app, {})  # type: ignore[arg-type]
    return cell.ask("POST", f"/t/{tenant_id}/models/m/predict", key=key, json={"rows": [ROW]}).status_code


def test_a_version_is_trained_loaded_asked_and_logged(db, tenant_id, replica, hooks):
    """Each part reports what it did, and the text for Prometheus has it all."""
    trainer = Trainer(db, tenant_id, hooks=hooks)
    version = trainer.train("m", None, DATA, hyperparameters=FAST)["version"]
    key = str(KeyRepository(db, tenant_id).create("test", frozenset({Scope.PREDICT})))
    EnvironmentRepository(db, tenant_id).promote(ModelId("m"), VersionId(version), PRODUCTION, actor="test")
    wait_until(lambda: ask(replica, tenant_id, key) == 200)
    wait_until(lambda: values(hooks.registry, "mlcore_prediction_log_written_rows_total")[()] == 1)

    families = text_string_to_metric_families(generate_latest(hooks.registry).decode())
    found = {(s.name, *sorted(s.labels.values())): s.value for family in families for s in family.samples}
    assert found["mlcore_trainings_total",] == 1
    assert found["mlcore_training_rows_total",] == len(DATA[0])
    stages = [labels for name, *labels in found if name == "mlcore_training_stage_seconds_count"]
    assert sorted(stages) == [["evaluate"], ["fit"], ["read"], ["register"], ["validate"]]
    assert all(found["mlcore_training_stage_seconds_sum", stage] > 0 for (stage,) in stages)
    assert found["mlcore_resident_models",] >= 1
    assert found["mlcore_resident_bytes",] == replica.table.describe()["memory_bytes"]
    assert found["mlcore_model_load_seconds_count",] >= 1
    assert found["mlcore_assignment_generation",] == replica.service.describe()["assignment"]["generation"]
    assert found["mlcore_tenant_requests_total", "200", tenant_id] == 1
    assert found["mlcore_requests_total", "/t/{tenant}/models/{model}/predict", "200"] == 1
    assert found["mlcore_queue_wait_seconds_count",] == found["mlcore_batch_rows_sum",] == 1
    assert found["mlcore_prediction_log_queued_rows",] == 0


def test_a_look_at_the_registry_renews_the_timestamp(replica, hooks):
    """So that its age is the lag, also when nothing changes."""
    series = "mlcore_assignment_read_timestamp_seconds"
    before = values(hooks.registry, series)[()]
    wait_until(lambda: values(hooks.registry, series)[()] > before)


def test_a_restored_registry_is_a_new_epoch(db, replica, hooks):
    """Seen by the replica, which reads everything anew."""
    assert values(hooks.registry, "mlcore_assignment_epochs_total") == {(): 0}
    with db.maintaining() as connection:
        renew_epoch(connection)
    wait_until(lambda: values(hooks.registry, "mlcore_assignment_epochs_total") == {(): 1})


def test_a_registry_that_is_away_is_counted(db, hooks):
    """By the code of the error; serving goes on."""
    settings = Settings.from_environment(
        {
            "MLCORE_HOME": str(db.settings.platform.home),
            "MLCORE_DATABASE_URL": "postgresql://mlcore_app@127.0.0.1:1/mlcore",
            "MLCORE_DATABASE_TENANT_KEY": "0" * 64,
        }
    )
    replica = Replica(settings, hooks=hooks)
    replica.start(0.0)
    try:
        wait_until(lambda: bool(values(hooks.registry, "mlcore_assignment_read_failures_total")))
        ((code,),) = values(hooks.registry, "mlcore_assignment_read_failures_total")
        assert code == "registry_unavailable"
    finally:
        replica.stop()


def test_a_training_that_fails_names_the_stage(db, tenant_id):
    """The last that was entered, and the code of the error."""
    noted = Noted()
    data = (DATA[0], ["one class"] * len(DATA[0]))
    with pytest.raises(TrainingError):
        Trainer(db, tenant_id, hooks=noted).train("m", "classification", data, hyperparameters=FAST)
    ((ended,),) = noted.of("training_ended")
    assert (ended.model_id, list(ended.stages), ended.rows) == ("m", ["validate", "read"], 0)
    assert (ended.error, ended.algorithm, ended.version) == (TrainingError.code, None, None)
