"""A cell in this process: real models, a real table and the real application, with no database and no server."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import uvicorn

from ml_core.domain.api_key import ApiKey, Scope
from ml_core.domain.assignment import AssignmentDelta, PointerRef, Rollout
from ml_core.domain.version import ServableVersion
from ml_core.exceptions import ModelNotFoundError
from ml_core.ids import EnvironmentName, ModelId, TenantId, VersionId, VersionRef
from ml_core.inference.assignment import Assignment
from ml_core.inference.edge.app import EdgeApp, build_app
from ml_core.inference.model_table import ModelTable
from ml_core.inference.service import PredictionService
from ml_core.models.formats import skops_format
from ml_core.models.loading import LoadedModel, load_version
from ml_core.models.store import ArtifactStore
from ml_core.observability import NO_HOOKS, Hooks
from ml_core.registry.oidc import TokenVerifier
from ml_core.settings import ServingSettings
from ml_core.training.fit import FittedModel, fit_model
from ml_core.training.request import TrainingRequest
from support.tables import measures

ACME, GLOBEX = TenantId("acme"), TenantId("globex")
TICKET = {"subject": "I was charged twice since noon", "is_paying": True, "opened": "2026-02-01"}
SETTLED_WITHIN_S = 5.0
MEASURE = measures(1).drop(columns=["outcome"]).iloc[0].to_dict()


def fitted(model_id: str, data: Any, **hyperparameters: Any) -> FittedModel:
    """A classifier of a table."""
    return fit_model(TrainingRequest(ModelId(model_id), None, data, hyperparameters=hyperparameters))


def servable(store: ArtifactStore, model: FittedModel, version: str = "1", tenant: TenantId = ACME) -> ServableVersion:
    """A version of a fitted model, its bytes in the store."""
    artifact = store.put(tenant, skops_format.dump(model.pipeline), skops_format.FORMAT)
    ref = VersionRef(tenant, model.model_id, VersionId(version))
    return ServableVersion(
        ref, model.model_type, artifact.digest, artifact.size_bytes, artifact.format, model.signature, model.self_test
    )


def renamed(version: ServableVersion, name: str) -> ServableVersion:
    """The same artifact under another version's name."""
    ref = VersionRef(version.ref.tenant_id, version.ref.model_id, VersionId(name))
    return dataclasses.replace(version, ref=ref)


def pointer(version: ServableVersion, environment: str = "production") -> PointerRef:
    """The pointer of a version's model."""
    return PointerRef(version.ref.tenant_id, version.ref.model_id, EnvironmentName(environment))


def key_of(version: ServableVersion) -> tuple[str, str, str]:
    """The table's key of the production pointer of a version's model."""
    return (version.ref.tenant_id, version.ref.model_id, "production")


def promote(table: ModelTable, version: ServableVersion, generation: int = 1) -> None:
    """Point production to a version and let the table settle."""
    table.apply({pointer(version): Rollout(version, generation)})
    assert table.wait_idle(10)


@dataclass
class Cell:
    """The parts of a replica, and the application over them."""

    store: ArtifactStore
    assignment: Assignment
    table: ModelTable
    service: PredictionService
    app: EdgeApp
    registered: dict[VersionRef, ServableVersion]
    keys: dict[str, ApiKey] = field(default_factory=dict)

    def key(self, tenant: TenantId, *scopes: Scope) -> str:
        """A new key of a tenant, known to the cell."""
        key = ApiKey.generate()
        generation = (self.assignment.generation or 0) + 1
        record = key.record(tenant, frozenset(scopes))
        self.assignment.apply(AssignmentDelta(generation, False, {tenant: True}, {}, {record.ref: record}))
        return str(key)

    def ask(self, method: str, path: str, *, key: str | None = None, **options: Any) -> httpx.Response:
        """One request to the application."""
        headers = {**({"authorization": f"Bearer {key}"} if key else {}), **options.pop("headers", {})}

        async def send() -> httpx.Response:
            async with self.client() as client:
                answer = await client.request(method, f"http://cell{path}", headers=headers, **options)
            await self._settle()
            return answer

        return asyncio.run(send())

    async def _settle(self) -> None:
        """Wait for the shadows of the answer, which would find this loop closed; not for one that does not return."""
        await asyncio.sleep(0)  # they are submitted after the answer
        deadline = time.monotonic() + SETTLED_WITHIN_S
        while not self.service._shadows.threads.is_alone("") and time.monotonic() < deadline:
            await asyncio.sleep(0.001)

    async def ask_async(self, path: str, key: str, body: Any) -> httpx.Response:
        """One POST, from a test that runs the event loop itself."""
        async with self.client() as client:
            return await client.post(path, headers={"authorization": f"Bearer {key}"}, json=body)

    def client(self) -> httpx.AsyncClient:
        """A client of the application."""
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://cell")

    def predict(self, model: str, rows: list[Any], *, key: str, **body: Any) -> httpx.Response:
        """``predict`` for acme."""
        return self.ask("POST", f"/t/acme/models/{model}/predict", key=key, json={"rows": rows, **body})


def make_cell(
    store: ArtifactStore,
    limits: ServingSettings,
    loader: Any = None,
    tokens: TokenVerifier | None = None,
    hooks: Hooks = NO_HOOKS,
) -> Cell:
    """A cell without tenants; ``registered`` is what its registry knows beside the pointers."""
    registered: dict[VersionRef, ServableVersion] = {}

    def find(ref: VersionRef) -> ServableVersion:
        if ref not in registered:
            raise ModelNotFoundError(f"There is no version {ref}.", remedy="List its versions.")
        return registered[ref]

    table = ModelTable(loader or functools.partial(load_version, store), max_memory_bytes=2**30, hooks=hooks)
    assignment = Assignment()
    service = PredictionService(assignment, table, find, limits=limits, tokens=tokens, hooks=hooks)
    return Cell(store, assignment, table, service, build_app(service), registered)


@contextmanager
def listening(cell: Cell) -> Iterator[str]:
    """The URL of a cell that answers on a socket, for clients that bring their own connections."""
    config = uvicorn.Config(cell.app, lifespan="off", log_config=None, ws="none")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)
    assert not thread.is_alive()


class CountingLoader:
    """Loads from a store, counts, and fails or waits on request."""

    def __init__(self, store: ArtifactStore) -> None:
        self.store = store
        self.loads: list[str] = []

    def __call__(self, version: ServableVersion) -> LoadedModel:
        self.loads.append(str(version.ref.version))
        return load_version(self.store, version)
