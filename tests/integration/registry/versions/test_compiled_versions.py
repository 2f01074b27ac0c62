"""The compiled form of a version: recorded with it, kept while it is, and removed with it."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.version import Compilation, CompiledForm, ModelVersion, ParityProof
from ml_core.exceptions import ModelSaveError
from ml_core.ids import Digest, TenantId
from ml_core.models.loading import load_version
from ml_core.models.store import LocalStore, platform_store
from ml_core.registry.collection.collector import Collector
from ml_core.registry.collection.fsck import Checker, FindingKind
from ml_core.registry.feed import FeedReader
from ml_core.registry.model_registry import ModelRegistry
from ml_core.registry.promotion.environments import PRODUCTION, EnvironmentRepository
from ml_core.registry.versions.models import ModelRepository
from ml_core.registry.versions.repository import VersionRepository
from ml_core.system import MLSystem
from support.registry import TICKETS, draft
from support.stored import AT_ONCE, stored

GRAPH = b"a graph"


def compilation(graph: bytes = GRAPH) -> Compilation:
    form = CompiledForm(Digest(hashlib.sha256(graph).hexdigest()), len(graph), "1.32.0", 48)
    return Compilation("It is faster.", form, ParityProof(10, 3, 0.0, 0, "1.32.0"))


def publish(
    db: DatabaseConnection, tenant_id: TenantId, store: LocalStore, data: bytes, graph: bytes = GRAPH
) -> ModelVersion:
    of = draft(compilation=compilation(graph))
    return VersionRepository(db, tenant_id, store).publish(of, data, "skops/2", compiled=graph, actor="tester")


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "artifacts")


def test_what_was_recorded_is_read_and_carried_to_replicas(
    db: DatabaseConnection, tenant_id: TenantId, store: LocalStore
) -> None:
    version = publish(db, tenant_id, store, b"model")
    assert version.compilation == compilation()
    assert VersionRepository(db, tenant_id).get(TICKETS, version.version).compilation == compilation()
    EnvironmentRepository(db, tenant_id).promote(TICKETS, version.version, PRODUCTION)
    (rollout,) = (each for ref, each in FeedReader(db).read(None).rollouts.items() if ref.tenant_id == tenant_id)
    assert rollout is not None
    assert rollout.stable.compiled == compilation().form
    plain = VersionRepository(db, tenant_id, store).publish(draft(), b"plain", "skops/2", actor="tester")
    assert (plain.compilation, plain.servable.compiled) == (Compilation(), None)


def test_deleting_a_version_or_model_removes_both(
    db: DatabaseConnection, tenant_id: TenantId, store: LocalStore
) -> None:
    """But a form that another version has as well stays with that one."""
    one, two = publish(db, tenant_id, store, b"one"), publish(db, tenant_id, store, b"two")
    assert len(stored(store)) == 3
    versions = VersionRepository(db, tenant_id, store)
    versions.delete(TICKETS, one.version)
    assert stored(store) == {two.digest, compilation().form.digest}  # type: ignore[union-attr]
    ModelRepository(db, tenant_id, store).delete(TICKETS)
    assert stored(store) == set()


def test_collection_and_fsck_know_the_form(db: DatabaseConnection, tenant_id: TenantId, store: LocalStore) -> None:
    """While the version is there its form is neither orphaned nor unneeded; when it was collected, it is both."""
    version = publish(db, tenant_id, store, b"model")
    collector, form = Collector(db, store, AT_ONCE), compilation().form
    assert form is not None
    assert not collector.plan(tenant_id).items
    assert not list(Checker(db, store, timedelta(0)).check(tenant_id))
    store.delete(tenant_id, form.digest)
    (finding,) = Checker(db, store, timedelta(0)).check(tenant_id)
    assert (finding.kind, finding.digest) == (FindingKind.MISSING, form.digest)
    assert finding.needed_by == (f"version:{TICKETS}@{version.version}",)
    store.put(tenant_id, GRAPH, "onnx")
    VersionRepository(db, tenant_id, store).archive(TICKETS, version.version)
    collector.collect(collector.plan(tenant_id))
    assert stored(store) == set()


def test_a_form_that_was_removed_meanwhile_is_stored_again(
    db: DatabaseConnection, tenant_id: TenantId, store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row is written only while both are there."""
    puts, put = [], store.put

    def losing(tenant: TenantId, data: bytes, format: str) -> object:  # noqa: A002
        artifact = put(tenant, data, format)
        puts.append(format)
        if puts.count("onnx") == 1 and format == "onnx":
            store.delete(tenant, artifact.digest)
        return artifact

    monkeypatch.setattr(store, "put", losing)
    publish(db, tenant_id, store, b"model")
    assert puts == ["onnx", "skops/2"] * 2
    assert len(stored(store)) == 2


def test_a_file_is_registered_again_without_a_form_that_was_lost(
    db: DatabaseConnection, tenant_id: TenantId, store: LocalStore
) -> None:
    """With it as long as it is there."""
    publish(db, tenant_id, store, b"model")
    versions, of = VersionRepository(db, tenant_id, store), draft(compilation=compilation())
    assert versions.publish(of, b"model", "skops/2", actor="tester").compilation == compilation()
    store.delete(tenant_id, compilation().form.digest)  # type: ignore[union-attr]
    again = versions.publish(of, b"model", "skops/2", actor="tester")
    assert again.compilation == Compilation("Its compiled form is lost.")


def test_a_refused_version_leaves_no_form(db: DatabaseConnection, tenant_id: TenantId, store: LocalStore) -> None:
    publish(db, tenant_id, store, b"model")
    before = stored(store)
    other = draft(compilation=compilation(b"another graph"), model_type="regression")
    with pytest.raises(ModelSaveError):
        VersionRepository(db, tenant_id, store).publish(other, b"other", "skops/2", compiled=b"another graph")
    assert stored(store) == before


def test_a_training_compiles_proves_and_serves(
    db: DatabaseConnection, tenant_id: TenantId, caplog: pytest.LogCaptureFixture
) -> None:
    """From the call to the answers; the same file registered again has the same form, and explanations still work."""
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"a": random.normal(size=200), "b": random.normal(size=200)})
    target = pd.Series(np.where(frame["a"] > 0, "yes", "no"), name="label")
    system = MLSystem(db, tenant_id=tenant_id)
    forest = {"algorithm": "random_forest", "n_estimators": 30}
    trained = system.train_model("m", "classification", (frame, target), None, forest)
    registry = ModelRegistry(db, tenant_id)
    version = registry.get_model_version("m", trained["version"])
    found = version.compilation
    assert found.answers == "compiled", found.reason
    assert found.proof is not None
    assert (found.proof.flips, found.proof.max_difference) == (0, 0.0)
    store = platform_store(db.settings)
    model = load_version(store, version.servable)
    assert model.uncompiled is None
    rows = frame.head(20).to_dict("records")
    assert model.predict_rows(rows) == target.head(20).tolist()
    path = VersionRepository(db, tenant_id).artifact("m", version.version)
    again = registry.register_version("copy", None, path)
    assert registry.get_model_version("copy", again).compilation == found
    VersionRepository(db, tenant_id).delete("m", version.version)
    assert load_version(store, registry.get_model_version("copy", again).servable).uncompiled is None
    linear = system.train_model("l", "classification", (frame, target), None, {"algorithm": "logistic_regression"})
    assert "formula" in registry.get_model_version("l", linear["version"]).compilation.reason
    assert "original form" not in caplog.text
