"""The registry with 1,000 tenants of 100 versions each, compared with MLflow's on the same PostgreSQL server.

    .venv/bin/python benchmarks/registry.py [--no-mlflow] [--mlflow-python PYTHON] [--json FILE]

Starts an embedded PostgreSQL server, fills it (``populate.py``), and times single calls of the public repositories
under the runtime role. MLflow's ``SqlAlchemyStore`` gets a database on the same server with as many versions
(``registry_mlflow.py``), and a separate environment, which is created on first use. Both are called in process, one
call at a time, over the same socket, for the same random tenants. Operations alternate between the two, in three
repetitions; each figure is the median of the three. Neither is tuned. The second table is the same over HTTP: the
control API beside MLflow's own server on the same databases, one process each (``registry_http.py``).

The calls are not equivalent. The platform sets role, tenant and time limits for each transaction, under row-level
security; a version has its signature, self-test, metrics and hyperparameters, where MLflow's has five tags; a promotion
checks that the version can be served, and writes history, audit and feed with the pointer, where MLflow's sets an
alias. One read of the feed returns the changes since a generation; MLflow has no such call, so a replica must read all
models with their aliases.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Protocol

import fastapi
import psycopg
import sqlalchemy
import uvicorn
from peers import peer_python
from populate import MODEL, WIDE_MODELS, populate, superuser, temporary_registry, tenant_name, wide_tenant_name
from registry_http import PAGE, HttpRegistry, control_api, mlflow_server
from timing import Operation, median_of

from ml_core.database.connection import DatabaseConnection
from ml_core.ids import TenantId, VersionId
from ml_core.registry.feed import FeedReader
from ml_core.registry.pages import encode_cursor
from ml_core.registry.promotion.environments import PRODUCTION, EnvironmentRepository
from ml_core.registry.versions.models import ModelRepository
from ml_core.registry.versions.repository import VersionRepository

MLFLOW_REQUIREMENTS = ("mlflow==3.17.2", "SQLAlchemy==2.1.9", "alembic==1.20.1", "psycopg2-binary==2.9.13")
_WIDE_TENANTS = 4
_SLOW_CALLS = 20
NOTE = (
    "MLflow has no change feed: a replica there reads all models with their aliases again (assignment delta). "
    "Ours includes role, tenant, row-level security, history, audit and feed; over HTTP a tenant's key, too, where "
    "MLflow's server asks for none. Both servers are one process with one worker."
)


class Registry:
    """The operations, each on random tenants.

    Args:
        db: A populated registry.
        tenants: How many there are.
        versions: How many each has.
    """

    def __init__(self, db: DatabaseConnection, tenants: int, versions: int) -> None:
        self._db, self._tenants, self._versions, self._keys = db, tenants, versions, random.Random()
        self._reader, self._generation = FeedReader(db), 0

    def operations(self) -> dict[str, Operation]:
        """What is measured."""
        middle = encode_cursor([max(1, self._versions - PAGE + 1)])
        return {
            "get": Operation(self._key, lambda key: self._of(key).get(MODEL, key[1])),
            "list page": Operation(self._key, lambda key: self._of(key).list(MODEL, limit=PAGE)),
            "list next page": Operation(self._key, lambda key: self._of(key).list(MODEL, limit=PAGE, cursor=middle)),
            "list models page": Operation(self._wide, lambda wide: ModelRepository(self._db, wide).list(limit=PAGE)),
            "promote": Operation(self._key, self._promote),
            "assignment delta": Operation(self._move_one, lambda _: self._reader.read(self._generation)),
            "assignment snapshot": Operation(lambda: None, lambda _: self._reader.read(None), calls=_SLOW_CALLS),
        }

    def measure(self, operation: str, seed: str, calls: int) -> dict[str, float]:
        """As ``Operation.measure``."""
        self._keys.seed(seed)
        return self.operations()[operation].measure(calls)

    def _key(self) -> tuple[TenantId, VersionId]:
        tenant = tenant_name(self._keys.randrange(self._tenants))
        return tenant, VersionId(str(self._keys.randint(1, self._versions)))

    def _wide(self) -> TenantId:
        return wide_tenant_name(self._keys.randint(1, _WIDE_TENANTS))

    def _of(self, key: tuple[TenantId, VersionId]) -> VersionRepository:
        return VersionRepository(self._db, key[0])

    def _promote(self, key: tuple[TenantId, VersionId]) -> None:
        EnvironmentRepository(self._db, key[0]).promote(MODEL, key[1], PRODUCTION, actor="benchmark")

    def _move_one(self) -> None:
        """Read the feed, then promote once, so that the next delta has one change."""
        self._generation = self._reader.read(self._generation).generation
        self._promote(self._key())


class MlflowRegistry:
    """MLflow's registry in a separate database on the same server, driven in another process until closed.

    Args:
        db: The registry on whose server it is made.
        python: An interpreter with MLflow.
        tenants: How many registered models.
        versions: How many each has.
    """

    def __init__(self, db: DatabaseConnection, python: Path, tenants: int, versions: int) -> None:
        with superuser(db) as session:
            session.execute("CREATE ROLE mlflow LOGIN")
            session.execute("CREATE DATABASE mlflow OWNER mlflow")
        self.url = db.urls.owner.replace("postgresql://mlcore_owner@/mlcore?", "postgresql+psycopg2://mlflow@/mlflow?")
        script = Path(__file__).with_name("registry_mlflow.py")
        command = [str(python), str(script), self.url, str(tenants), str(versions)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.versions = self._read()

    def measure(self, operation: str, seed: str, calls: int) -> dict[str, float]:
        """As ``Operation.measure``."""
        assert self._process.stdin is not None
        print(json.dumps({"operation": operation, "seed": seed, "calls": calls}), file=self._process.stdin, flush=True)
        return self._read()

    def close(self) -> None:
        """End the process by closing its input."""
        self._process.communicate()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("MLflow's side ended; its error is above.")
        answer: dict[str, Any] = json.loads(line)
        return answer


Figures = dict[str, dict[str, float]]


class Measured(Protocol):
    """One side of a comparison."""

    def measure(self, operation: str, seed: str, calls: int) -> dict[str, float]:
        """As ``Operation.measure``, with keys that follow from the seed."""


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Populate both, and measure them in turn: first in process, then over HTTP."""
    sizes = {"tenants": options.tenants, "versions": options.versions}
    python = options.mlflow_python or peer_python("mlflow", MLFLOW_REQUIREMENTS) if options.mlflow else None
    with ExitStack() as stack:
        db = stack.enter_context(temporary_registry())
        populate(db, **sizes, wide_tenants=_WIDE_TENANTS)
        versions = {"postgres": _postgres_version(db), "python": platform.python_version()}
        peer = stack.enter_context(closing(MlflowRegistry(db, python, **sizes))) if python else None
        turns = (options.calls, options.repetitions)
        registry = Registry(db, **sizes)
        ours, theirs = take_turns(list(registry.operations()), registry, peer, *turns)
        port, requests = stack.enter_context(control_api(db, options.tenants))
        served = HttpRegistry(port, requests, **sizes)
        peer_served = None
        if python and peer:
            port, peer_requests = stack.enter_context(mlflow_server(python, peer.url))
            peer_served = HttpRegistry(port, peer_requests, **sizes)
        http, their_http = take_turns(list(requests), served, peer_served, *turns)
    versions |= {"sqlalchemy": sqlalchemy.__version__, "psycopg": psycopg.__version__}
    versions |= {"fastapi": fastapi.__version__, "uvicorn": uvicorn.__version__}
    return {
        "sizes": {**sizes, "wide_tenants": _WIDE_TENANTS, "models_of_a_wide_tenant": WIDE_MODELS, "page": PAGE},
        "repetitions": options.repetitions,
        "machine": {"cores": os.cpu_count(), "load_of_the_last_minutes": os.getloadavg()},
        "versions": {"ours": versions, "mlflow": None if peer is None else peer.versions},
        "ours": ours,
        "mlflow": theirs,
        "http": {"ours": http, "mlflow": their_http},
    }


