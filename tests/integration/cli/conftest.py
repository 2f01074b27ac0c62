"""The command, run in this process against an embedded Postgres of its own."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ml_core.cli.main import run
from ml_core.database.embedded import EmbeddedServer
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


@pytest.fixture
def mlcore(cli_home, monkeypatch, capsys):
    """Runs ``mlcore`` with arguments."""
    monkeypatch.setenv("MLCORE_HOME", str(cli_home))
    monkeypatch.delenv("MLCORE_API_KEY", raising=False)
    monkeypatch.delenv("MLCORE_AS_KEY", raising=False)
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
def tenant(mlcore, request) -> str:
    """A tenant of the test's own."""
    name = f"t{abs(hash(request.node.nodeid)) % 10**12}"
    assert mlcore("tenants", "create", name).code == 0
    return name
