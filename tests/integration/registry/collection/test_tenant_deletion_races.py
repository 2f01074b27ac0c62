"""A tenant is deleted while others write: nobody sees a raw error, and nothing of it stays."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest

from ml_core.database.connection import DatabaseConnection
from ml_core.exceptions import RegistryUnavailableError, TenantNotFoundError
from ml_core.ids import TenantId
from ml_core.models.store import LocalStore
from ml_core.registry.collection import tenant_deletion
from ml_core.registry.collection.tenant_deletion import TenantDeletion
from ml_core.registry.datasets import DatasetRepository
from ml_core.registry.keys import KeyRepository
from ml_core.registry.runs import RunRepository, series
from support.registry import TICKETS, new_tenant, superuser, wait_briefly_for_locks
from support.stored import DEADLINE_S, publish, stored, wait_for_a_waiting_session
from support.waiting import wait_until


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "artifacts")


@pytest.fixture
def deletion(db: DatabaseConnection, store: LocalStore) -> TenantDeletion:
    return TenantDeletion(db, store)


def test_a_run_that_logs_is_waited_for(
    db: DatabaseConnection, tenant_id: TenantId, deletion: TenantDeletion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Points are not journaled, but whoever writes them holds the tenant too: no deadlock with the removal of rows."""
    runs = RunRepository(db, tenant_id)
    run_id = runs.start(TICKETS)
    runs.log_metrics(run_id, {"loss": 1.0})
    begun, write = threading.Event(), series.write

    def write_late(*arguments: object) -> None:
        begun.set()
        wait_for_a_waiting_session(db)
        write(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(series, "write", write_late)
    monkeypatch.setattr(tenant_deletion, "_TRIES", 1)
    with ThreadPoolExecutor(1) as pool:
        logging = pool.submit(runs.log_metrics, run_id, {"loss": 2.0})
        assert begun.wait(DEADLINE_S)
        report = deletion.delete(tenant_id)
        logging.result(DEADLINE_S)
    assert report.rows["run_metrics"] == 1
    assert not deletion.has_rows(tenant_id)


def test_a_lock_that_is_in_the_way_is_waited_for(
    db: DatabaseConnection, tenant_id: TenantId, deletion: TenantDeletion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session that never asked for the tenant holds a row that is to go: the batch is tried again once it is free."""
    run_id = RunRepository(db, tenant_id).start(TICKETS)
    wait_briefly_for_locks(monkeypatch)
    waited_for_lock = tenant_deletion.waited_for_lock
    with superuser(db) as session:
        session.autocommit = False
        session.execute("SELECT 1 FROM mlcore.runs WHERE run_id = %s FOR UPDATE", (run_id,))

        def release_then_ask(error: RegistryUnavailableError) -> bool:
            session.rollback()
            return waited_for_lock(error)

        monkeypatch.setattr(tenant_deletion, "waited_for_lock", release_then_ask)
        assert deletion.delete(tenant_id).rows["runs"] == 1
    assert not deletion.has_rows(tenant_id)


def test_writers_of_every_kind_at_once(db: DatabaseConnection, deletion: TenantDeletion, store: LocalStore) -> None:
    """A tenant is deleted while four threads write all that can be written: they are told in words, nothing stays."""
    tenant_id, stop, surprises = new_tenant(db), threading.Event(), []
    ended = threading.Barrier(5)

    def work(seed: int) -> None:
        pick, runs = random.Random(seed), RunRepository(db, tenant_id, store)
        run_id = runs.start(TICKETS)
        kinds: list[Callable[[], object]] = [
            lambda: publish(db, tenant_id, store),
            lambda: DatasetRepository(db, tenant_id, store).create("d", pd.DataFrame({"a": [pick.random()]})),
            lambda: runs.start(TICKETS, parent_run_id=run_id),
            lambda: runs.log_metrics(run_id, {"loss": 1.0}, pick.randrange(99)),
            lambda: runs.artifacts.log(run_id, "f", pick.randbytes(9)),
            lambda: KeyRepository(db, tenant_id).create("k", ["read"]),
        ]
        ended.wait(DEADLINE_S)
        while not stop.is_set():
            try:
                pick.choice(kinds)()
            except TenantNotFoundError:
                continue
            except Exception as error:  # noqa: BLE001 - looked at below
                surprises.append(error)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for worker in workers:
        worker.start()
    ended.wait(DEADLINE_S)
    try:
        wait_until(lambda: len(stored(store)) > 5, DEADLINE_S)
        deletion.delete(tenant_id)
    finally:
        stop.set()
        for worker in workers:
            worker.join(DEADLINE_S)
    assert surprises == []
    assert not deletion.has_rows(tenant_id)
    assert stored(store) == set()
