"""kill -9 of a replica under load: each answer that a client got is in the prediction log or in its counts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from typing import Any

import pytest

from ml_core.database.connection import DatabaseConnection
from ml_core.database.embedded import EmbeddedServer
from ml_core.domain.api_key import Scope
from ml_core.domain.tenant_policies import PredictionPolicy
from ml_core.ids import ModelId, TenantId, VersionId
from ml_core.registry.keys import KeyRepository
from ml_core.registry.predictions import PredictionRepository
from ml_core.registry.promotion.environments import PRODUCTION, EnvironmentRepository
from ml_core.registry.tenants import TenantRepository
from ml_core.training.trainer import Trainer
from support.registry import settings_for, superuser, temporary_home
from support.tables import measures, split_target
from support.waiting import wait_until

ACME, GLOBEX, MODEL = TenantId("acme"), TenantId("globex"), ModelId("m")
ROW = measures(1).drop(columns=["outcome"]).iloc[0].to_dict()
CONNECTIONS, MANY = 8, 60


# A whole replica, as behind the ingress, on a socket of its own.
REPLICA = """
import signal, socket, sys, uvicorn
from ml_core.inference.edge.app import build_app
from ml_core.inference.replica import Replica
from ml_core.settings import Settings

class Server(uvicorn.Server):
    async def startup(self, sockets):
        await super().startup(sockets)
        print(sockets[0].getsockname()[1], flush=True)  # from here on uvicorn ends by signals

signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # uvicorn raises it again when it has stopped
replica = Replica(Settings.from_environment(), sys.argv[1])
try:
    replica.start(30)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(build_app(replica.service), lifespan="off", log_config=None, ws="none")
        Server(config).run(sockets=[listener])
finally:
    replica.stop()
