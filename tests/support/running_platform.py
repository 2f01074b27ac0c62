"""A real platform for tests: Postgres, Ray and Ray Serve in a folder of its own, on free ports."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from ml_core.cli.demo.traffic import TrafficReport, traffic
from ml_core.client import MLClient
from ml_core.database.connection import DatabaseConnection
from ml_core.domain.api_key import Scope
from ml_core.ids import EnvironmentName, ModelId, TenantId, VersionId
from ml_core.platform.local import LocalPlatform
from ml_core.platform.ports import free_ports
from ml_core.platform.processes import find_marked
from ml_core.registry.keys import KeyRepository
from ml_core.registry.promotion.environments import EnvironmentRepository
from ml_core.registry.tenants import TenantRepository
from ml_core.settings import PlatformSettings, Settings
from ml_core.training.trainer import Trainer
from support import acme
from support.registry import temporary_home
from support.waiting import wait_until

PRODUCTION = EnvironmentName("production")
_PAUSE_S = 0.01


class _Program(MLClient):
    """A client that pauses before each prediction: clients that did not would leave no processor to what they watch."""

    def predict(self, *arguments: Any, **named: Any) -> Any:
        time.sleep(_PAUSE_S)
        return super().predict(*arguments, **named)


@dataclass
class RunningPlatform:
    """A platform that is up, and what tests do with it."""

    settings: Settings
    local: LocalPlatform
    db: DatabaseConnection
    url: str

    def up(self) -> None:
        """Start or repair it, or its supervisor."""
        with environment(self.settings.platform.home):
            self.local.up()

    def tenant(self, name: str) -> TestTenant:
        """A tenant, made if it does not exist, with a key of its own."""
        tenant_id = TenantId(name)
        TenantRepository(self.db).ensure(tenant_id)
        return TestTenant(self, tenant_id, self.key(tenant_id, Scope.PREDICT, Scope.READ, Scope.LABEL))

    def key(self, tenant_id: TenantId, *scopes: Scope) -> str:
        """A new key of a tenant."""
        return str(KeyRepository(self.db, tenant_id).create("test", frozenset(scopes)))

    def processes(self) -> list[tuple[psutil.Process, list[str]]]:
        """Its processes with their title and arguments, the oldest first; none that ended since it was listed."""
        state, found = self.local.state, []
        for process in find_marked(self.settings.platform.home, state and state.session_id):
            with suppress(psutil.NoSuchProcess):
                found.append((process, [process.name(), *process.cmdline()]))
        return sorted(found, key=lambda each: each[0].create_time())


@dataclass
class TestTenant:
    """A tenant of a running platform, seen by a program that holds its key."""

    __test__ = False

    platform: RunningPlatform
    tenant_id: TenantId
    key: str

    def train(self, model: str, data: tuple[Any, Any], **hyperparameters: Any) -> VersionId:
        """Train and register a version."""
        trainer = Trainer(self.platform.db, self.tenant_id)
        return VersionId(trainer.train(model, None, data, hyperparameters=hyperparameters)["version"])

    def promote(self, model: str, version: str, *, wait_for: Mapping[str, Any] | None = None) -> None:
        """Point production to a version; with a row, wait until that version answers it on each replica."""
        repository = EnvironmentRepository(self.platform.db, self.tenant_id)
        repository.promote(ModelId(model), VersionId(version), PRODUCTION, actor="test", reason="test")
        if wait_for is not None:
            answers = partial(self.predict, model, [wait_for])  # the ingress takes turns
            wait_until(lambda: all(answers().json().get("version") == version for _ in range(10)))

    def get(self, path: str, **options: Any) -> httpx.Response:
        """GET under the tenant's prefix, with its key."""
        return self._ask("GET", path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        """POST under the tenant's prefix, with its key."""
        return self._ask("POST", path, **options)

    def predict(self, model: str, rows: list[Mapping[str, Any]], **body: Any) -> httpx.Response:
        """Predict rows."""
        return self.post(f"/models/{model}/predict", json={"rows": rows, **body})

    def client(self) -> MLClient:
        """A client with its key."""
        return _Program(self.platform.url, api_key=self.key, tenant_id=self.tenant_id)

    def traffic(self, model: str, row: Mapping[str, Any]) -> AbstractContextManager[TrafficReport]:
        """Programs that ask a row again and again until left."""
        return traffic(self.client, model, row)

    def _ask(self, method: str, path: str, *, key: str | None = None, **options: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {key or self.key}", **options.pop("headers", {})}
        url = f"{self.platform.url}/t/{self.tenant_id}{path}"
        return httpx.request(method, url, headers=headers, timeout=30, trust_env=False, **options)


@contextmanager
def environment(home: Path) -> Iterator[None]:
    """That of a platform's processes."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MLCORE_JOB_CPUS", "2")  # so that a job can have tasks
        patched.setenv("PYTHONPATH", str(home / "site"), prepend=os.pathsep)
        patched.setenv("MLCORE_TRUSTED_MODULES", "acme_models")
        # So long a replica that is stopped answers those that still have its address; Ray's default is 30.
        patched.setenv("RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S", "10")
        yield


@contextmanager
def running_platform(replicas: int = 2) -> Iterator[RunningPlatform]:
    """Start a platform; stop it afterwards and make sure that nothing of it is left."""
    with temporary_home() as home:
        settings = Settings(platform=PlatformSettings(home=home, http_port=free_ports(1)[0], replicas=replicas))
        local = LocalPlatform(settings)
        acme.write(home / "site")
        with environment(home):
            url = local.up().url
        try:
            db = DatabaseConnection(settings=settings)
            try:
                yield RunningPlatform(settings, local, db, url)
            finally:
                db.close()
        finally:
            state = local.state
            local.down()
        left = [(process.pid, process.name()) for process in find_marked(home, state and state.session_id)]
        if left:
            raise AssertionError(f"processes were left behind: {left}")
