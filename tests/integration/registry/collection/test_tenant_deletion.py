"""Deleting a tenant removes every row and every byte, and nothing of anybody else."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from ml_core.database import security
from ml_core.database.connection import DatabaseConnection
from ml_core.domain.api_key import Scope
from ml_core.domain.principal import Principal
from ml_core.exceptions import (
    AuthenticationError,
    PermissionDeniedError,
    PlatformError,
    TenantExistsError,
    TenantNotFoundError,
    VersionInUseError,
)
from ml_core.ids import HoldName, TenantId
from ml_core.models.store import LocalStore
from ml_core.registry.collection import tenant_deletion
from ml_core.registry.collection.collector import Collector, Status
from ml_core.registry.collection.fsck import Checker, FindingKind
from ml_core.registry.collection.holds import HoldRepository
from ml_core.registry.collection.planner import Kind
from ml_core.registry.collection.tenant_deletion import TenantDeletion
from ml_core.registry.feed import FeedReader
from ml_core.registry.keys import KeyRepository
from ml_core.registry.promotion.environments import PRODUCTION, EnvironmentRepository
from ml_core.registry.runs import RunRepository
from ml_core.registry.tenants import TenantRepository, tenant_ids
from ml_core.registry.versions import registration
from ml_core.registry.versions.repository import VersionRepository
from support.filled import fill
from support.registry import TICKETS, artifact_of, draft, new_tenant, register, superuser
from support.stored import AT_ONCE, DEADLINE_S, publish, stored, wait_for_a_waiting_session


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "artifacts")


@pytest.fixture
def deletion(db: DatabaseConnection, store: LocalStore) -> TenantDeletion:
    return TenantDeletion(db, store)


def counts(db: DatabaseConnection, tenant_id: TenantId) -> dict[str, int]:
    """Table → rows of the tenant."""
    with db.tenant(tenant_id) as connection:
        return {
            table: connection.scalar(
                sa.text(f"SELECT count(*) FROM mlcore.{table} WHERE tenant_id = :t"), {"t": tenant_id}
            )
            for table in security.tenant_tables()
        }


def release_holds(db: DatabaseConnection, tenant_id: TenantId) -> None:
    holds = HoldRepository(db, tenant_id)
    for hold in holds.list().items:
        holds.release(hold.model_id, hold.version, hold.name)


def test_every_row_of_every_table_goes(
    db: DatabaseConnection, tenant_id: TenantId, other_tenant_id: TenantId, deletion: TenantDeletion
) -> None:
    """With a row in each table, all but the tenant's own are gone and counted; the other tenant's are all there."""
    for tenant in (tenant_id, other_tenant_id):
        fill(db, tenant)
    release_holds(db, tenant_id)
    before, others = counts(db, tenant_id), counts(db, other_tenant_id)
    assert [table for table, count in before.items() if count == 0] == ["holds"]
    report = deletion.delete(tenant_id)
    assert counts(db, tenant_id) == {table: int(table == "tenants") for table in security.tenant_tables()}
    assert counts(db, other_tenant_id) == others
    assert report.rows == {table: count for table, count in sorted(before.items()) if table not in ("tenants", "holds")}
    assert report.deleted_by == db.principal.name


def test_every_byte_goes(
    db: DatabaseConnection, tenant_id: TenantId, other_tenant_id: TenantId, deletion: TenantDeletion, store: LocalStore
) -> None:
    """Artifacts, strays and checkpoints of the tenant are gone and counted; those of others stay."""
    publish(db, tenant_id, store, content="mine")
    kept = publish(db, other_tenant_id, store)
    (store.root / tenant_id / "notes.txt").write_bytes(b"12345")
    checkpoints = db.settings.platform.home / "checkpoints" / tenant_id / "tickets"
    checkpoints.mkdir(parents=True)
    (checkpoints / "epoch-000000001.joblib").write_bytes(b"123")
    report = deletion.delete(tenant_id)
    assert (report.artifacts.count, report.artifacts.bytes) == (2, len("mine") + 5)
    assert (report.checkpoints.count, report.checkpoints.bytes) == (1, 3)
    assert stored(store) == {kept.servable.digest}
    assert not (store.root / tenant_id).exists()
    assert not checkpoints.parent.exists()


def test_the_name_is_never_used_again(db: DatabaseConnection, tenant_id: TenantId, deletion: TenantDeletion) -> None:
    """Neither creating nor a first registration brings the tenant back, and it is not listed."""
    deletion.delete(tenant_id)
    tenants = TenantRepository(db)
    with pytest.raises(TenantExistsError, match="never used again"):
        tenants.create(tenant_id)
    for refused in (tenants.ensure, tenants.get):
        with pytest.raises(TenantNotFoundError, match="was deleted"):
            refused(tenant_id)
    assert tenant_id not in tenant_ids(db)


WRITES: dict[str, Callable[[DatabaseConnection, TenantId], object]] = {
    "register": register,
    "key": lambda db, tenant: KeyRepository(db, tenant).create("k", [Scope.READ]),
    "promote": lambda db, tenant: EnvironmentRepository(db, tenant).promote(
        TICKETS, VERSIONS[tenant], PRODUCTION, actor="tester"
    ),
    "hold": lambda db, tenant: HoldRepository(db, tenant).place(TICKETS, VERSIONS[tenant], HoldName("h"), "why"),
    "metrics": lambda db, tenant: RunRepository(db, tenant).log_metrics(RUNS[tenant], {"loss": 1.0}),
    "heartbeat": lambda db, tenant: RunRepository(db, tenant).beat(RUNS[tenant]),
}
VERSIONS: dict[TenantId, object] = {}
RUNS: dict[TenantId, str] = {}


@pytest.mark.parametrize("write", WRITES)
def test_a_closed_tenant_accepts_no_write(
    db: DatabaseConnection, tenant_id: TenantId, deletion: TenantDeletion, write: str
) -> None:
    """From the first step of a deletion on, while its rows are still there, every write is refused in words."""
    VERSIONS[tenant_id] = register(db, tenant_id).version
    RUNS[tenant_id] = RunRepository(db, tenant_id).start(TICKETS)
    deletion._close(tenant_id)
    before = counts(db, tenant_id)
    with pytest.raises(TenantNotFoundError):
        WRITES[write](db, tenant_id)
    assert counts(db, tenant_id) == before


def test_a_write_under_way_is_waited_for(db: DatabaseConnection, tenant_id: TenantId, deletion: TenantDeletion) -> None:
    """A registration that is not committed yet holds the deletion up; its rows are deleted with the rest."""
    deleted = threading.Event()

    def delete() -> None:
        deletion.delete(tenant_id)
        deleted.set()

    worker = threading.Thread(target=delete)
    with db.tenant(tenant_id) as connection:
        registration.register(connection, tenant_id, draft(), artifact_of("late"), "tester")
        worker.start()
        wait_for_a_waiting_session(db)
        assert not deleted.is_set()
    worker.join(DEADLINE_S)
    assert deleted.is_set()
    assert sum(counts(db, tenant_id).values()) == 1


@pytest.mark.parametrize("write", ["register", "archive"])
def test_a_write_that_waits_for_the_deletion_is_refused(
    db: DatabaseConnection, tenant_id: TenantId, deletion: TenantDeletion, write: str
) -> None:
    """The other way round: a write begins before the tenant is closed and would commit after: it can't."""
    version = register(db, tenant_id).version
    failures: list[Exception] = []

    def run() -> None:
        try:
            if write == "register":
                register(db, tenant_id)
            else:  # refers to no row of the tenants: nothing but the journal holds it up
                VersionRepository(db, tenant_id).archive(TICKETS, version)
        except Exception as error:  # noqa: BLE001 - looked at below
            failures.append(error)

    worker = threading.Thread(target=run)
    with db.tenant(tenant_id) as connection:
        connection.execute(sa.text("SELECT mlcore.close_tenant()"))
        worker.start()
        wait_for_a_waiting_session(db)
    worker.join(DEADLINE_S)
    assert [type(error) for error in failures] == [TenantNotFoundError]
    deletion.delete(tenant_id)
    assert sum(counts(db, tenant_id).values()) == 1


