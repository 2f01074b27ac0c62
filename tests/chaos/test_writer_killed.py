"""kill -9 of a process that registers a version, between its steps: nothing is half-visible, fsck tells the rest."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from ml_core.database.connection import DatabaseConnection
from ml_core.ids import TenantId
from ml_core.models.store import LocalStore
from ml_core.registry.collection.fsck import Checker, Finding, FindingKind, Repairer
from ml_core.registry.feed import FeedReader
from ml_core.registry.promotion.environments import PRODUCTION, EnvironmentRepository
from ml_core.registry.versions.models import ModelRepository
from ml_core.registry.versions.repository import VersionRepository
from support.registry import TICKETS, superuser
from support.stored import publish, stored
from support.waiting import wait_until

CONTENT = "the bytes of a version"

# A writer that stops where it is told to, says so and waits to be killed. It registers as every other one does: the
# places to stop are put around the store's method and into SQLAlchemy's own events, here and nowhere in the platform.
WRITER = f"""
import sys, time
import sqlalchemy
from ml_core.database.connection import DatabaseConnection
from ml_core.ids import TenantId
from ml_core.models.store import LocalStore
from support.stored import publish

root, tenant, where = sys.argv[1:]

def stop(*_, **__):
    print("stopped", flush=True)
    time.sleep(600)

class Store(LocalStore):
    def put(self, *arguments, **keywords):
        artifact = super().put(*arguments, **keywords)
        if where == "after the artifact":
            stop()
        return artifact

written = []

@sqlalchemy.event.listens_for(sqlalchemy.engine.Engine, "before_cursor_execute")
def note(connection, cursor, statement, *_):
    written.extend(["version"] * statement.startswith("INSERT INTO mlcore.versions "))

@sqlalchemy.event.listens_for(sqlalchemy.engine.Engine, "commit")
def before_commit(connection):
    if where == "before the commit" and written:
        stop()

publish(DatabaseConnection(), TenantId(tenant), Store(root), {CONTENT!r})
"""


@contextmanager
def stopped_writer(db: DatabaseConnection, tenant_id: TenantId, store: LocalStore, where: str) -> Iterator[int]:
    """A process that registers a version of ``tickets`` and has come to a place between two steps. Its id."""
    arguments = [sys.executable, "-c", WRITER, str(store.root), tenant_id, where]
    environment = {**os.environ, **db.environment, "PYTHONPATH": str(Path(__file__).parents[1])}
    process = subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "stopped\n"
        yield process.pid
    finally:
        process.kill()
        process.wait(timeout=20)
        process.stdout.close()


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "artifacts")


def check(db: DatabaseConnection, tenant_id: TenantId, store: LocalStore, grace: timedelta) -> list[Finding]:
    return list(Checker(db, store, grace).check(tenant_id))


def uncommitted(db: DatabaseConnection) -> int:
    """Transactions that have written and wait for their client."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction' AND backend_xid IS NOT NULL"
    with superuser(db) as session:
        row = session.execute(waiting).fetchone()
    return int(row[0]) if row else 0


@pytest.mark.parametrize("where", ["after the artifact", "before the commit"])
def test_a_killed_writer_leaves_an_orphan_and_nothing_else(
    db: DatabaseConnection, tenant_id: TenantId, store: LocalStore, where: str
) -> None:
    """No version, no model, no event; young bytes are no finding, old ones are and go; registering again works."""
    before = FeedReader(db).read(None).generation
    with stopped_writer(db, tenant_id, store, where) as pid:
        assert len(stored(store)) == 1
        assert uncommitted(db) == (1 if where == "before the commit" else 0)
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: uncommitted(db) == 0, 20)

    assert VersionRepository(db, tenant_id).list(TICKETS, include_archived=True).items == []
    assert ModelRepository(db, tenant_id).list(include_archived=True).items == []
    assert FeedReader(db).read(before).is_empty
    assert check(db, tenant_id, store, timedelta(hours=1)) == []
    (finding,) = check(db, tenant_id, store, timedelta(0))
    assert finding.kind is FindingKind.ORPHANED
    assert Repairer(db, store).repair(finding).is_repaired
    assert stored(store) == set()
    assert check(db, tenant_id, store, timedelta(0)) == []

    version = publish(db, tenant_id, store, CONTENT)
    assert version.version == "1", "no number was used up"
    EnvironmentRepository(db, tenant_id).promote(TICKETS, version.version, PRODUCTION, actor="tester")
    assert check(db, tenant_id, store, timedelta(0)) == []


def test_the_bytes_that_a_killed_writer_left_serve_the_next_one(
    db: DatabaseConnection, tenant_id: TenantId, store: LocalStore
) -> None:
    """Registering the same bytes takes up the orphan: one file, and nothing for fsck to say."""
    with stopped_writer(db, tenant_id, store, "after the artifact") as pid:
        os.kill(pid, signal.SIGKILL)
    version = publish(db, tenant_id, store, CONTENT)
    assert stored(store) == {version.servable.digest}
    assert check(db, tenant_id, store, timedelta(0)) == []


def test_a_killed_writer_holds_nobody_up(db: DatabaseConnection, tenant_id: TenantId, store: LocalStore) -> None:
    """Its locks end with it: the next registration of the same model waits no longer than that."""
    with stopped_writer(db, tenant_id, store, "before the commit") as pid:
        os.kill(pid, signal.SIGKILL)
        assert publish(db, tenant_id, store).version == "1"
