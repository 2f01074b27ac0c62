"""The command, run in this process against an embedded Postgres of its own."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ml_core.api.access import Services
from ml_core.api.app import create_app
from ml_core.cli.main import run
from ml_core.database.connection import DatabaseConnection
from ml_core.database.embedded import EmbeddedServer
from ml_core.settings import PlatformSettings, Settings
from support.http_server import mounted, served
from support.registry import temporary_home


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


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests of a module with ``BOTH_DOORS`` run in process and over HTTP."""
    if "mlcore" in metafunc.fixturenames and getattr(metafunc.module, "BOTH_DOORS", False):
        metafunc.parametrize("door", ["in_process", "over_http"], indirect=True)


@pytest.fixture
def door(request: pytest.FixtureRequest) -> str:
    """How the command reaches the platform: ``in_process``, or ``over_http`` with nothing but an address and a key."""
    return getattr(request, "param", "in_process")


@pytest.fixture(scope="session")
def control_api(cli_home: Path) -> Iterator[str]:
    """The address of a control API over the registry of the session."""
    settings = dataclasses.replace(Settings(), platform=PlatformSettings(home=cli_home))
    with closing(DatabaseConnection(settings=settings)) as db, served(mounted(create_app(Services(db)))) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def mlcore(cli_home, monkeypatch, capsys):
    """Runs ``mlcore`` with arguments."""
    monkeypatch.setenv("MLCORE_HOME", str(cli_home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(cli_home / "config"))
    monkeypatch.delenv("MLCORE_API_KEY", raising=False)
    monkeypatch.delenv("MLCORE_AS_KEY", raising=False)
    monkeypatch.delenv("MLCORE_URL", raising=False)
    # Wide enough that no message is wrapped.
    monkeypatch.setattr("ml_core.cli.console.out._width", 400)
    monkeypatch.setattr("ml_core.cli.console.err._width", 400)

    def call(*arguments: Any) -> Result:
        monkeypatch.setattr(sys, "argv", ["mlcore", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            run()
        except SystemExit as request:
            code = request.code or 0
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return call


@pytest.fixture
def tenant(mlcore, request, door, monkeypatch) -> str:
    """A tenant of the test's own; over HTTP the command then has an empty home and a key of the tenant."""
    name = f"t{abs(hash(request.node.nodeid)) % 10**12}"
    assert mlcore("tenants", "create", name).code == 0
    if door == "over_http":
        key = mlcore("keys", "create", "-t", name, "--scope", "admin", "--json").json["key"]
        monkeypatch.setenv("MLCORE_URL", request.getfixturevalue("control_api"))
        monkeypatch.setenv("MLCORE_API_KEY", key)
    return name