def test_a_checkpoint_that_came_after_is_collected(
    db: DatabaseConnection, tenant_id: TenantId, deletion: TenantDeletion, store: LocalStore
) -> None:
    """A training that goes on for a while after the deletion leaves a file: ``fsck`` finds it, ``gc`` removes it."""
    deletion.delete(tenant_id)
    checkpoint = db.settings.platform.home / "checkpoints" / tenant_id / "tickets" / "epoch-1.joblib"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"123")
    checker = Checker(db, store, AT_ONCE.grace)
    (finding,) = [found for found in checker.check_folders() if found.tenant_id == tenant_id]
    assert (finding.kind, "checkpoints" in finding.what) == (FindingKind.DELETED_TENANT, True)
    collector = Collector(db, store, AT_ONCE)
    assert tenant_id in set(collector.tenants())
    assert [outcome.freed_bytes for outcome in collector.collect(collector.plan(tenant_id)).outcomes] == [3]
    assert not checkpoint.parent.parent.exists()


def test_the_keys_of_a_closed_tenant_are_refused_at_once(
    db: DatabaseConnection, tenant_id: TenantId, deletion: TenantDeletion
) -> None:
    """Killed between closing the tenant and revoking its keys: nobody believes them, in the CLI or a replica."""
    keys, reader = KeyRepository(db, tenant_id), FeedReader(db)
    seen = reader.read(None).generation
    key = keys.create("k", [Scope.READ])
    assert keys.authenticate(str(key)).scopes == {Scope.READ}
    deletion._close(tenant_id)
    with pytest.raises(AuthenticationError):
        keys.authenticate(str(key))
    assert key.key_id not in reader.read(None).keys
    assert reader.read(seen).keys[(tenant_id, key.key_id)] is None