def take_turns(
    operations: Sequence[str], registry: Measured, peer: Measured | None, calls: int, repetitions: int
) -> tuple[Figures, Figures]:
    """The medians over the repetitions, of the platform and of the peer, which alternate by operation."""
    ours: dict[str, list[dict[str, float]]] = {}
    theirs: dict[str, list[dict[str, float]]] = {}
    for repetition in range(repetitions):
        for name in operations:
            seed = f"{name} {repetition}"
            ours.setdefault(name, []).append(registry.measure(name, seed, calls))
            if peer is not None:
                theirs.setdefault(name, []).append(peer.measure(name, seed, calls))
    return _medians(ours), _medians(theirs)


def _medians(measured: dict[str, list[dict[str, float]]]) -> Figures:
    return {name: median_of(repetitions) for name, repetitions in measured.items()}


def _postgres_version(db: DatabaseConnection) -> str:
    with superuser(db) as session:
        return session.info.parameter_status("server_version") or ""


def show(result: dict[str, Any]) -> None:
    """Print the tables; times in ms, the ratio is of the medians."""
    for title, table in (("in process, ms", result), ("over HTTP, ms", result["http"])):
        print(f"{title:20} {'ours p50':>9} {'p95':>9} {'MLflow p50':>11} {'p95':>9} {'ratio':>7}")
        for name, ours in table["ours"].items():
            line = f"{name:20} {ours['p50_ms']:9.2f} {ours['p95_ms']:9.2f}"
            if theirs := table["mlflow"].get(name):
                line += f" {theirs['p50_ms']:11.2f} {theirs['p95_ms']:9.2f} {theirs['p50_ms'] / ours['p50_ms']:7.1f}"
            print(line)
    print(NOTE)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tenants", type=int, default=1000)
    parser.add_argument("--versions", type=int, default=100)
    parser.add_argument("--calls", type=int, default=400, help="measured calls of each operation and repetition")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--no-mlflow", dest="mlflow", action="store_false", help="measure ours only")
    parser.add_argument("--mlflow-python", type=Path, help="an interpreter that has MLflow and psycopg2")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/registry.json"))
    options = parser.parse_args()
    result = compare(options)
    show(result)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
