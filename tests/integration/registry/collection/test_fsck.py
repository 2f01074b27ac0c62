"""``fsck`` proves that rows and bytes agree, finds each way in which they may not, and mends what can be mended."""

from __future__ import annotations

import hashlib
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest

from ml_core.database.connection import DatabaseConnection
from ml_core.exceptions import Action
from ml_core.ids import TenantId, VersionId
from ml_core.models.store import LocalStore
from ml_core.registry.collection.fsck import Checker, Finding, FindingKind, Repairer
from ml_core.registry.collection.tenant_deletion import TenantDeletion
from ml_core.registry.promotion.environments import PRODUCTION, EnvironmentRepository
from ml_core.registry.versions.repository import VersionRepository
from support.registry import TICKETS, superuser
from support.stored import publish, stored

NO_GRACE = timedelta(0)
DEADLINE_S = 20


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "artifacts")


def check(
    db: DatabaseConnection,
    tenant_id: TenantId,
    store: LocalStore,
    *,
    grace: timedelta = NO_GRACE,
    is_quick: bool = False,
) -> list[Finding]:
    return list(Checker(db, store, grace, is_quick=is_quick).check(tenant_id))


def kinds(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.kind.value, finding.subject) for finding in findings]


@pytest.mark.parametrize("is_quick", [False, True])
def test_a_sound_tenant_is_clean(
    db: DatabaseConnection, tenant_id: TenantId, store: LocalStore, is_quick: bool
) -> None:
    """Versions, pointers, shared bytes, deleted and archived ones: nothing is found, and everything was looked at."""
    first, second = publish(db, tenant_id, store), publish(db, tenant_id, store)
    publish(db, tenant_id, store, content="same", version="a")
    publish(db, tenant_id, store, content="same", version="b")
    versions, environments = VersionRepository(db, tenant_id), EnvironmentRepository(db, tenant_id)
    for version in (first, second):
        environments.promote(TICKETS, version.version, PRODUCTION, actor="tester")
    environments.rollback(TICKETS, PRODUCTION, actor="tester")
    versions.delete(TICKETS, VersionId("a"))
    versions.archive(TICKETS, VersionId("b"))
    checker = Checker(db, store, NO_GRACE, is_quick=is_quick)
    shares: list[float] = []
    assert list(checker.check(tenant_id, shares.append)) == []
    assert shares == sorted(shares)
    assert (len(shares), shares[-1]) == (4, 1.0)  # each artifact, and the end
    assert (checker.checked.needed, checker.checked.stored) == (3, 3)


@pytest.mark.parametrize("is_quick", [False, True])
def test_missing_bytes(db: DatabaseConnection, tenant_id: TenantId, store: LocalStore, is_quick: bool) -> None:
    """A row without bytes is found, with the version that needs it, the environment that serves it and what to do."""
    version = publish(db, tenant_id, store)
    EnvironmentRepository(db, tenant_id).promote(TICKETS, version.version, PRODUCTION, actor="tester")
    store.path(tenant_id, version.servable.digest).unlink()
    (finding,) = check(db, tenant_id, store, is_quick=is_quick)
    assert (finding.kind, finding.digest) == (FindingKind.MISSING, version.servable.digest)
    assert finding.needed_by == ("version:tickets@1",)
    assert finding.action == Action.of("fsck", repair=True)
    assert "Or serve another version in tickets:production." in finding.remedy


@pytest.mark.parametrize(("damage", "quick_sees_it"), [(b"cut", True), (None, False)])
def test_corrupt_bytes(
    db: DatabaseConnection, tenant_id: TenantId, store: LocalStore, damage: bytes | None, quick_sees_it: bool
) -> None:
    """Other bytes are found by reading them all; a quick check sees those of another size."""
    version = publish(db, tenant_id, store)
    path = store.path(tenant_id, version.servable.digest)
    path.write_bytes(damage or b"x" * path.stat().st_size)
    assert kinds(check(db, tenant_id, store)) == [("corrupt", version.servable.digest)]
    assert bool(check(db, tenant_id, store, is_quick=True)) is quick_sees_it