"""


@dataclass
class Registry:
    """A registry with two tenants that serve a model and keep different parts of what is answered."""

    db: DatabaseConnection
    keys: dict[TenantId, str]

    @contextmanager
    def replica(self, name: str, **settings: object) -> Iterator[tuple[subprocess.Popen[str], int]]:
        """The process of a replica, and its port."""
        home = self.db.settings.platform.home
        values = {f"MLCORE_PREDICTION_LOG_{key.upper()}": str(value) for key, value in settings.items()}
        environment = {**os.environ, **self.db.environment, **values, "MLCORE_HOME": str(home)}
        environment["PYTHONPATH"] = os.pathsep.join(sys.path)
        command = [sys.executable, "-c", REPLICA, name]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            yield process, int(process.stdout.readline())
            process.terminate()
            assert process.wait(60) in (0, -signal.SIGKILL)
        finally:
            process.kill()
            process.wait(10)
            process.stdout.close()

    def logged(self) -> list[tuple[str, str]]:
        """Tenant and request id of each row of the log."""
        with superuser(self.db) as session:
            return session.execute("SELECT tenant_id, request_id FROM mlcore.predictions").fetchall()

    def counted(self) -> int:
        """Rows that are counted as lost."""
        with superuser(self.db) as session:
            row = session.execute("SELECT COALESCE(sum(row_count), 0) FROM mlcore.prediction_losses").fetchone()
        return int(row[0]) if row else 0

    def spooled(self) -> list[str]:
        """The files in the spool."""
        return [path.name for path in self.db.settings.platform.prediction_spool.rglob("*.spool")]


@pytest.fixture(scope="module")
def whole() -> Iterator[Registry]:
    """The registry of these tests."""
    with temporary_home() as home, DatabaseConnection(settings=settings_for(home)) as db:
        keys = {}
        for tenant_id, policy in ((ACME, PredictionPolicy.DIGEST), (GLOBEX, PredictionPolicy.INPUTS)):
            TenantRepository(db).create(tenant_id)
            PredictionRepository(db, tenant_id).set_policy(policy)
            data = split_target(measures(), "outcome")
            trained = Trainer(db, tenant_id).train(
                MODEL, None, data, hyperparameters={"algorithm": "logistic_regression"}
            )
            environments = EnvironmentRepository(db, tenant_id)
            environments.promote(MODEL, VersionId(trained["version"]), PRODUCTION, actor="test", reason="test")
            keys[tenant_id] = str(KeyRepository(db, tenant_id).create("test", frozenset({Scope.PREDICT})))
        yield Registry(db, keys)


@pytest.fixture
def registry(whole: Registry) -> Registry:
    """With an empty log."""
    with superuser(whole.db) as session:
        session.execute("TRUNCATE mlcore.predictions, mlcore.prediction_losses")
    return whole


@dataclass
class Load:
    """Clients of both tenants, until their connection breaks. The requests of one of them are rendered on a thread."""

    registry: Registry
    port: int
    rows: int = 1
    answered: list[tuple[str, str]] = field(default_factory=list)
    threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Load:
        for number in range(CONNECTIONS):
            tenant_id = (ACME, GLOBEX)[number % 2]
            self.threads.append(threading.Thread(target=self._ask, args=(tenant_id, self.rows if number else MANY)))
            self.threads[-1].start()
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self.threads:
            thread.join(30)
            assert not thread.is_alive()

    def _ask(self, tenant_id: TenantId, rows: int) -> None:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=20)
        body = json.dumps({"rows": [ROW] * rows})
        headers = {"authorization": f"Bearer {self.registry.keys[tenant_id]}"}
        try:
            while True:
                connection.request("POST", f"/t/{tenant_id}/models/{MODEL}/predict", body, headers)
                response = connection.getresponse()
                answer: dict[str, Any] = json.loads(response.read())
                assert response.status == 200, answer
                self.answered += [(tenant_id, answer["request_id"])] * rows
        except (OSError, HTTPException):
            return  # it was killed
        finally:
            connection.close()

    def kill_after(self, rows: int, process: subprocess.Popen[str]) -> None:
        """kill -9 once so many rows were answered."""
        wait_until(lambda: len(self.answered) >= rows)
        process.kill()
        process.wait(10)


@pytest.mark.parametrize("flush_s", [1000, 0.02], ids=["before its first write", "among its writes"])
def test_what_a_killed_replica_answered_is_in_the_log_once(registry, flush_s):
    """Two successors start at once: one of them writes each file, and nothing is left behind."""
    with registry.replica("victim", flush_s=flush_s) as (process, port), Load(registry, port) as load:
        load.kill_after(3000, process)
    before = len(registry.logged())
    assert (before == 0) == (flush_s == 1000)
    assert registry.spooled()
    with ExitStack() as stack:
        for name in ("one", "two"):
            stack.enter_context(registry.replica(name))
        wait_until(lambda: not set(load.answered) - set(registry.logged()))
    logged = registry.logged()
    # An answer that was spooled and not sent is in the log too.
    assert len(load.answered) <= len(logged) <= len(load.answered) + CONNECTIONS - 1 + MANY
    assert registry.counted() == 0
    assert registry.spooled() == []


def test_what_is_answered_without_the_registry_survives_a_kill(registry):
    """Postgres is away, the spool overflows, the replica is killed, Postgres is back: rows and counts are there."""
    with registry.replica("victim", flush_s=0.05, queue_mb=4) as (process, port), Load(registry, port, MANY) as load:
        wait_until(lambda: len(load.answered) >= 200)
        EmbeddedServer(registry.db.settings.platform.home).stop()
        wait_until(lambda: health(port)["lost"], 60)
        load.kill_after(len(load.answered) + 500, process)
    EmbeddedServer(registry.db.settings.platform.home).start()
    with registry.replica("successor"):
        wait_until(lambda: len(registry.logged()) + registry.counted() >= len(load.answered))
    logged, counted = registry.logged(), registry.counted()
    assert counted > 0
    # Of each answer that is missing, the count admits it.
    known = set(logged)
    missing = sum(each not in known for each in load.answered)
    assert missing <= counted
    assert len(logged) + counted <= len(load.answered) + CONNECTIONS * MANY
    assert registry.spooled() == []


def health(port: int) -> dict[str, Any]:
    """The counts of a replica's prediction log."""
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", "/healthz")
    try:
        found: dict[str, Any] = json.loads(connection.getresponse().read())["prediction_log"]
        return found
    finally:
        connection.close()
