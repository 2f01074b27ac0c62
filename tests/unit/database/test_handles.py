"""The lock of the embedded server, and who uses it."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ml_core.database.handles import Usage, locked
from ml_core.exceptions import PlatformError

USER = """
import sys
from pathlib import Path
from ml_core.database.handles import Usage
Usage(Path(sys.argv[1])).begin()
print("begun", flush=True)
sys.stdin.read()
"""


def start(code: str, path: Path) -> subprocess.Popen[bytes]:
    """Another process, which has said its first word."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    command = [sys.executable, "-c", code, str(path)]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[3], **pipes)  # type: ignore[call-overload]
    assert process.stdout.readline() in {b"begun\n", b"held\n"}
    return process  # type: ignore[no-any-return]


def test_who_uses_it_counts_until_it_ends(tmp_path: Path) -> None:
    """Two objects of one process are two users; each may begin twice and end twice."""
    first, second = Usage(tmp_path / "users"), Usage(tmp_path / "users")
    assert not first.is_any()
    for usage in (first, first, second):
        usage.begin()
    assert first.is_any()
    first.end()
    first.end()
    assert first.is_any()
    second.end()
    assert not first.is_any()


def test_the_dead_do_not_count(tmp_path: Path) -> None:
    """A killed process can't say that it ends; the kernel does."""
    usage, process = Usage(tmp_path / "users"), start(USER, tmp_path / "users")
    assert usage.is_any()
    process.kill()
    process.communicate()
    assert not usage.is_any()


def test_a_program_that_was_started_does_not_count(tmp_path: Path) -> None:
    """It outlives the process that used the server, and has nothing of its mark."""
    usage = Usage(tmp_path / "users")
    usage.begin()
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as program:
        usage.end()
        assert not usage.is_any()
        program.communicate(b"")


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
    process = start(code, path)
    with pytest.raises(PlatformError), locked(path, 0.1):
        pass
    process.kill()
    process.communicate()
    with locked(path, 1):
        pass
