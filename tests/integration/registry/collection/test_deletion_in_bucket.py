"""Collection, fsck and the deletion of a tenant where artifacts are objects in a bucket."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from ml_core.database.connection import DatabaseConnection
from ml_core.exceptions import ModelLoadError
from ml_core.ids import TenantId
from ml_core.models.store.objects import ObjectStore
from ml_core.registry.collection.collector import Collector
from ml_core.registry.collection.fsck import Checker, FindingKind, Repairer
from ml_core.registry.collection.tenant_deletion import TenantDeletion
from ml_core.registry.versions.repository import VersionRepository
from support.registry import TICKETS
from support.s3 import S3Server, s3
from support.stored import AT_ONCE, publish

__all__ = ["s3"]


@pytest.fixture
def bucket(s3: S3Server) -> str:
    return s3.new_bucket()


@pytest.fixture
def store(s3: S3Server, bucket: str, tmp_path: Path) -> ObjectStore:
    return s3.store(tmp_path / "cache", bucket)


def keys(s3: S3Server, bucket: str) -> list[str]:
    return [key for key in s3.objects(bucket) if not key.endswith("/")]


def cached(tmp_path: Path) -> list[str]:
    return [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_collecting_frees_objects(
    db: DatabaseConnection, tenant_id: TenantId, store: ObjectStore, s3: S3Server, bucket: str
) -> None:
    """An archived version's object and an abandoned upload go; the bytes are those that the bucket listed."""
    archived, live = publish(db, tenant_id, store), publish(db, tenant_id, store)
    VersionRepository(db, tenant_id).archive(TICKETS, archived.version)
    folder = keys(s3, bucket)[0].rpartition("/")[0]
    s3.put(bucket, f"{folder}/.writing-0123", b"half")
    collector = Collector(db, store, AT_ONCE)
    report = collector.collect(collector.plan(tenant_id))
    assert report.is_complete
    assert report.freed_bytes == archived.servable.size_bytes + len(b"half")
    assert [key.rpartition("/")[2] for key in keys(s3, bucket)] == [live.servable.digest]


@pytest.mark.parametrize("damage", [None, b"others"])
def test_the_copy_of_this_machine_mends_an_object(
    db: DatabaseConnection,
    tenant_id: TenantId,
    store: ObjectStore,
    s3: S3Server,
    bucket: str,
    tmp_path: Path,
    damage: bytes | None,
) -> None:
    """A lost or changed object is found although the cache has it, and mended from there; without a copy it is told."""
    version = publish(db, tenant_id, store).servable
    store.fetch(tenant_id, version.digest, version.size_bytes)
    (key,) = keys(s3, bucket)
    sound = s3.get(bucket, key)
    s3.delete(bucket, key) if damage is None else s3.put(bucket, key, damage)
    (finding,) = Checker(db, store, timedelta(0)).check(tenant_id)
    assert finding.kind is (FindingKind.MISSING if damage is None else FindingKind.CORRUPT)
    elsewhere = s3.store(tmp_path / "another machine", bucket)
    assert not Repairer(db, elsewhere).repair(finding).is_repaired
    assert Repairer(db, store).repair(finding).is_repaired
    assert s3.get(bucket, key) == sound
    assert list(Checker(db, store, timedelta(0)).check(tenant_id)) == []


def test_deleting_a_tenant_empties_its_prefix(
    db: DatabaseConnection,
    tenant_id: TenantId,
    other_tenant_id: TenantId,
    store: ObjectStore,
    s3: S3Server,
    bucket: str,
    tmp_path: Path,
) -> None:
    """Every object of the tenant goes, with this machine's copies; the other tenant's stay."""
    mine, others = publish(db, tenant_id, store), publish(db, other_tenant_id, store)
    for version in (mine.servable, others.servable):
        store.fetch(version.ref.tenant_id, version.digest, version.size_bytes)
    report = TenantDeletion(db, store).delete(tenant_id)
    assert (report.artifacts.count, report.artifacts.bytes) == (1, mine.servable.size_bytes)
    assert [key.rpartition("/")[2] for key in keys(s3, bucket)] == [others.servable.digest]
    assert [name for name in cached(tmp_path) if tenant_id in name] == []
    assert [name for name in cached(tmp_path) if other_tenant_id in name] != []


def test_a_store_that_can_not_be_reached_is_no_finding(
    db: DatabaseConnection, tenant_id: TenantId, s3: S3Server, tmp_path: Path
) -> None:
    """An outage is an error, not a list of missing artifacts, and nothing is collected during one."""
    store = s3.store(tmp_path / "cache", timeout_s=0.5)
    version = publish(db, tenant_id, store)
    versions = VersionRepository(db, tenant_id)
    versions.archive(TICKETS, version.version)
    with s3.paused():
        with pytest.raises(ModelLoadError):
            list(Checker(db, store, timedelta(0)).check(tenant_id))
        with pytest.raises(ModelLoadError):
            Collector(db, store, AT_ONCE).plan(tenant_id)
    assert versions.get(TICKETS, version.version).archived_at is not None
