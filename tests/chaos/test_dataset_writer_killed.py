"""kill -9 of a process that registers a dataset, between its steps: nothing is half-visible, fsck tells the rest."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from ml_core.database.connection import DatabaseConnection
from ml_core.ids import TenantId
from ml_core.models.store import LocalStore
from ml_core.registry.collection.fsck import Checker, FindingKind, Repairer
from ml_core.registry.datasets import DatasetRepository
from support.stored import stored

# The places to stop are put around the store's method and into SQLAlchemy's own events. The tenant exists, so the first
# commit after the file was stored is that of the dataset's row.
WRITER = """
import sys, time
import sqlalchemy
from ml_core.database.connection import DatabaseConnection
from ml_core.ids import TenantId
from ml_core.models.store import LocalStore
from ml_core.registry.datasets import DatasetRepository

root, tenant, where = sys.argv[1:]
is_stored = False

def stop():
    print("stopped", flush=True)
    time.sleep(600)

class Store(LocalStore):
    def put_file(self, *arguments, **keywords):
        global is_stored
        artifact = super().put_file(*arguments, **keywords)
        is_stored = True
        if where == "after the file":
            stop()
        return artifact

@sqlalchemy.event.listens_for(sqlalchemy.engine.Engine, "commit")
def before_commit(connection):
    if where == "before the commit" and is_stored:
        stop()

DatasetRepository(DatabaseConnection(), TenantId(tenant), Store(root)).create("d", {"x": [1, 2]})
"""


@pytest.mark.parametrize("where", ["after the file", "before the commit"])
def test_a_killed_writer_leaves_an_orphan_and_nothing_else(
    db: DatabaseConnection, tenant_id: TenantId, tmp_path: Path, where: str
) -> None:
    """No dataset and no version; the file is found and goes, and registering again takes the first number."""
    store = LocalStore(tmp_path / "artifacts")
    arguments = [sys.executable, "-c", WRITER, str(store.root), tenant_id, where]
    # What it makes for itself stays behind too: in the temporary folder, which is the system's to clear.
    environment = {**os.environ, **db.environment, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "stopped\n"
        os.kill(process.pid, signal.SIGKILL)
    finally:
        process.kill()
        process.wait(timeout=20)
        process.stdout.close()

    datasets = DatasetRepository(db, tenant_id, store)
    assert len(stored(store)) == 1
    assert list(datasets.list(include_archived=True).items) == []
    (finding,) = Checker(db, store, timedelta(0)).check(tenant_id)
    assert finding.kind is FindingKind.ORPHANED
    # It waits for the killed writer's transaction, which holds the digest's lock, to end.
    assert Repairer(db, store).repair(finding).is_repaired
    assert stored(store) == set()
    assert datasets.create("d", {"x": [1, 2]}).number == 1
    assert list(Checker(db, store, timedelta(0)).check(tenant_id)) == []
