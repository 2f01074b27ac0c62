"""Processes are found by mark and by session, and ended by id."""

import os
import subprocess
import sys

import psutil
import pytest

from ml_core.platform import processes
from ml_core.platform.processes import MARK, end, end_platform, find_marked

# A child that outlives its parent's environment mark, as Ray's agents do: same session, no mark.
_PARENT = """
import os, subprocess, sys, time
unmarked = {k: v for k, v in os.environ.items() if k != "MLCORE_PLATFORM_HOME"}
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], env=unmarked)
print(child.pid, flush=True)
time.sleep(60)
"""


_HYDRA = """
import signal, subprocess, sys, time
def multiply(*_):
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    sys.exit()
signal.signal(signal.SIGTERM, multiply)
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture
def family(tmp_path):
    """A marked process in a session of its own, with an unmarked child."""
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT],
        env={**os.environ, MARK: str(tmp_path)},
        stdout=subprocess.PIPE,
        start_new_session=True,
        text=True,
    ) as parent:
        child = int(parent.stdout.readline())
        yield tmp_path, parent, child
        end(find_marked(tmp_path, parent.pid), grace_s=2)


def test_the_whole_session_is_found(family):
    """The child has no mark; its session gives it away."""
    home, parent, child = family
    assert {process.pid for process in find_marked(home, None)} == {parent.pid, child}


def test_an_orphan_is_found_by_its_session(family):
    """After the marked parent was killed, the noted session still leads to the child."""
    home, parent, child = family
    parent.kill()
    parent.wait()
    assert [process.pid for process in find_marked(home, parent.pid)] == [child]


def test_what_is_started_meanwhile_is_ended_too(tmp_path):
    """A process that brings a successor when it is asked to end: the next round finds that one."""
    with subprocess.Popen(
        [sys.executable, "-c", _HYDRA],
        env={**os.environ, MARK: str(tmp_path)},
        stdout=subprocess.PIPE,
        start_new_session=True,
        text=True,
    ) as process:
        process.stdout.readline()
        assert end_platform(tmp_path, None) == 2
        assert find_marked(tmp_path, process.pid) == []


def test_another_home_is_left_alone(family, tmp_path):
    """Nobody else's processes are ever touched."""
    assert find_marked(tmp_path / "other", None) == []


def test_what_ignores_a_polite_signal_is_killed(tmp_path):
    """SIGTERM first, SIGKILL after the grace."""
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, MARK: str(tmp_path)},
        stdout=subprocess.PIPE,
        start_new_session=True,
        text=True,
    ) as process:
        process.stdout.readline()
        assert end(find_marked(tmp_path, None), grace_s=0.2) == 1
        assert find_marked(tmp_path, None) == []
        assert not psutil.pid_exists(process.pid)


def test_a_process_that_ends_while_it_is_looked_for_is_left_out(family, monkeypatch):
    """Between being listed and being looked at, any process may go."""
    home, parent, child = family
    session_of = processes._session_of

    def look_and_kill(process):
        session = session_of(process)
        if process.pid == parent.pid:
            parent.kill()
            parent.wait()
        return session

    monkeypatch.setattr(processes, "_session_of", look_and_kill)
    assert [process.pid for process in find_marked(home, parent.pid)] == [child]
