"""Postgres goes away while programs write: clear errors, nothing lost or doubled, no restart needed."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import pytest
import sqlalchemy as sa

from ml_core.database.connection import DatabaseConnection
from ml_core.database.embedded import EmbeddedServer
from ml_core.exceptions import MLFrameworkError, RegistryUnavailableError
from ml_core.ids import ModelId, TenantId, VersionId
from ml_core.registry.model_registry import ModelRegistry
from ml_core.registry.promotion.environments import PRODUCTION, EnvironmentRepository
from ml_core.registry.tenants import TenantRepository
from ml_core.registry.versions.repository import VersionRepository
from support.registry import artifact_of, draft, settings_for, temporary_home
from support.waiting import wait_until

WRITERS = 4
ACME = TenantId("acme")
LONGEST_ANSWER_S = 15.0  # connect timeout 5 s, and a pause for a busy machine


@dataclass
class Writer:
    """Promotes two versions of its own model in turn, for as long as it is let, and notes what came of it."""

    db: DatabaseConnection
    model_id: ModelId
    stop: threading.Event
    succeeded: int = 0
    errors: list[BaseException] = field(default_factory=list)
    slowest_s: float = 0.0

    def run(self) -> None:
        environments = EnvironmentRepository(self.db, ACME)
        turn = 0
        while not self.stop.is_set():
            started = time.monotonic()
            try:
                environments.promote(self.model_id, VersionId(str(turn % 2 + 1)), PRODUCTION, actor="writer")
                self.succeeded += 1
            except BaseException as error:  # noqa: BLE001 - whatever it is, it is looked at below
                self.errors.append(error)
                self.stop.wait(0.05)
            self.slowest_s = max(self.slowest_s, time.monotonic() - started)
            turn += 1


@pytest.mark.timeout(180)
def test_writers_survive_an_outage() -> None:
    """Each writer fails with the platform's own error while Postgres is away, and goes on by itself once it is back."""
    with temporary_home() as home, DatabaseConnection(settings=settings_for(home)) as db:
        TenantRepository(db).create(ACME)
        stop = threading.Event()
        writers = [Writer(db, ModelId(f"m{n}"), stop) for n in range(WRITERS)]
        for writer in writers:
            for name in ("1", "2"):
                VersionRepository(db, ACME).register(draft(writer.model_id, name), artifact_of(name), "tester")
        threads = [threading.Thread(target=writer.run) for writer in writers]
        for thread in threads:
            thread.start()
        try:
            wait_until(lambda: all(writer.succeeded >= 10 for writer in writers), 30)
            EmbeddedServer(home).stop()
            # The first error may be of a connection that was open; the next is of one that can not be made.
            wait_until(lambda: all(len(writer.errors) >= 2 for writer in writers), 30)
            before = [writer.succeeded for writer in writers]
            EmbeddedServer(home).start()
            wait_until(
                lambda: all(w.succeeded >= b + 10 for w, b in zip(writers, before, strict=True)),
                30,
            )
        finally:
            stop.set()
            for thread in threads:
                thread.join(30)

        for writer in writers:
            assert writer.errors
            assert all(isinstance(error, RegistryUnavailableError) for error in writer.errors), writer.errors
            assert all("Check that Postgres runs" in str(error) for error in writer.errors)
            assert writer.slowest_s < LONGEST_ANSWER_S
            history = ModelRegistry(db, ACME).history(writer.model_id, PRODUCTION, limit=100_000)
            generations = [entry.generation for entry in history]
            assert generations == list(range(len(generations), 0, -1))
            # Only of the one promotion that was under way can nobody say whether it was committed.
            assert writer.succeeded <= len(generations) <= writer.succeeded + 1
        _every_session_works(db)


def _every_session_works(db: DatabaseConnection) -> None:
    """As many transactions at once as the pool allows, each on a session of its own."""
    count = db.settings.database.pool_size * 2
    together = threading.Barrier(count)
    pids: list[int] = []
    errors: list[MLFrameworkError] = []

    def use() -> None:
        try:
            with db.tenant(ACME) as connection:
                pids.append(connection.scalar(sa.text("SELECT pg_backend_pid()")))
                together.wait(20)
        except MLFrameworkError as error:
            errors.append(error)

    threads = [threading.Thread(target=use) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert errors == []
    assert len(set(pids)) == count
