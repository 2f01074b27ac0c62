"""Ctrl-C while the platform starts: nothing stays behind, whenever it comes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from ml_core.database.embedded import EmbeddedServer
from ml_core.platform.ports import free_ports
from ml_core.platform.processes import find_marked
from support.registry import temporary_home


@pytest.mark.parametrize("moment", ["Starting PostgreSQL", "Starting Ray", "Waiting for"])
def test_nothing_is_left_behind(moment):
    """The signal arrives in the middle of a step, as from a terminal; the command ends by itself."""
    with temporary_home() as home:
        environment = {**os.environ, "MLCORE_HOME": str(home), "MLCORE_HTTP_PORT": str(free_ports(1)[0])}
        with subprocess.Popen(
            [sys.executable, "-m", "ml_core.cli", "up"], env=environment, stderr=subprocess.PIPE, text=True
        ) as process:
            for line in process.stderr:
                if moment in line and "…" in line:
                    break
            process.send_signal(signal.SIGINT)
            started = time.monotonic()
            assert process.wait(60) == 130
            assert time.monotonic() - started < 45
        assert find_marked(home, None) == []
        assert not EmbeddedServer(home).is_running()
        assert not (home / "platform.json").exists()
