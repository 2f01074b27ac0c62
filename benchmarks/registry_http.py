"""The registry over HTTP: the control API and MLflow's server, each one process that ``registry.py`` starts and asks.

    python registry_http.py PORT    # serves the control API of the registry that the environment names

Both are uvicorn with one worker and no access log, on the loopback interface, asked over one connection that stays
open. The control API has everything on that the platform has: each request brings a key of its tenant, and a promotion
reads the gates and writes history, audit and feed. MLflow's server has what is on by default: no authentication.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlencode

import uvicorn
from populate import MODEL, tenant_name
from timing import Operation

from deployments.ingress import middlewares
from ml_core.api.access import Services
from ml_core.api.app import create_app
from ml_core.database.connection import DatabaseConnection
from ml_core.domain.api_key import ApiKey, Scope
from ml_core.platform.ports import free_ports
from ml_core.registry.keys import KeyRepository
from ml_core.registry.promotion.environments import PRODUCTION

PAGE = 50
_STARTS_WITHIN_S = 180.0
_STOPS_WITHIN_S = 60.0


@dataclass(frozen=True)
class Request:
    """What is sent."""

    method: str
    path: str
    body: Mapping[str, str] | None = None
    key: str | None = None


Requests = dict[str, Callable[[int, str], Request]]
"""Operation → the request of a tenant's number and a version."""


def of_control_api(keys: Sequence[ApiKey]) -> Requests:
    """The requests to the control API; each tenant's with its own key."""

    def asked(tenant: int, path: str, body: Mapping[str, str] | None = None) -> Request:
        path = f"/v1/tenants/{tenant_name(tenant)}/models/{MODEL}/{path}"
        return Request("GET" if body is None else "POST", path, body, str(keys[tenant]))

    pointer = f"environments/{PRODUCTION}"
    return {
        "get": lambda tenant, version: asked(tenant, f"versions/{version}"),
        "list page": lambda tenant, _: asked(tenant, f"versions?limit={PAGE}"),
        "get pointer": lambda tenant, _: asked(tenant, pointer),
        "promote": lambda tenant, version: asked(tenant, f"{pointer}/promote", {"version": version}),
    }


def of_mlflow() -> Requests:
    """The requests to MLflow's server, whose registered models have the names of our tenants."""

    def asked(path: str, **query: object) -> Request:
        return Request("GET", f"/api/2.0/mlflow/{path}?{urlencode(query)}")

    def aliased(tenant: int, version: str) -> Request:
        body = {"name": tenant_name(tenant), "alias": PRODUCTION, "version": version}
        return Request("POST", "/api/2.0/mlflow/registered-models/alias", body)

    order = "version_number DESC"
    return {
        "get": lambda tenant, version: asked("model-versions/get", name=tenant_name(tenant), version=version),
        "list page": lambda tenant, _: asked(
            "model-versions/search", filter=f"name = '{tenant_name(tenant)}'", max_results=PAGE, order_by=order
        ),
        "get pointer": lambda tenant, _: asked("registered-models/alias", name=tenant_name(tenant), alias=PRODUCTION),
        "promote": aliased,
    }


class HttpRegistry:
    """One server, asked about random tenants and versions.

    Args:
        port: Where it listens.
        requests: What it understands.
        tenants: How many there are.
        versions: How many each has.
    """

    def __init__(self, port: int, requests: Requests, tenants: int, versions: int) -> None:
        self._port, self._requests = port, requests
        self._tenants, self._versions, self._keys = tenants, versions, random.Random()

    def measure(self, operation: str, seed: str, calls: int) -> dict[str, float]:
        """As ``Operation.measure``: from the request to the last byte of the answer."""
        self._keys.seed(seed)
        # One connection for all of them: a server closes what is silent while the other one is measured.
        with closing(HTTPConnection("127.0.0.1", self._port, timeout=60)) as client:
            made = Operation(lambda: self._requests[operation](*self._key()), lambda request: _ask(client, request))
            return made.measure(calls)

    def _key(self) -> tuple[int, str]:
        return self._keys.randrange(self._tenants), str(self._keys.randint(1, self._versions))


def _ask(client: HTTPConnection, request: Request) -> bytes:
    headers = {"content-type": "application/json"}
    if request.key is not None:
        headers["authorization"] = f"Bearer {request.key}"
    body = None if request.body is None else json.dumps(request.body)
    client.request(request.method, request.path, body, headers)
    response = client.getresponse()
    answer = response.read()
    if response.status != 200:
        raise RuntimeError(f"{request.method} {request.path}: {response.status} {answer[:500]!r}")
    return answer


@contextmanager
def control_api(db: DatabaseConnection, tenants: int) -> Iterator[tuple[int, Requests]]:
    """The port of the control API of a registry, and its requests."""
    scopes = (Scope.READ, Scope.PROMOTE)
    keys = [KeyRepository(db, tenant_name(index)).create("benchmark", scopes) for index in range(tenants)]
    (port,) = free_ports(1)
    with _running([sys.executable, __file__, str(port)], port, "/healthz", db.environment):
        yield port, of_control_api(keys)


@contextmanager
def mlflow_server(python: Path, url: str) -> Iterator[tuple[int, Requests]]:
    """The port of MLflow's server over a populated database, and its requests.

    Args:
        python: An interpreter with MLflow.
        url: The database.
    """
    (port,) = free_ports(1)
    command = [str(python), "-m", "mlflow", "server", "--backend-store-uri", url, "--port", str(port)]
    options = ["--workers", "1", "--uvicorn-opts", "--no-access-log --log-level warning"]
    # Its processes for scheduled jobs would only take the processors from both.
    off = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with _running([*command, *options], port, "/health", off):
        yield port, of_mlflow()


@contextmanager
def _running(command: Sequence[str], port: int, path: str, environment: Mapping[str, str]) -> Iterator[None]:
    """A server in a folder of its own, from its first answer until the block ends."""
    with tempfile.TemporaryDirectory(prefix="mlcore-registry-http-") as folder:
        process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, start_new_session=True
        )
        try:
            until = time.monotonic() + _STARTS_WITHIN_S
            while not _answers(port, path):
                if process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"{' '.join(command[:4])} did not start; its error is above.")
                time.sleep(0.1)
            yield
        finally:
            os.killpg(process.pid, signal.SIGTERM)  # MLflow's server has a process of its own
            process.wait(_STOPS_WITHIN_S)


def _answers(port: int, path: str) -> bool:
    with closing(HTTPConnection("127.0.0.1", port, timeout=5)) as client:
        try:
            client.request("GET", path)
            return client.getresponse().status == 200
        except OSError:
            return False


def main() -> None:
    """Serve the control API as the platform does, but alone in its process."""
    middlewares()  # they say how uvicorn reads HTTP
    app = create_app(Services(DatabaseConnection()))
    uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