def test_replicas_hear_of_it(db: DatabaseConnection, tenant_id: TenantId, deletion: TenantDeletion) -> None:
    """The next delta says that the tenant is gone; its keys are revoked; no snapshot names it."""
    fill(db, tenant_id)
    release_holds(db, tenant_id)
    reader = FeedReader(db)
    seen = reader.read(None).generation
    deletion._close(tenant_id)
    deletion._stop_serving(tenant_id)
    delta = reader.read(seen)
    assert delta.tenants == {tenant_id: False}
    assert set(delta.keys.values()) == {None}
    snapshot = reader.read(None)
    assert tenant_id not in snapshot.tenants
    assert tenant_id not in {ref.tenant_id for ref in snapshot.rollouts}
    deletion.delete(tenant_id)
    assert reader.read(seen).tenants == {tenant_id: False}


def test_a_replica_that_was_away_hears_of_it(
    db: DatabaseConnection, tenant_id: TenantId, deletion: TenantDeletion
) -> None:
    """One that reads only after everything was removed is told as well that the tenant is gone."""
    fill(db, tenant_id)
    release_holds(db, tenant_id)
    reader = FeedReader(db)
    seen = reader.read(None).generation
    deletion.delete(tenant_id)
    assert reader.read(seen).tenants == {tenant_id: False}


def test_a_hold_forbids_it(db: DatabaseConnection, tenant_id: TenantId, deletion: TenantDeletion) -> None:
    """A tenant with a held version stays whole, for raw SQL too, until the hold is released."""
    version = register(db, tenant_id)
    HoldRepository(db, tenant_id).place(TICKETS, version.version, HoldName("legal"), "case 4711")
    before = counts(db, tenant_id)
    with pytest.raises(VersionInUseError, match="legal on tickets@1"):
        deletion.delete(tenant_id)
    with pytest.raises(DBAPIError, match="has holds"), db.tenant(tenant_id) as connection:
        connection.execute(sa.text("SELECT mlcore.close_tenant()"))
    assert counts(db, tenant_id) == before
    TenantRepository(db).get(tenant_id)


