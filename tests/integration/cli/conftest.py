"""The command, run in this process against an embedded Postgres of its own."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ml_core.api.access import Services
from ml_core.api.app import create_app
from ml_core.cli.main import run
from ml_core.database.connection import DatabaseConnection
from ml_core.database.embedded import EmbeddedServer
from ml_core.domain.api_key import Scope
from ml_core.ids import TenantId
from ml_core.registry.keys import KeyRepository
from support.http_server import mounted, served
from support.job_queue import ThreadRunner, dispatching
from support.registry import new_tenant, settings_for, temporary_home


@dataclass(frozen=True)
class Result:
    """What a run of the command left: exit code, standard output, standard error."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture(scope="session")
def cli_home() -> Iterator[Path]:
    """A home for the whole session; Postgres stays up between commands."""
    with temporary_home() as home:
        server = EmbeddedServer(home)
        server.start()
        server.pin()
        yield home


@pytest.fixture(scope="session")
def registry(cli_home: Path) -> Iterator[DatabaseConnection]:
    """The registry of the session, for what a test needs to find there."""
    with DatabaseConnection(settings=settings_for(cli_home)) as db:
        yield db


def pytest_configure(config: pytest.Config) -> None:
    """Name the markers of this folder."""
    config.addinivalue_line("markers", "both_doors: runs in process as well, where a module runs over HTTP")
    config.addinivalue_line("markers", "in_process: runs in process only, where a module runs over HTTP")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Choose the doors of a test; a module with ``OVER_HTTP`` takes the one with a key, which may do less.

    The other differs in the connection alone: ``both_doors`` marks a test of each kind of request and answer.
    """
    marks = metafunc.definition.keywords
    if "door" in metafunc.fixturenames and getattr(metafunc.module, "OVER_HTTP", False) and "in_process" not in marks:
        doors = ["in_process", "over_http"] if "both_doors" in marks else ["over_http"]
        metafunc.parametrize("door", doors, indirect=True)


@pytest.fixture
def door(request: pytest.FixtureRequest) -> str:
    """How the command reaches the platform: ``in_process``, or ``over_http`` with nothing but an address and a key."""
    return getattr(request, "param", "in_process")


@pytest.fixture(scope="session")
def control_api(cli_home: Path) -> Iterator[str]:
    """The address of a control API over the registry of the session."""
    with DatabaseConnection(settings=settings_for(cli_home)) as db, served(mounted(create_app(Services(db)))) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def mlcore(cli_home, registry, monkeypatch, capsys, door):
    """Runs ``mlcore`` with arguments. Predictions are made in process: the server is the control API alone.

    While it trains over HTTP, a dispatcher runs beside it.
    """
    monkeypatch.setenv("MLCORE_HOME", str(cli_home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(cli_home / "config"))
    monkeypatch.delenv("MLCORE_API_KEY", raising=False)
    monkeypatch.delenv("MLCORE_URL", raising=False)
    # Wide enough that no message is wrapped.
    monkeypatch.setattr("ml_core.cli.console.out._width", 400)
    monkeypatch.setattr("ml_core.cli.console.err._width", 400)
    monkeypatch.setattr("ml_core.jobs.dispatcher._TURN_S", 0.02)
    monkeypatch.setattr("ml_core.api.routes.jobs._LOOK_EVERY_S", 0.02)

    def call(*arguments: Any) -> Result:
        monkeypatch.setattr(sys, "argv", ["mlcore", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        trains_there = door == "over_http" and arguments[0] == "train"
        with (
            dispatching(registry, ThreadRunner(registry)) if trains_there else nullcontext(),
            monkeypatch.context() as patch,
        ):
            if door == "over_http" and arguments[0] in ("predict", "explain"):
                patch.delenv("MLCORE_URL", raising=False)
                patch.delenv("MLCORE_API_KEY", raising=False)
            try:
                run()
            except SystemExit as request:
                code = request.code or 0
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return call


@pytest.fixture
def enter(registry, request, door, monkeypatch) -> Callable[[str], str]:
    """Sends the commands that follow through the test's door: over HTTP with an address and a tenant's admin key."""

    def send_through_door(name: str) -> str:
        if door == "over_http":
            key = KeyRepository(registry, TenantId(name)).create("admin", [Scope.ADMIN])
            monkeypatch.setenv("MLCORE_URL", request.getfixturevalue("control_api"))
            monkeypatch.setenv("MLCORE_API_KEY", str(key))
        return name

    return send_through_door


@pytest.fixture
def tenant(mlcore, registry, enter) -> str:
    """A tenant of the test's own, which the commands reach through the test's door."""
    return enter(str(new_tenant(registry)))
