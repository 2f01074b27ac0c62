"""A bucket instead of a folder, by settings alone: train, register, load and serve as ever."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import joblib
import pytest
from sklearn.linear_model import LogisticRegression

from ml_core import MLSystem, ModelManager, Trainer
from ml_core.database.connection import DatabaseConnection
from ml_core.exceptions import ModelLoadError, ModelSaveError
from ml_core.ids import ModelId, TenantId
from ml_core.inference.replica import Replica
from ml_core.models.store.local import MirroredStore
from ml_core.models.store.objects import ObjectStore
from ml_core.registry.versions.repository import VersionRepository
from ml_core.settings import DatabaseSettings, PlatformSettings, Settings
from support.s3 import S3Server, s3
from support.tables import measures, split_target

__all__ = ["s3"]

X, y = split_target(measures(), "outcome")


@pytest.fixture
def bucket_db(db: DatabaseConnection, s3: S3Server) -> Iterator[DatabaseConnection]:
    """The session's registry, with a bucket of its own for artifacts."""
    settings = dataclasses.replace(db.settings, artifacts=s3.settings())
    with DatabaseConnection(settings=settings) as connection:
        yield connection


def keys(s3: S3Server, db: DatabaseConnection) -> list[str]:
    return [key for key in s3.objects(db.settings.artifacts.bucket) if not key.endswith("/")]


def test_train_promote_and_predict(bucket_db, s3, tenant_id):
    """The artifact is in the bucket and nowhere else but in the cache; a second system loads it from there."""
    with MLSystem(bucket_db, tenant_id=tenant_id) as system:
        result = system.train_model("m", "classification", (X, y))
        system.promote("m", result["version"])
    stored = keys(s3, bucket_db)  # the version, and the diagnostics and profile of its run
    assert len(stored) == 3
    assert result["model_path"] in [f"s3://{bucket_db.settings.artifacts.bucket}/{key}" for key in stored]
    assert all(f"/{tenant_id}/" in key for key in stored)
    assert not (bucket_db.settings.platform.artifact_root / tenant_id).exists()
    with MLSystem(bucket_db, tenant_id=tenant_id) as another:
        assert another.predict("m", X.iloc[0]) in ("yes", "no")


def test_a_replica_serves_from_the_bucket(bucket_db, s3, tenant_id, tmp_path):
    """It loads from the bucket into a cache under its own home."""
    with MLSystem(bucket_db, tenant_id=tenant_id) as system:
        system.promote("m", system.train_model("m", "classification", (X, y))["version"])
    servable = VersionRepository(bucket_db, tenant_id).get(ModelId("m")).servable
    urls = bucket_db.urls
    settings = Settings(
        DatabaseSettings(url=urls.app, ingest_url=urls.ingest, tenant_key=bucket_db.tenant_key),
        platform=PlatformSettings(home=tmp_path),
        artifacts=bucket_db.settings.artifacts,
    )
    replica = Replica(settings)
    try:
        with replica.table.using(servable) as model:
            assert model.version == servable
    finally:
        replica.stop()
    assert [path.name for path in tmp_path.rglob(f"*{servable.digest}")] == [f"{tenant_id}.{servable.digest}"]


def test_a_folder_of_the_callers_own_is_beside_the_bucket(bucket_db, s3, tenant_id, tmp_path):
    """A manager keeps its copy and stores in the bucket; deleting removes both."""
    joblib.dump(LogisticRegression().fit(X, y), tmp_path / "model.joblib")
    manager = ModelManager(bucket_db, tmp_path / "models", tenant_id)
    manager.register_model("m", "classification", tmp_path / "model.joblib")
    assert isinstance(manager.store, MirroredStore)
    assert len(keys(s3, bucket_db)) == len(list((tmp_path / "models").rglob("*/??/*"))) == 1
    manager.delete_model("m")
    assert keys(s3, bucket_db) == list((tmp_path / "models").rglob("*/??/*")) == []


def test_the_platforms_own_folder_means_the_platforms_store(bucket_db, tenant_id):
    """Whoever names the default folder, as ``create_model_manager`` does, gets the bucket without a copy."""
    manager = ModelManager(bucket_db, bucket_db.settings.platform.artifact_root, tenant_id)
    assert isinstance(manager.store, ObjectStore)


def test_training_while_the_store_is_down_registers_nothing(db, s3, tenant_id: TenantId):
    """One clear error; the registry has no version without bytes."""
    settings = dataclasses.replace(db.settings, artifacts=s3.settings("nowhere"))
    with DatabaseConnection(settings=settings) as connection:
        with pytest.raises(ModelSaveError, match="no bucket 'nowhere'"):
            Trainer(connection, tenant_id).train("m", "classification", (X, y))
        assert VersionRepository(connection, tenant_id).list(ModelId("m")).items == []


def test_loading_while_the_store_is_down_says_so(db, bucket_db, s3, tenant_id):
    """The error names the version and blames the store, not the artifact."""
    with MLSystem(bucket_db, tenant_id=tenant_id) as system:
        version = system.train_model("m", "classification", (X, y))["version"]
    settings = dataclasses.replace(db.settings, artifacts=s3.settings("nowhere"))
    connection = DatabaseConnection(settings=settings)
    system = MLSystem(connection, tenant_id=tenant_id)
    with connection, system, pytest.raises(ModelLoadError, match="no bucket 'nowhere'") as caught:
        system.predict("m", X.iloc[0], version=version)
    assert (caught.value.tenant_id, caught.value.version) == (tenant_id, version)
