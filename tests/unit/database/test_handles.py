"""The lock and the handles of the embedded server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from ml_core.database.handles import Handles, locked
from ml_core.exceptions import PlatformError


def test_a_process_is_noted_once_and_forgotten(tmp_path: Path) -> None:
    """Noting it twice leaves one handle."""
    handles = Handles(tmp_path / "handles.json")
    handles.add_own()
    handles.add_own()
    assert [pid for pid, _ in handles.living()] == [os.getpid()]
    handles.remove_own()
    assert handles.living() == set()


def test_the_dead_do_not_count(tmp_path: Path) -> None:
    """Neither a pid without a process nor a pid with a younger one."""
    path = tmp_path / "handles.json"
    process = subprocess.Popen([sys.executable, "-c", ""])
    created = psutil.Process(process.pid).create_time()
    process.wait()
    path.write_text(json.dumps([[process.pid, created], [os.getpid(), 1.0]]))
    assert Handles(path).living() == set()


@pytest.mark.parametrize("content", ["", "{", "[1]", "[[1]]", '["a"]', "null"])
def test_a_damaged_file_is_an_empty_one(tmp_path: Path, content: str) -> None:
    """It is written anew by the next process."""
    path = tmp_path / "handles.json"
    path.write_text(content)
    handles = Handles(path)
    assert handles.living() == set()
    handles.add_own()
    assert len(handles.living()) == 1


def test_the_lock_is_held_by_one(tmp_path: Path) -> None:
    """Another thread waits for it, up to its deadline, and gets it once it is free."""
    path = tmp_path / "lock"
    with locked(path, 1), pytest.raises(PlatformError, match="Wait for it"), locked(path, 0.1):
        pass
    entered = threading.Event()

    def enter() -> None:
        with locked(path, 10):
            entered.set()

    with locked(path, 1):
        thread = threading.Thread(target=enter)
        thread.start()
        assert not entered.wait(0.1)
    assert entered.wait(5)
    thread.join()


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    """The kernel drops it."""
    path = tmp_path / "lock"
    code = (
        "import sys\nfrom pathlib import Path\nfrom ml_core.database.handles import locked\n"
        "with locked(Path(sys.argv[1]), 1):\n    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    with pytest.raises(PlatformError), locked(path, 0.1):
        pass
    process.kill()
    process.communicate()
    with locked(path, 1):
        pass
