"""Collecting what was archived: what goes, what stays, and why."""

from __future__ import annotations

import os
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.version import Lineage
from ml_core.exceptions import ModelNotFoundError, ModelSaveError, ModelVersionConflictError
from ml_core.ids import DatasetId, HoldName, TenantId, VersionId
from ml_core.models.store import LocalStore
from ml_core.registry.collection.collector import Collector, Report, Status
from ml_core.registry.collection.holds import HoldRepository
from ml_core.registry.collection.planner import Kind, Plan, Policy
from ml_core.registry.idempotency import IdempotencyRepository
from ml_core.registry.promotion.environments import PRODUCTION, EnvironmentRepository
from ml_core.registry.versions import registration
from ml_core.registry.versions.models import ModelRepository, lock_model
from ml_core.registry.versions.repository import VersionRepository
from support.registry import TICKETS, artifact_of, draft, superuser
from support.stored import AT_ONCE, DEADLINE_S, publish, stored, wait_for_a_waiting_session


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "artifacts")


@pytest.fixture
def versions(db: DatabaseConnection, tenant_id: TenantId) -> VersionRepository:
    return VersionRepository(db, tenant_id)


def collect(db: DatabaseConnection, tenant_id: TenantId, store: LocalStore, policy: Policy = AT_ONCE) -> Report:
    collector = Collector(db, store, policy)
    return collector.collect(collector.plan(tenant_id))


def named(report: Report, status: Status = Status.COLLECTED) -> list[tuple[str, str]]:
    return [(each.item.kind.value, each.item.name) for each in report.outcomes if each.status is status]


def audit_of(db: DatabaseConnection, tenant_id: TenantId, action: str) -> list[dict[str, object]]:
    statement = sa.text("SELECT subject FROM mlcore.audit WHERE action = :action ORDER BY audit_id")
    with db.tenant(tenant_id) as connection:
        return list(connection.scalars(statement, {"action": action}))


def test_an_archived_version_goes_with_its_bytes(
    db: DatabaseConnection, tenant_id: TenantId, store: LocalStore, versions: VersionRepository
) -> None:
    """After the retention its row and bytes are gone, the freed bytes are those of the file, and the audit says so."""
    version, live = publish(db, tenant_id, store), publish(db, tenant_id, store)
    versions.archive(TICKETS, version.version)
    report = collect(db, tenant_id, store)
    assert named(report) == [("version", "tickets@1"), ("artifact", version.servable.digest)]
    assert report.freed_bytes == version.servable.size_bytes > 0
    assert stored(store) == {live.servable.digest}
    with pytest.raises(ModelNotFoundError):
        versions.get(TICKETS, version.version)
    assert audit_of(db, tenant_id, "version.collected") == [{"model_id": "tickets", "version": "1"}]


def test_within_the_retention_nothing_goes(
    db: DatabaseConnection, tenant_id: TenantId, store: LocalStore, versions: VersionRepository
) -> None:
    """What was archived a moment ago can still be restored, and young bytes without a row are left alone."""
    version = publish(db, tenant_id, store)
    versions.archive(TICKETS, version.version)
    store.put(tenant_id, b"being registered", "skops/1")
    policy = Policy(timedelta(days=1), timedelta(hours=1))
    assert Collector(db, store, policy).plan(tenant_id).items == []
    versions.restore(TICKETS, version.version)
    assert versions.get(TICKETS).version == version.version


def test_a_dry_run_lists_what_the_run_removes(
    db: DatabaseConnection, tenant_id: TenantId, store: LocalStore, versions: VersionRepository
) -> None:
    """The plan changes nothing and names, item by item, what the collection then removes, with the same bytes."""
    for _ in range(3):
        versions.archive(TICKETS, publish(db, tenant_id, store).version)
    collector = Collector(db, store, AT_ONCE)
    before = stored(store)
    plan = collector.plan(tenant_id)
    assert stored(store) == before
    assert len(versions.list(TICKETS, include_archived=True).items) == 3
    report = collector.collect(collector.plan(tenant_id))
    assert [outcome.item for outcome in report.outcomes] == list(plan.items)
    assert report.freed_bytes == plan.size_bytes == sum(len(name) for name in before) // 2
    assert stored(store) == set()


