"""A dead run is seen as dead, by the database's clock, and a slow one comes back."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from ml_core.database.connection import DatabaseConnection
from ml_core.ids import TenantId
from ml_core.registry.runs import RunRepository, RunStatus
from ml_core.settings import RegistrySettings, Settings
from support.registry import TICKETS
from support.waiting import wait_until

# Trains for ever: its main thread is busy, as a fit is.
TRAINER = """
import dataclasses
import sys
from ml_core.database.connection import DatabaseConnection
from ml_core.ids import TenantId
from ml_core.registry.runs import RunRepository
from ml_core.settings import RegistrySettings, Settings

tenant, bound = sys.argv[1:]
settings = dataclasses.replace(
    Settings.from_environment(), registry=RegistrySettings(run_dead_after_s=float(bound))
)
runs = RunRepository(DatabaseConnection(settings=settings), TenantId(tenant))
with runs.record("tickets") as run_id:
    print(run_id, flush=True)
    while True:
        sum(range(1000))
"""
BOUND_S = 1.0


@pytest.fixture
def runs(db: DatabaseConnection, tenant_id: TenantId) -> RunRepository:
    """The tenant's runs, with the default bound."""
    return RunRepository(db, tenant_id)


@pytest.fixture
def silence(db: DatabaseConnection, tenant_id: TenantId) -> Callable[[str], None]:
    """Moves a run's last sign of life an hour back."""

    def set_back(run_id: str) -> None:
        statement = "UPDATE mlcore.runs SET heartbeat_at = now() - interval '1 hour' WHERE run_id = :run"
        with db.tenant(tenant_id) as connection:
            connection.execute(sa.text(statement), {"run": run_id})

    return set_back


def test_a_silent_run_is_shown_as_dead(runs: RunRepository, silence: Callable[[str], None]) -> None:
    """By every read, and found as dead and not as running; one that lives is not."""
    dead, alive = runs.start(TICKETS), runs.start(TICKETS)
    silence(dead)
    assert runs.get(dead).status is RunStatus.DEAD
    assert {run.run_id: run.status for run in runs.search(TICKETS).items} == {
        dead: RunStatus.DEAD,
        alive: RunStatus.RUNNING,
    }
    assert runs.compare([dead, alive])["runs"][0]["status"] == "dead"
    for status, run_id in ((RunStatus.DEAD, dead), (RunStatus.RUNNING, alive)):
        assert [run.run_id for run in runs.search(status=status).items] == [run_id]


@pytest.mark.parametrize("sign", ["beat", "log", "finish"])
def test_a_run_that_was_only_slow_comes_back(runs: RunRepository, silence: Callable[[str], None], sign: str) -> None:
    """Any sign of life will do, its end as well."""
    run_id = runs.start(TICKETS)
    silence(run_id)
    {"beat": runs.beat, "log": lambda run: runs.log_metrics(run, {"loss": 1.0}), "finish": runs.finish}[sign](run_id)
    assert runs.get(run_id).status is (RunStatus.FINISHED if sign == "finish" else RunStatus.RUNNING)


def test_a_silent_run_may_be_deleted(runs: RunRepository, silence: Callable[[str], None]) -> None:
    """Nobody has to mark it first."""
    run_id = runs.start(TICKETS)
    silence(run_id)
    runs.delete(run_id)
    assert runs.search().items == []


@pytest.fixture
def short(db: DatabaseConnection) -> Iterator[DatabaseConnection]:
    """The registry with a short bound."""
    settings = Settings(registry=RegistrySettings(run_dead_after_s=BOUND_S), platform=db.settings.platform)
    with DatabaseConnection(settings=settings) as connection:
        yield connection


@contextmanager
def trainer(db: DatabaseConnection, tenant_id: TenantId) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A real process with a run of its own, and the run's id."""
    command = [sys.executable, "-c", TRAINER, tenant_id, str(BOUND_S)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[4], env={**os.environ, **db.environment}
    )
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


def test_a_killed_process_leaves_a_dead_run(short: DatabaseConnection, tenant_id: TenantId) -> None:
    """It lives far beyond the bound while its process works, and is dead within moments of ``kill -9``."""
    runs = RunRepository(short, tenant_id)
    with trainer(short, tenant_id) as (process, run_id):

        def age_s() -> float:
            run = runs.get(run_id)
            assert run.status is RunStatus.RUNNING
            return (run.heartbeat_at - run.started_at).total_seconds()

        wait_until(lambda: age_s() > 2 * BOUND_S)
        process.kill()
    wait_until(lambda: runs.get(run_id).status is RunStatus.DEAD, 10 * BOUND_S)
    assert runs.get(run_id).finished_at is None


def test_a_heartbeat_survives_an_absent_registry(
    short: DatabaseConnection, tenant_id: TenantId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sign of life that can't be given is tried again at the next turn."""
    runs = RunRepository(short, tenant_id)
    run_id = runs.start(TICKETS)
    url = short.urls
    with runs.heartbeat(run_id):
        monkeypatch.setattr(short, "urls", type(url)(**{**vars_of(url), "app": "postgresql://127.0.0.1:1/none"}))
        wait_until(lambda: "postgresql://127.0.0.1:1/none" in short._engines)
        monkeypatch.undo()
        before = runs.get(run_id).heartbeat_at
        wait_until(lambda: runs.get(run_id).heartbeat_at > before)


def vars_of(urls: object) -> dict[str, str]:
    """The fields of the three URLs."""
    return {name: getattr(urls, name) for name in ("app", "ingest", "owner")}


def test_a_heartbeat_ends_with_its_run(short: DatabaseConnection, tenant_id: TenantId) -> None:
    """Somebody else cancels the run: the thread stops by itself and the block is not disturbed."""
    import threading

    runs = RunRepository(short, tenant_id)
    run_id = runs.start(TICKETS)
    with runs.heartbeat(run_id):
        runs.cancel(run_id)
        wait_until(lambda: not any(thread.name == "heartbeat" for thread in threading.enumerate()))
    assert runs.get(run_id).status is RunStatus.CANCELLED