def test_a_deletion_that_ended_half_way_is_finished(
    db: DatabaseConnection,
    tenant_id: TenantId,
    deletion: TenantDeletion,
    store: LocalStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Closed and half of the rows removed, then killed: ``gc`` and a second deletion both know what is left."""
    publish(db, tenant_id, store)
    fill(db, tenant_id)
    release_holds(db, tenant_id)
    deletion._close(tenant_id)
    with db.tenant(tenant_id) as connection:
        connection.execute(sa.text("SELECT * FROM mlcore.remove_tenant_rows(7)"))
    collector = Collector(db, store, AT_ONCE)
    assert tenant_id in set(collector.tenants())
    plan = collector.plan(tenant_id)
    assert [item.kind for item in plan.items] == [Kind.TENANT]
    assert [outcome.status for outcome in collector.collect(plan).outcomes] == [Status.COLLECTED]
    assert sum(counts(db, tenant_id).values()) == 1
    assert stored(store) == set()
    assert tenant_id not in set(collector.tenants())


def test_many_rows_go_in_batches(
    db: DatabaseConnection, tenant_id: TenantId, deletion: TenantDeletion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each transaction removes a bounded number of rows; together they remove all, each counted once."""
    monkeypatch.setattr(tenant_deletion, "_ROWS_AT_ONCE", 5)
    fill(db, tenant_id)
    release_holds(db, tenant_id)
    before = counts(db, tenant_id)
    assert sum(deletion.delete(tenant_id).rows.values()) == sum(before.values()) - 1


def nest_runs(db: DatabaseConnection, tenant_id: TenantId, count: int, levels: int) -> None:
    """Runs that are parts of runs: a family for each number up to ``count``, ``levels`` deep."""
    statement = sa.text(
        "INSERT INTO mlcore.runs (tenant_id, run_id, model_id, kind, status, parent_run_id)"
        " SELECT CAST(:t AS text), md5(i || 'l' || :level), 'm', 'tune', 'finished',"
        " CASE WHEN :level = 0 THEN NULL ELSE md5(i || 'l' || :level - 1) END FROM generate_series(1, :count) i"
    )
    with db.tenant(tenant_id) as connection:
        for level in range(levels):
            connection.execute(statement, {"t": str(tenant_id), "level": level, "count": count})


def test_runs_that_are_parts_of_runs_go(
    db: DatabaseConnection, tenant_id: TenantId, deletion: TenantDeletion, store: LocalStore
) -> None:
    """More runs than a batch, three levels deep and with the planner's statistics of them: all go, bytes too."""
    publish(db, tenant_id, store)
    nest_runs(db, tenant_id, 4_000, 3)
    with superuser(db) as session:
        session.execute("ANALYZE mlcore.runs")
    assert deletion.delete(tenant_id).rows["runs"] == 12_000
    assert stored(store) == set()
    assert not deletion.has_rows(tenant_id)


def test_a_long_chain_of_runs_goes(db: DatabaseConnection, tenant_id: TenantId, deletion: TenantDeletion) -> None:
    """A chain of parts that is longer than the rounds of a batch is taken by the batches that follow."""
    nest_runs(db, tenant_id, 1, 130)
    assert deletion.delete(tenant_id).rows["runs"] == 130


def test_rows_that_can_not_go_are_said(
    db: DatabaseConnection, tenant_id: TenantId, deletion: TenantDeletion, store: LocalStore
) -> None:
    """Rows that refer to each other in a circle end the deletion with one of our errors; ``gc`` goes on past it."""
    nest_runs(db, tenant_id, 1, 2)
    with superuser(db) as session:
        session.execute(
            "UPDATE mlcore.runs SET parent_run_id = md5('1l1') WHERE tenant_id = %s AND parent_run_id IS NULL",
            (tenant_id,),
        )
    with pytest.raises(PlatformError, match="runs"):
        deletion.delete(tenant_id)
    collector = Collector(db, store, AT_ONCE)
    assert [outcome.status for outcome in collector.collect(collector.plan(tenant_id)).outcomes] == [Status.FAILED]


def test_two_at_once_share_the_work(
    db: DatabaseConnection, tenant_id: TenantId, deletion: TenantDeletion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two people delete the same tenant: both succeed, and each row was removed by one of them."""
    monkeypatch.setattr(tenant_deletion, "_ROWS_AT_ONCE", 2)
    fill(db, tenant_id)
    release_holds(db, tenant_id)
    before = counts(db, tenant_id)
    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(deletion.delete, [tenant_id] * 2))
    assert sum(sum(report.rows.values()) for report in reports) == sum(before.values()) - 1
    assert sum(counts(db, tenant_id).values()) == 1


def test_deleting_again_finds_nothing(db: DatabaseConnection, tenant_id: TenantId, deletion: TenantDeletion) -> None:
    """The second run reports the first one's date and no row."""
    first, second = deletion.delete(tenant_id), deletion.delete(tenant_id)
    assert second.deleted_at == first.deleted_at
    assert second.rows == {}


def test_an_unknown_tenant_is_said(deletion: TenantDeletion) -> None:
    """What never was can't be deleted."""
    with pytest.raises(TenantNotFoundError, match="There is no tenant nobody-knows"):
        deletion.delete(TenantId("nobody-knows"))


def test_it_takes_the_scope_admin(db: DatabaseConnection, tenant_id: TenantId, store: LocalStore) -> None:
    """A key that may train and promote may not delete the tenant."""
    principal = Principal("key:0", frozenset({Scope.TRAIN, Scope.PROMOTE}))
    with pytest.raises(PermissionDeniedError):
        TenantDeletion(db.acting_as(principal), store).delete(tenant_id)


@pytest.mark.parametrize("statement", ["SELECT * FROM mlcore.remove_tenant_rows(10)", "SELECT mlcore.close_tenant()"])
def test_the_functions_act_on_nothing_without_a_tenant(db: DatabaseConnection, statement: str) -> None:
    """A session that names no tenant closes and removes nothing, though the functions have the owner's rights."""
    other = new_tenant(db)
    register(db, other)
    before = counts(db, other)
    with psycopg.connect(db.urls.app) as session, contextlib.suppress(psycopg.errors.RestrictViolation):
        session.execute(statement)
    assert counts(db, other) == before
    TenantRepository(db).get(other)


def test_rows_of_a_tenant_that_is_not_deleted_can_not_be_removed(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """The function that removes rows asks for the mark first, and an undo of the mark is not the runtime's."""
    register(db, tenant_id)
    before = counts(db, tenant_id)
    with pytest.raises(DBAPIError, match="was not deleted"), db.tenant(tenant_id) as connection:
        connection.execute(sa.text("SELECT * FROM mlcore.remove_tenant_rows(10)"))
    assert counts(db, tenant_id) == before
    with pytest.raises(DBAPIError, match="permission denied"), db.tenant(tenant_id) as connection:
        connection.execute(sa.text("UPDATE mlcore.tenants SET deleted_at = NULL"))
