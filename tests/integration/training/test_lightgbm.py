"""The algorithm ``lightgbm`` on the whole path: a raw table to a version, to a replica's answer."""

import numpy as np
import pytest

from ml_core.data.reading import rows_from_frame
from ml_core.domain.api_key import Scope
from ml_core.ids import ModelId
from ml_core.models.loading import load_version
from ml_core.models.store import LocalStore
from ml_core.registry.versions.repository import VersionRepository
from ml_core.settings import ServingSettings
from ml_core.training.trainer import Trainer
from support.inprocess_cell import make_cell, promote
from support.tables import split_target, tickets

LIGHTGBM = {"algorithm": "lightgbm", "n_estimators": 40, "min_child_samples": 5}


@pytest.mark.parametrize(("model_type", "target"), [("classification", "category"), ("regression", "minutes_open")])
def test_a_raw_table_becomes_a_version_that_answers(db, tenant_id, tmp_path, model_type, target):
    """Text, dates, categories and missing values; what the registry holds answers like the fitted model."""
    X, y = split_target(tickets().dropna(subset=[target]), target)
    trainer = Trainer(db, tenant_id, storage_path=tmp_path)
    result = trainer.train("tickets", model_type, (X, y), hyperparameters=LIGHTGBM)
    version = VersionRepository(db, tenant_id).get(ModelId("tickets"))
    assert version.lineage.libraries["lightgbm"]
    loaded = load_version(LocalStore(tmp_path), version.servable)
    np.testing.assert_array_equal(loaded.predict_frame(X), result["model"].predict(X))
    again = trainer.train("tickets", model_type, (X, y), hyperparameters=LIGHTGBM)
    assert VersionRepository(db, tenant_id).get(ModelId("tickets")).digest == version.digest
    assert again["version"] != result["version"]
    if model_type == "classification":
        assert result["metrics"]["validation"]["accuracy"] > 0.9


def test_a_replica_serves_it(db, tenant_id, tmp_path):
    """It loads it, passes its self-test and answers raw rows with labels and probabilities."""
    X, y = split_target(tickets(), "category")
    result = Trainer(db, tenant_id, storage_path=tmp_path).train("tickets", None, (X, y), hyperparameters=LIGHTGBM)
    version = VersionRepository(db, tenant_id).get(ModelId("tickets"))
    cell = make_cell(LocalStore(tmp_path), ServingSettings())
    try:
        promote(cell.table, version.servable)
        path = f"/t/{tenant_id}/models/tickets/predict"
        body = {"rows": rows_from_frame(X.head(20)), "proba": True}
        answer = cell.ask("POST", path, key=cell.key(tenant_id, Scope.PREDICT), json=body)
    finally:
        cell.table.close()
        cell.service.close()
    assert answer.status_code == 200, answer.text
    assert answer.json()["predictions"] == result["model"].predict(X.head(20)).tolist()
    found = [[row[label] for label in result["model"].classes_] for row in answer.json()["probabilities"]]
    np.testing.assert_allclose(found, result["model"].predict_proba(X.head(20)))
