"""One registry, one set of artifacts: what one public class registers, the others load."""

from __future__ import annotations

import joblib
import pytest
from sklearn.linear_model import LogisticRegression

from ml_core import MLSystem, ModelManager, Predictor, Trainer
from support.tables import measures, split_target

X, y = split_target(measures(), "outcome")


@pytest.fixture
def manager(db, tenant_id, tmp_path, monkeypatch):
    """A manager with the folder that the contract names by default."""
    monkeypatch.chdir(tmp_path)
    return ModelManager(db, tenant_id=tenant_id)


def test_a_manager_loads_what_the_trainer_made(db, tenant_id, manager):
    """The trainer has written to the platform's store, not to ./models."""
    Trainer(db, tenant_id=tenant_id).train("m", "classification", (X, y))
    assert Predictor(manager, tenant_id=tenant_id).predict("m", X.iloc[0]) in ("yes", "no")


def test_a_system_serves_what_a_manager_registered(db, tenant_id, manager, tmp_path):
    """The file is copied to ./models, and to the store that everybody reads."""
    joblib.dump(LogisticRegression().fit(X, y), tmp_path / "model.joblib")
    manager.register_model("m", "classification", tmp_path / "model.joblib")
    assert len([path for path in (tmp_path / "models").rglob("*") if path.is_file()]) == 1
    with MLSystem(db, tenant_id=tenant_id) as system:
        assert system.predict("m", X.iloc[0]) in ("yes", "no")


def test_a_deleted_model_is_gone_from_both(db, tenant_id, manager, tmp_path):
    """No byte is left in the caller's folder or in the platform's store."""
    joblib.dump(LogisticRegression(C=3.0).fit(X, y), tmp_path / "model.joblib")
    manager.register_model("m", "classification", tmp_path / "model.joblib")
    digest = str(manager.get_model("m").servable.digest)
    manager.delete_model("m")
    roots = (tmp_path / "models", db.settings.platform.artifact_root / tenant_id)
    assert [path for root in roots for path in root.rglob(digest)] == []