def test_what_is_needed_stays(
    db: DatabaseConnection, tenant_id: TenantId, store: LocalStore, versions: VersionRepository
) -> None:
    """The target of a rollback, a held version and the parent of a live one stay, each with its reason."""
    first, second, held, parent = (publish(db, tenant_id, store) for _ in range(4))
    child = publish(db, tenant_id, store, lineage=Lineage(parent_version=parent.version))
    environments = EnvironmentRepository(db, tenant_id)
    for version in (first, second):
        environments.promote(TICKETS, version.version, PRODUCTION, actor="tester")
    HoldRepository(db, tenant_id).place(TICKETS, held.version, HoldName("legal"), "case 4711")
    for version in (first, held, parent):
        versions.archive(TICKETS, version.version)
    collector = Collector(db, store, AT_ONCE)
    plan = collector.plan(tenant_id)
    assert plan.items == []
    assert {kept.name: kept.needed_by for kept in plan.kept} == {
        f"tickets@{first.version}": ("rollback:production",),
        f"tickets@{held.version}": ("hold:legal",),
        f"tickets@{parent.version}": (f"version:{child.version}",),
    }


def test_a_family_goes_together(
    db: DatabaseConnection, tenant_id: TenantId, store: LocalStore, versions: VersionRepository
) -> None:
    """A parent and its child, both archived, go in one collection."""
    parent = publish(db, tenant_id, store)
    child = publish(db, tenant_id, store, lineage=Lineage(parent_version=parent.version))
    for version in (parent, child):
        versions.archive(TICKETS, version.version)
    assert named(collect(db, tenant_id, store))[:2] == [("version", "tickets@2"), ("version", "tickets@1")]
    assert stored(store) == set()


@pytest.mark.parametrize("change", ["restore", "promote", "hold", "delete", "child"])
def test_a_change_after_the_plan_is_respected(
    db: DatabaseConnection, tenant_id: TenantId, store: LocalStore, versions: VersionRepository, change: str
) -> None:
    """A version that was restored, promoted, held, deleted or built upon since the plan is skipped, and it is said."""
    version = publish(db, tenant_id, store)
    versions.archive(TICKETS, version.version)
    collector = Collector(db, store, AT_ONCE)
    plan = collector.plan(tenant_id)
    if change in ("restore", "promote"):
        versions.restore(TICKETS, version.version)
    if change == "promote":
        EnvironmentRepository(db, tenant_id).promote(TICKETS, version.version, PRODUCTION, actor="tester")
    if change == "hold":
        HoldRepository(db, tenant_id).place(TICKETS, version.version, HoldName("legal"), "case 4711")
    if change == "delete":
        versions.delete(TICKETS, version.version)
    if change == "child":
        publish(db, tenant_id, store, lineage=Lineage(parent_version=version.version))
    report = collector.collect(plan)
    skipped = [outcome for outcome in report.outcomes if outcome.item.kind is Kind.VERSION]
    assert [outcome.status for outcome in skipped] == [Status.SKIPPED]
    assert skipped[0].reason
    if change != "delete":
        assert versions.get(TICKETS, version.version).version == version.version
        assert version.servable.digest in stored(store)
        assert report.freed_bytes == 0


def test_shared_bytes_stay_until_the_last_row_goes(
    db: DatabaseConnection, tenant_id: TenantId, store: LocalStore, versions: VersionRepository
) -> None:
    """Of two versions with the same bytes one is collected: the bytes stay, and go with the other, counted once."""
    first, second = (publish(db, tenant_id, store, content="same", version=name) for name in ("a", "b"))
    versions.archive(TICKETS, first.version)
    report = collect(db, tenant_id, store)
    assert named(report) == [("version", "tickets@a")]
    assert report.freed_bytes == 0
    versions.archive(TICKETS, second.version)
    assert collect(db, tenant_id, store).freed_bytes == len("same")
    assert stored(store) == set()


def test_both_versions_of_shared_bytes_at_once(
    db: DatabaseConnection, tenant_id: TenantId, store: LocalStore, versions: VersionRepository
) -> None:
    """Two archived versions with the same bytes free them once."""
    for name in ("a", "b"):
        versions.archive(TICKETS, publish(db, tenant_id, store, content="same", version=name).version)
    assert Collector(db, store, AT_ONCE).plan(tenant_id).size_bytes == len("same")
    assert collect(db, tenant_id, store).freed_bytes == len("same")


def test_an_archived_model_goes_whole(db: DatabaseConnection, tenant_id: TenantId, store: LocalStore) -> None:
    """With the model every version goes, and last the model; its numbers go on when the name is used again."""
    for _ in range(2):
        publish(db, tenant_id, store)
    models = ModelRepository(db, tenant_id)
    models.archive(TICKETS)
    report = collect(db, tenant_id, store)
    assert [kind for kind, _ in named(report)] == ["version", "version", "model", "artifact", "artifact"]
    assert models.list(include_archived=True).items == []
    assert publish(db, tenant_id, store).version == "3"


