"""Keeping a folder under a bound in bytes: the least recently used files go."""

from __future__ import annotations

import logging
import math
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from ml_core.models.store.base import TEMPORARY_PREFIX
from ml_core.models.store.files import ABANDONED_AFTER_S

logger = logging.getLogger(__name__)

_LOCK_NAME = ".lock"
# Each process looks at the folder again after it has added this part of the bound, and then frees as much as keeps
# ten processes that all add their part at once under the bound. With 20,000 files a look takes about 0.1 s.
_LOOK_AFTER = 0.01
_FREE_DOWN_TO = 0.9


class _File(NamedTuple):
    used_at: float
    size_bytes: int
    path: Path


class Eviction:
    """Frees room in a folder that several processes fill.

    The bound is kept by whoever writes, before it writes. It can be passed for a moment by many processes that write
    at once, and by one file that is larger than the bound, which goes when the next is written.

    Args:
        folder: The folder: files in subfolders; the time of a file's last use is its modification time.
        max_bytes: The bound.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._folder = folder
        self._added_bytes = math.inf  # since this process last looked; at first it has not

    def make_room(self, size_bytes: int) -> None:
        """Remove files until one of this size fits, if it is time to look. The folder must exist."""
        self._added_bytes += size_bytes
        if self._added_bytes <= self.max_bytes * _LOOK_AFTER:
            return
        try:
            with FileLock(self._folder / _LOCK_NAME, timeout=0):
                self._free(size_bytes)
        except Timeout:
            return  # another process is at it; this one looks the next time
        self._added_bytes = 0

    def _free(self, size_bytes: int) -> None:
        files = self._look()
        total = sum(file.size_bytes for file in files) + size_bytes
        if total <= self.max_bytes:
            return
        if size_bytes > self.max_bytes:
            logger.warning(
                "An artifact of %s bytes is larger than the cache's bound of %s. Raise MLCORE_ARTIFACT_CACHE_MB.",
                f"{size_bytes:,}",
                f"{self.max_bytes:,}",
            )
        for file in sorted(files):
            if total <= self.max_bytes * _FREE_DOWN_TO:
                return
            with suppress(FileNotFoundError):
                file.path.unlink()
            total -= file.size_bytes

    def _look(self) -> list[_File]:
        """The files that may go. One that is being written stays; one that a killed process left goes now."""
        found = []
        for folder in self._folder.iterdir():
            if not folder.is_dir():
                continue
            for entry in os.scandir(folder):
                with suppress(FileNotFoundError):
                    state = entry.stat()
                    if not entry.name.startswith(TEMPORARY_PREFIX):
                        found.append(_File(state.st_mtime, state.st_size, Path(entry.path)))
                    elif time.time() - state.st_mtime > ABANDONED_AFTER_S:
                        Path(entry.path).unlink()
        return found
