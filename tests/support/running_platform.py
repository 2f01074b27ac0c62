"""A real platform for tests: Postgres, Ray and Ray Serve in a folder of its own, on free ports."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx
import psutil
import pytest

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


@dataclass
class RunningPlatform:
    """A platform that is up, and what tests do with it."""

    settings: Settings
    local: LocalPlatform
    db: DatabaseConnection
    url: str

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

    def _ask(self, method: str, path: str, *, key: str | None = None, **options: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {key or self.key}", **options.pop("headers", {})}
        url = f"{self.platform.url}/t/{self.tenant_id}{path}"
        return httpx.request(method, url, headers=headers, timeout=30, trust_env=False, **options)


@contextmanager
def running_platform(replicas: int = 2) -> Iterator[RunningPlatform]:
    """Start a platform; stop it afterwards and make sure that nothing of it is left."""
    with temporary_home() as home:
        settings = Settings(platform=PlatformSettings(home=home, http_port=free_ports(1)[0], replicas=replicas))
        local = LocalPlatform(settings)
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("MLCORE_JOB_CPUS", "2")  # so that a job can have tasks
            environment.setenv("PYTHONPATH", str(acme.write(home / "site")), prepend=os.pathsep)
            environment.setenv("MLCORE_TRUSTED_MODULES", "acme_models")
            state = local.up()
        try:
            db = DatabaseConnection(settings=settings)
            try:
                yield RunningPlatform(settings, local, db, state.url)
            finally:
                db.close()
        finally:
            local.down()
        left = [(process.pid, process.name()) for process in find_marked(home, state.session_id)]
        if left:
            raise AssertionError(f"processes were left behind: {left}")