def test_orphans_and_strays(db: DatabaseConnection, tenant_id: TenantId, store: LocalStore) -> None:
    """Bytes without a row, half-written files and foreign ones are found once the grace is over, and not before."""
    publish(db, tenant_id, store)
    orphan = store.put(tenant_id, b"orphan", "skops/1")
    (store.root / tenant_id / ".writing-01").write_bytes(b"half")
    (store.root / tenant_id / "notes.txt").write_bytes(b"mine")
    found = check(db, tenant_id, store)
    assert sorted(kinds(found)) == [("orphaned", orphan.digest), ("stray", ".writing-01"), ("stray", "notes.txt")]
    assert check(db, tenant_id, store, grace=timedelta(hours=1)) == []


def test_repair_removes_what_nobody_needs(db: DatabaseConnection, tenant_id: TenantId, store: LocalStore) -> None:
    """Orphans and half-written files go; a foreign file is left and stays a finding."""
    version = publish(db, tenant_id, store)
    store.put(tenant_id, b"orphan", "skops/1")
    (store.root / tenant_id / ".writing-01").write_bytes(b"half")
    (store.root / tenant_id / "notes.txt").write_bytes(b"mine")
    repairer = Repairer(db, store)
    repaired = {f.subject: repairer.repair(f).is_repaired for f in check(db, tenant_id, store)}
    assert repaired == {hashlib.sha256(b"orphan").hexdigest(): True, ".writing-01": True, "notes.txt": False}
    assert stored(store) == {version.servable.digest, "notes.txt"}
    assert kinds(check(db, tenant_id, store)) == [("stray", "notes.txt")]


def test_repair_leaves_an_orphan_that_is_needed_by_now(
    db: DatabaseConnection, tenant_id: TenantId, store: LocalStore
) -> None:
    """Bytes that were registered between the check and the repair stay."""
    orphan = store.put(tenant_id, b"the model", "skops/1")
    (finding,) = check(db, tenant_id, store)
    publish(db, tenant_id, store, content="the model")
    Repairer(db, store).repair(finding)
    assert stored(store) == {orphan.digest}


@pytest.mark.parametrize("damage", ["missing", "corrupt"])
def test_repair_from_another_copy(
    db: DatabaseConnection, tenant_id: TenantId, store: LocalStore, tmp_path: Path, damage: str
) -> None:
    """A sound copy in a folder that is named mends lost bytes; a damaged one mends nothing, and is not copied."""
    version = publish(db, tenant_id, store, content="the model")
    path, mirror = store.path(tenant_id, version.servable.digest), LocalStore(tmp_path / "mirror")
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(b"other")
    (finding,) = check(db, tenant_id, store)
    assert not Repairer(db, store, [mirror]).repair(finding).is_repaired
    copy = mirror.path(tenant_id, mirror.put(tenant_id, b"the model", "skops/1").digest)
    copy.write_bytes(b"the modem")
    assert not Repairer(db, store, [mirror]).repair(finding).is_repaired
    copy.write_bytes(b"the model")
    assert Repairer(db, store, [mirror]).repair(finding).is_repaired
    assert path.read_bytes() == b"the model"
    assert check(db, tenant_id, store) == []


def test_registering_the_same_bytes_mends(db: DatabaseConnection, tenant_id: TenantId, store: LocalStore) -> None:
    """The remedy that the finding names works."""
    version = publish(db, tenant_id, store, content="the model", version="a")
    store.path(tenant_id, version.servable.digest).unlink()
    assert "register the same file again" in check(db, tenant_id, store)[0].remedy
    publish(db, tenant_id, store, content="the model", version="a")
    assert check(db, tenant_id, store) == []