def test_the_name_of_a_collected_version_stays_its_own(
    db: DatabaseConnection, tenant_id: TenantId, store: LocalStore, versions: VersionRepository
) -> None:
    """Other bytes are refused under it; the same come back as a live version."""
    versions.archive(TICKETS, publish(db, tenant_id, store, content="one", version="a").version)
    collect(db, tenant_id, store)
    with pytest.raises(ModelNotFoundError, match="was deleted"):
        versions.restore(TICKETS, VersionId("a"))
    with pytest.raises(ModelVersionConflictError):
        publish(db, tenant_id, store, content="two", version="a")
    assert publish(db, tenant_id, store, content="one", version="a").archived_at is None


def test_orphans_and_half_written_files_go(db: DatabaseConnection, tenant_id: TenantId, store: LocalStore) -> None:
    """Bytes without a row, files of killed writers: gone. A foreign file stays: it is not ours."""
    publish(db, tenant_id, store)
    orphan = store.put(tenant_id, b"orphan", "skops/1")
    folder = store.root / tenant_id / "ab"
    folder.mkdir(exist_ok=True)
    (folder / ".writing-0123").write_bytes(b"half")
    (folder / "notes.txt").write_bytes(b"mine")
    report = collect(db, tenant_id, store)
    assert named(report) == [("artifact", orphan.digest), ("temporary", "ab/.writing-0123")]
    assert report.freed_bytes == len(b"orphan") + len(b"half")
    assert "notes.txt" in stored(store)


def test_the_grace_counts_from_the_last_write(db: DatabaseConnection, tenant_id: TenantId, store: LocalStore) -> None:
    """Bytes that are older than the grace go, younger ones stay."""
    old, young = (store.put(tenant_id, data, "skops/1") for data in (b"old", b"young"))
    past = time.time() - 7_200
    os.utime(store.path(tenant_id, old.digest), (past, past))
    report = collect(db, tenant_id, store, Policy(timedelta(days=1), timedelta(hours=1)))
    assert named(report) == [("artifact", old.digest)]
    assert stored(store) == {young.digest}


def test_datasets_go_when_no_kept_version_was_trained_on_them(
    db: DatabaseConnection, tenant_id: TenantId, store: LocalStore, versions: VersionRepository
) -> None:
    """An archived dataset version stays while a version of its lineage does, and goes together with the last."""
    blob = store.put(tenant_id, b"table", "parquet/1")
    insert_dataset(db, tenant_id, blob.digest)
    model = publish(db, tenant_id, store, lineage=Lineage(dataset_digest=blob.digest))
    collector = Collector(db, store, AT_ONCE)
    kept = collector.plan(tenant_id).kept
    assert [(each.name, each.needed_by) for each in kept] == [("d@1", (f"version:tickets@{model.version}",))]
    versions.archive(TICKETS, model.version)
    report = collector.collect(collector.plan(tenant_id))
    assert [kind for kind, _ in named(report)] == ["version", "dataset_version", "artifact", "artifact"]
    assert stored(store) == set()


def test_a_dataset_that_is_trained_on_after_the_plan_stays(
    db: DatabaseConnection, tenant_id: TenantId, store: LocalStore
) -> None:
    """The check under the lock sees the new version: the dataset is skipped and its bytes stay."""
    blob = store.put(tenant_id, b"table", "parquet/1")
    insert_dataset(db, tenant_id, blob.digest)
    collector = Collector(db, store, AT_ONCE)
    plan = collector.plan(tenant_id)
    publish(db, tenant_id, store, lineage=Lineage(dataset_digest=blob.digest))
    report = collector.collect(plan)
    assert [outcome.status for outcome in report.outcomes] == [Status.SKIPPED, Status.SKIPPED]
    assert blob.digest in stored(store)


