"""Ctrl-C while the platform starts: nothing stays behind, whenever it comes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ml_core.database.embedded import EmbeddedServer
from ml_core.platform.ports import free_ports
from ml_core.platform.processes import find_marked
from support.registry import temporary_home


@contextmanager
def starting(home: Path, moment: str) -> Iterator[subprocess.Popen[str]]:
    """A platform that starts, in the middle of a step."""
    environment = {**os.environ, "MLCORE_HOME": str(home), "MLCORE_HTTP_PORT": str(free_ports(1)[0])}
    command = [sys.executable, "-m", "ml_core.cli", "up"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        said = []
        for line in process.stderr:
            said.append(line)
            if moment in line and "…" in line:
                break
        else:
            raise AssertionError(f"it ended before {moment!r}: {''.join(said)}")
        yield process


def nothing_is_left(home: Path) -> bool:
    left = (find_marked(home, None), EmbeddedServer(home).is_running(), (home / "platform.json").exists())
    return left == ([], False, False)


@pytest.mark.parametrize("moment", ["Starting PostgreSQL", "Starting Ray"])
def test_nothing_is_left_behind(moment):
    """The signal arrives in the middle of a step, as from a terminal; the command ends by itself."""
    with temporary_home() as home:
        with starting(home, moment) as process:
            process.send_signal(signal.SIGINT)
            assert process.wait(45) == 130, process.stderr.read()
        assert nothing_is_left(home)


def test_a_second_signal_does_not_disturb_the_clean_up():
    """Who presses Ctrl-C again because the first takes a moment leaves nothing behind either."""
    with temporary_home() as home:
        with starting(home, "Waiting for") as process:
            process.send_signal(signal.SIGINT)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.5)  # the clean-up lasts longer: some of Ray's processes ignore a polite signal
            process.send_signal(signal.SIGINT)
            assert process.wait(45) == 130, process.stderr.read()
        assert nothing_is_left(home)
