"""Who uses the embedded server: a lock between processes, and a mark that each user holds while it lives."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from ml_core.exceptions import PlatformError


@contextmanager
def locked(path: Path, timeout_s: float) -> Iterator[None]:
    """Hold a lock between processes and threads; the kernel releases it when its holder dies.

    Raises:
        PlatformError: Another process or thread held it for the whole time.
    """
    try:
        with FileLock(path, timeout=timeout_s, mode=0o600):
            yield
    except Timeout as error:
        raise PlatformError(
            f"Another process has been starting or stopping the embedded PostgreSQL for {timeout_s:.0f} s.",
            remedy=f"Wait for it, or end the process that holds {path}.",
            component="postgres",
        ) from error


class Usage:
    """Who uses a server: each user shares a lock on one file, which the kernel releases when the process ends.

    So a process that is killed does not count, and no process id can be mistaken for that of another.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def begin(self) -> None:
        """Use the server, until ``end`` or the end of the process."""
        if self._descriptor is None:
            self._descriptor = self._open()
            fcntl.flock(self._descriptor, fcntl.LOCK_SH)

    def end(self) -> None:
        """Use it no longer."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def is_any(self) -> bool:
        """Whether there is any user, this object included."""
        descriptor = self._open()
        try:
            with suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return False
            return True
        finally:
            os.close(descriptor)

    def _open(self) -> int:
        # Not inherited by programs that this process starts: they do not use the server.
        return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
