"""Who uses the embedded server: a lock between processes, their handles, and the pin that outlives them all."""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from ml_core.exceptions import PlatformError

_RETRY_S = 0.05


@contextmanager
def locked(path: Path, timeout_s: float) -> Iterator[None]:
    """Hold a lock between processes and threads; the kernel drops it when its holder dies.

    Raises:
        PlatformError: Somebody else held it for the whole time.
    """
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise PlatformError(
                        f"Another process has been starting or stopping the embedded PostgreSQL for {timeout_s:.0f} s.",
                        remedy=f"Wait for it, or end the process that holds {path}.",
                        component="postgres",
                    ) from None
                pause.wait(_RETRY_S)
        yield
    finally:
        os.close(descriptor)


class Handles:
    """The processes that use a server. One that died without saying so does not count. Use under the lock.

    Args:
        path: The file that lists them: pid and start time, so that a pid's next owner is not taken for the old one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def add_own(self) -> None:
        """Note this process."""
        self._write({*self.living(), _own()})

    def remove_own(self) -> None:
        """Forget this process."""
        self._write(self.living() - {_own()})

    def living(self) -> set[tuple[int, float]]:
        """The noted processes that still run."""
        try:
            noted = {(int(pid), float(created)) for pid, created in json.loads(self._path.read_text())}
        except (OSError, ValueError, TypeError):
            return set()
        return {(pid, created) for pid, created in noted if _is_alive(pid, created)}

    def _write(self, handles: set[tuple[int, float]]) -> None:
        temporary = self._path.with_suffix(f".{os.getpid()}.tmp")
        try:
            temporary.write_text(json.dumps(sorted(handles)))
            temporary.replace(self._path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise


def _own() -> tuple[int, float]:
    return os.getpid(), psutil.Process().create_time()


def _is_alive(pid: int, created: float) -> bool:
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - created) < 1.0 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
