"""The local cache of an object store: one folder for all processes of a machine, bounded in bytes.

The least recently used files are evicted.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from ml_core.ids import Digest, TenantId
from ml_core.models.store.base import MISSING, TEMPORARY_PREFIX
from ml_core.models.store.files import ABANDONED_AFTER_S, fault_in, make_folder, read_verified, write_whole

logger = logging.getLogger(__name__)

_LOCK_NAME = ".lock"
# Each process looks at the folder again after it has added this part of the bound, and then frees as much as keeps
# ten processes that all add their part at once under the bound. With 20,000 files a look takes about 0.1 s.
_LOOK_AFTER = 0.01
_FREE_DOWN_TO = 0.9


class ArtifactCache:
    """Copies of artifacts: ``<folder>/<first two digits>/<tenant>.<digest>``.

    A copy is verified at each use (sha256 reads about 2 GB a second, far more than an object store gives)
    and removed if it is damaged. Whatever a process does here another may undo at any moment: files appear whole and
    a file that vanishes is a file that is not cached.

    Args:
        folder: The folder; made when it is first written, closed to other users.
        max_bytes: Bound on its files; the least recently used go. See ``Eviction`` for how strict it is.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder
        self._eviction = Eviction(folder, max_bytes)

    def path(self, tenant_id: TenantId, digest: Digest) -> Path:
        """Where the copy of an artifact is, or would be."""
        return self.folder / digest[:2] / f"{tenant_id}.{digest}"

    def read(self, tenant_id: TenantId, digest: Digest, size_bytes: int) -> bytes | None:
        """The verified bytes of an artifact; None: there is no sound copy."""
        path = self.path(tenant_id, digest)
        data, fault = read_verified(path, digest, size_bytes)
        return data if self._is_sound(path, fault) else None

    def find(self, tenant_id: TenantId, digest: Digest, size_bytes: int) -> Path | None:
        """The verified copy of an artifact; None: there is no sound one."""
        path = self.path(tenant_id, digest)
        return path if self._is_sound(path, fault_in(path, digest, size_bytes)) else None

    def _is_sound(self, path: Path, fault: str | None) -> bool:
        with suppress(OSError):  # removed meanwhile, or a read-only disk: what was read is verified nevertheless
            if fault is None:
                os.utime(path)  # the time of its last use
            elif fault != MISSING:
                logger.warning("The cached artifact %s %s; it is fetched again.", path, fault)
                path.unlink()
        return fault is None

    def write(self, tenant_id: TenantId, digest: Digest, size_bytes: int, chunks: Iterable[bytes]) -> Path:
        """Keep a copy of an artifact, making room for it first.

        Args:
            tenant_id: Whose it is.
            digest: Its digest.
            size_bytes: Its size.
            chunks: Its bytes; they raise before their end if they are not the artifact's. Nothing is kept then.

        Raises:
            OSError: The disk is full or refuses; nothing is kept.
        """
        path = self.path(tenant_id, digest)
        make_folder(path.parent, self.folder)
        self._eviction.make_room(size_bytes)
        write_whole(path, chunks, durable=False)  # a copy that a power cut damages is noticed and fetched again
        return path

    def keep(self, tenant_id: TenantId, digest: Digest, data: bytes) -> None:
        """As ``write``, for verified bytes; a disk that refuses is logged, not raised."""
        if len(data) > self._eviction.max_bytes:
            return
        try:
            self.write(tenant_id, digest, len(data), (data,))
        except OSError as error:
            logger.warning("No copy of an artifact can be kept in %s: %s.", self.folder, error.strerror or error)

    def forget(self, tenant_id: TenantId, digest: Digest) -> None:
        """Remove the copy of an artifact, if there is one."""
        with suppress(OSError):
            self.path(tenant_id, digest).unlink()

    def forget_tenant(self, tenant_id: TenantId) -> None:
        """Remove all copies of a tenant's artifacts on this machine."""
        for path in self.folder.glob(f"??/{tenant_id}.*"):
            with suppress(OSError):
                path.unlink()


class _File(NamedTuple):
    used_at: float
    size_bytes: int
    path: Path


class Eviction:
    """Frees room in a folder that several processes fill.

    A writer frees room before it writes. The bound can be exceeded for a moment by many processes that write at once,
    and by one file that is larger than the bound, which is evicted by the next write.

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
        """The files that may be evicted, but for those being written. What killed processes left is removed."""
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