BROKEN = {
    "a gap in a history": (
        "DELETE FROM mlcore.environment_history WHERE tenant_id = '{t}' AND generation = 1",
        "tickets:production",
    ),
    "a pointer that nobody moved": (
        "UPDATE mlcore.environments SET version = '1' WHERE tenant_id = '{t}'",
        "tickets:production",
    ),
    "a served version that is archived": (
        "UPDATE mlcore.versions SET archived_at = now() WHERE tenant_id = '{t}' AND version = '2'",
        "tickets:production",
    ),
    "a name with other bytes": (
        "INSERT INTO mlcore.deleted_versions (tenant_id, model_id, version, digest)"
        " VALUES ('{t}', 'tickets', '1', repeat('0', 64))",
        "tickets@1",
    ),
    "a parent that is not there": (
        "UPDATE mlcore.versions SET parent_version = '9' WHERE tenant_id = '{t}' AND version = '1'",
        "tickets@1",
    ),
    "a number to be given out again": (
        "UPDATE mlcore.models SET next_number = 2 WHERE tenant_id = '{t}'",
        "tickets",
    ),
    "a history without a pointer": ("DELETE FROM mlcore.environments WHERE tenant_id = '{t}'", "tickets:production"),
    "a deleted model with versions": ("UPDATE mlcore.models SET deleted_at = now() WHERE tenant_id = '{t}'", "tickets"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_rows_that_contradict_each_other(
    db: DatabaseConnection, tenant_id: TenantId, store: LocalStore, what: str
) -> None:
    """Each thing that somebody with a superuser's hands may break is found, by name, with what to do."""
    for _ in range(2):
        version = publish(db, tenant_id, store)
        EnvironmentRepository(db, tenant_id).promote(TICKETS, version.version, PRODUCTION, actor="tester")
    assert check(db, tenant_id, store) == []
    statement, subject = BROKEN[what]
    with superuser(db) as session:
        session.execute(statement.format(t=tenant_id))
    found = check(db, tenant_id, store)
    assert kinds(found) == [("inconsistent", subject)]
    assert found[0].remedy
    assert not Repairer(db, store).repair(found[0]).is_repaired


def test_folders_without_a_tenant(db: DatabaseConnection, tenant_id: TenantId, store: LocalStore) -> None:
    """Bytes of a tenant that never was are told and left alone; what a deletion left is removed by a repair."""
    stranger = TenantId("stranger")
    store.put(stranger, b"whose", "skops/1")
    publish(db, tenant_id, store)
    TenantDeletion(db, store)._close(tenant_id)
    found = [f for f in Checker(db, store, NO_GRACE).check_folders() if f.tenant_id in (stranger, tenant_id)]
    assert {(f.kind, f.tenant_id) for f in found} == {
        (FindingKind.UNKNOWN_TENANT, stranger),
        (FindingKind.DELETED_TENANT, tenant_id),
    }
    repairer = Repairer(db, store)
    assert {f.kind: repairer.repair(f).is_repaired for f in found} == {
        FindingKind.UNKNOWN_TENANT: False,
        FindingKind.DELETED_TENANT: True,
    }
    assert list(store.tenants()) == [stranger]
    left = [f.tenant_id for f in Checker(db, store, NO_GRACE).check_folders()]
    assert stranger in left
    assert tenant_id not in left


def test_writers_at_work_make_no_finding(db: DatabaseConnection, tenant_id: TenantId, store: LocalStore) -> None:
    """While versions are registered and deleted all the time, no check finds anything."""
    stop, failures = threading.Event(), []

    def write() -> None:
        versions = VersionRepository(db, tenant_id, store)
        try:
            while not stop.is_set():
                version = publish(db, tenant_id, store)
                versions.delete(TICKETS, version.version)
        except Exception as error:  # noqa: BLE001 - looked at below
            failures.append(error)

    workers = [threading.Thread(target=write) for _ in range(2)]
    for worker in workers:
        worker.start()
    try:
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            assert check(db, tenant_id, store, grace=timedelta(minutes=5)) == []
    finally:
        stop.set()
        for worker in workers:
            worker.join(DEADLINE_S)
    assert failures == []


def test_more_artifacts_than_a_page(
    db: DatabaseConnection, tenant_id: TenantId, store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages of rows and of files are cut so that each artifact is looked at once."""
    monkeypatch.setattr("ml_core.registry.collection.fsck.PAGE", 2)
    digests = [publish(db, tenant_id, store).servable.digest for _ in range(7)]
    store.path(tenant_id, sorted(digests)[4]).unlink()
    checker = Checker(db, store, NO_GRACE)
    assert kinds(list(checker.check(tenant_id))) == [("missing", sorted(digests)[4])]
    assert (checker.checked.needed, checker.checked.stored) == (7, 6)


def test_another_tenants_bytes_do_not_count(
    db: DatabaseConnection, tenant_id: TenantId, other_tenant_id: TenantId, store: LocalStore
) -> None:
    """The same bytes in another tenant's folder neither make a missing artifact sound nor an orphan needed."""
    version = publish(db, tenant_id, store, content="same")
    publish(db, other_tenant_id, store, content="same")
    store.path(tenant_id, version.servable.digest).unlink()
    assert kinds(check(db, tenant_id, store)) == [("missing", version.servable.digest)]
    assert check(db, other_tenant_id, store) == []
