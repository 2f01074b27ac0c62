"""The supervisor's process, where it can't repair because a port is taken. Repairs are in ``tests/chaos``."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ml_core.platform.supervisor import Supervisor
from support.registry import temporary_home
from support.waiting import wait_until


@pytest.fixture
def home() -> Iterator[Path]:
    """A home without a platform."""
    with temporary_home() as home:
        yield home
        Supervisor(home).stop()


@pytest.fixture
def environment(home: Path) -> Iterator[dict[str, str]]:
    """The settings of a platform whose port somebody else has."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield {"MLCORE_HOME": str(home), "MLCORE_HTTP_PORT": str(server.getsockname()[1])}


def pid(home: Path) -> int:
    return int((home / "supervisor.pid").read_text())


def test_it_runs_once_until_it_is_stopped(home: Path, environment: dict[str, str]) -> None:
    """Started twice it is one process; stopped twice nothing happens."""
    supervisor = Supervisor(home)
    assert not supervisor.is_running()
    supervisor.start(environment)
    first = pid(home)
    supervisor.start(environment)
    assert (supervisor.is_running(), pid(home)) == (True, first)
    assert supervisor.stop()
    assert not supervisor.is_running()
    assert not supervisor.stop()


def test_it_says_why_a_repair_failed_and_tries_again(home: Path, environment: dict[str, str]) -> None:
    """With a longer pause each time."""
    Supervisor(home).start(environment)
    log = home / "logs" / "supervisor.log"
    wait_until(lambda: "in 4 s" in log.read_text(), 60)
    said = log.read_text()
    assert "can't be repaired; the next attempt is in 2 s" in said
    assert f"Port {environment['MLCORE_HTTP_PORT']}" in said


def test_a_killed_one_is_started_again(home: Path, environment: dict[str, str]) -> None:
    """Its lock goes with it, whatever its file says."""
    supervisor = Supervisor(home)
    supervisor.start(environment)
    first = pid(home)
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: not supervisor.is_running())
    supervisor.start(environment)
    assert pid(home) != first


def test_what_a_killed_one_has_left_names_no_other_process(home: Path, environment: dict[str, str]) -> None:
    """Its file may hold the id of a process that was started since."""
    supervisor = Supervisor(home)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        (home / "supervisor.pid").write_text(str(other.pid))
        supervisor.start(environment)
        assert pid(home) != other.pid
        assert supervisor.stop()
        assert other.poll() is None
        other.communicate()