@pytest.mark.parametrize("race", ["restore", "train"])
def test_a_change_under_way_is_waited_for(
    db: DatabaseConnection, tenant_id: TenantId, store: LocalStore, versions: VersionRepository, race: str
) -> None:
    """What another transaction has done but not committed holds the collection up, and is then respected."""
    blob = store.put(tenant_id, b"table", "parquet/1")
    insert_dataset(db, tenant_id, blob.digest)
    version = publish(db, tenant_id, store)
    versions.archive(TICKETS, version.version)
    collector = Collector(db, store, AT_ONCE)
    plan = collector.plan(tenant_id)
    wanted = Kind.VERSION if race == "restore" else Kind.DATASET_VERSION
    plan = Plan(tenant_id, [item for item in plan.items if item.kind is wanted])
    reports: list[Report] = []
    worker = threading.Thread(target=lambda: reports.append(collector.collect(plan)))
    with db.tenant(tenant_id) as connection:
        if race == "restore":
            lock_model(connection, tenant_id, TICKETS)
            connection.execute(sa.text("UPDATE mlcore.versions SET archived_at = NULL"))
        else:
            trained = draft(lineage=Lineage(dataset_digest=blob.digest))
            registration.register(connection, tenant_id, trained, artifact_of("x"), "tester")
        worker.start()
        wait_for_a_waiting_session(db)
    worker.join(DEADLINE_S)
    assert [outcome.status for outcome in reports[0].outcomes] == [Status.SKIPPED]


def insert_dataset(db: DatabaseConnection, tenant_id: TenantId, digest: str) -> None:
    """An archived version of a dataset with these bytes."""
    with db.tenant(tenant_id) as connection:
        given = {"t": tenant_id, "d": DatasetId("d"), "digest": digest}
        connection.execute(
            sa.text("INSERT INTO mlcore.datasets (tenant_id, dataset_id, created_by) VALUES (:t, :d, 'x')"), given
        )
        connection.execute(
            sa.text(
                "INSERT INTO mlcore.dataset_versions (tenant_id, dataset_id, number, digest, size_bytes, row_count,"
                " columns, created_by, archived_at) VALUES (:t, :d, 1, :digest, 5, 1, '[]', 'x', now())"
            ),
            given,
        )


def test_old_idempotency_keys_go_and_others_stay(
    db: DatabaseConnection, tenant_id: TenantId, store: LocalStore
) -> None:
    """Only those older than a day; each request claims one."""
    for key in ("old", "older", "new"):
        IdempotencyRepository(db, tenant_id).begin(key, "digest")
    with superuser(db) as session:
        session.execute(
            "UPDATE mlcore.idempotency_keys SET created_at = now() - interval '25 hours'"
            " WHERE tenant_id = %s AND key LIKE 'old%%'",
            (tenant_id,),
        )
    assert named(collect(db, tenant_id, store)) == [("idempotency_keys", "2 keys")]
    assert collect(db, tenant_id, store).outcomes == []
    with db.tenant(tenant_id) as connection:
        assert connection.scalars(sa.text("SELECT key FROM mlcore.idempotency_keys")).all() == ["new"]


def test_a_disk_that_refuses_is_told_and_the_rest_goes_on(
    db: DatabaseConnection, tenant_id: TenantId, versions: VersionRepository, tmp_path: Path
) -> None:
    """Bytes that can't be removed fail their item only; the next collection takes them, as orphans."""
    store = StubbornStore(tmp_path / "artifacts")
    first, second = publish(db, tenant_id, store), publish(db, tenant_id, store)
    for version in (first, second):
        versions.archive(TICKETS, version.version)
    store.refused = first.servable.digest
    report = collect(db, tenant_id, store)
    assert named(report, Status.FAILED) == [("artifact", first.servable.digest)]
    assert not report.is_complete
    assert stored(store) == {first.servable.digest}
    store.refused = ""
    assert named(collect(db, tenant_id, store)) == [("artifact", first.servable.digest)]
    assert stored(store) == set()


class StubbornStore(LocalStore):
    """A folder from which one file can't be removed: root may remove every real one."""

    refused = ""

    def delete(self, tenant_id: TenantId, digest: str) -> None:  # type: ignore[override]
        if digest == self.refused:
            raise ModelSaveError("The file can't be removed: Read-only file system.")
        super().delete(tenant_id, digest)  # type: ignore[arg-type]


def test_other_tenants_are_not_touched(
    db: DatabaseConnection, tenant_id: TenantId, other_tenant_id: TenantId, store: LocalStore
) -> None:
    """The same bytes of another tenant, archived or not, stay."""
    for tenant in (tenant_id, other_tenant_id):
        version = publish(db, tenant, store, content="same")
        VersionRepository(db, tenant).archive(TICKETS, version.version)
    collect(db, tenant_id, store)
    assert stored(store) == {version.servable.digest}
    assert VersionRepository(db, other_tenant_id).get(TICKETS, version.version)


def test_every_tenant_is_visited(
    db: DatabaseConnection, tenant_id: TenantId, other_tenant_id: TenantId, store: LocalStore
) -> None:
    """All tenants are listed once."""
    found = list(Collector(db, store, AT_ONCE).tenants())
    assert {tenant_id, other_tenant_id} <= set(found)
    assert len(found) == len(set(found))
