"""The local cache of an object store: a folder for all processes of a machine, bounded in bytes, with LRU eviction."""

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
# A process lists the folder after it has added this fraction of the bound, and then evicts down to _FREE_DOWN_TO, which
# leaves room for ten processes between two listings. Listing 20,000 files takes about 0.1 s.
_LOOK_AFTER = 0.01
_FREE_DOWN_TO = 0.9


class ArtifactCache:
    """Copies of artifacts: ``<folder>/<first two digits>/<tenant>.<digest>``.

    Each use verifies the copy and removes it if it is damaged. sha256 reads about 2 GB per second, more than an object
    store delivers. Other processes may write and evict files at any time; files appear atomically. The first write
    creates the folder, closed to other users; ``Eviction`` keeps the size of its files within ``max_bytes``.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder
        self._eviction = Eviction(folder, max_bytes)

    def path(self, tenant_id: TenantId, digest: Digest) -> Path:
        """The path of the copy of an artifact."""
        return self.folder / digest[:2] / f"{tenant_id}.{digest}"

    def read(self, tenant_id: TenantId, digest: Digest, size_bytes: int) -> bytes | None:
        """Read and verify a copy; None if there is no intact copy."""
        path = self.path(tenant_id, digest)
        data, fault = read_verified(path, digest, size_bytes)
        return data if self._is_sound(path, fault) else None

    def find(self, tenant_id: TenantId, digest: Digest, size_bytes: int) -> Path | None:
        """The path of a verified copy; None if there is no intact copy."""
        path = self.path(tenant_id, digest)
        return path if self._is_sound(path, fault_in(path, digest, size_bytes)) else None

    def _is_sound(self, path: Path, fault: str | None) -> bool:
        with suppress(OSError):  # evicted since, or a read-only disk: the bytes that were read are verified anyway
            if fault is None:
                os.utime(path)  # records the last use, for eviction
            elif fault != MISSING:
                logger.warning("The cached artifact %s %s; it is fetched again.", path, fault)
                path.unlink()
        return fault is None

    def write(self, tenant_id: TenantId, digest: Digest, size_bytes: int, chunks: Iterable[bytes]) -> Path:
        """Write a copy of an artifact, after evicting others for it.

        The chunks must raise before their end if they are not those of the artifact.

        Raises:
            OSError: The disk is full or refuses the write; nothing is written.
        """
        path = self.path(tenant_id, digest)
        make_folder(path.parent, self.folder)
        self._eviction.make_room(size_bytes)
        write_whole(path, chunks, durable=False)  # a copy that a power failure damages is detected and fetched again
        return path

    def keep(self, tenant_id: TenantId, digest: Digest, data: bytes) -> None:
        """``write`` for verified bytes; an error of the disk is logged and not raised."""
        if len(data) > self._eviction.max_bytes:
            return
        try:
            self.write(tenant_id, digest, len(data), (data,))
        except OSError as error:
            logger.warning("No copy of an artifact can be kept in %s: %s.", self.folder, error.strerror or error)

    def forget(self, tenant_id: TenantId, digest: Digest) -> None:
        """Remove the copy of an artifact, if it exists."""
        with suppress(OSError):
            self.path(tenant_id, digest).unlink()

    def forget_tenant(self, tenant_id: TenantId) -> None:
        """Remove the copies of all artifacts of a tenant."""
        for path in self.folder.glob(f"??/{tenant_id}.*"):
            with suppress(OSError):
                path.unlink()


class _File(NamedTuple):
    used_at: float
    size_bytes: int
    path: Path


class Eviction:
    """Bounds the size of a folder with files in subfolders that several processes fill.

    The modification time of a file is the time of its last use. A process evicts before it writes. Concurrent writers
    may exceed the bound briefly. A file that is larger than the bound is kept until the next write.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._folder = folder
        self._added_bytes = math.inf  # since the last listing; infinite, so that the first write lists the folder

    def make_room(self, size_bytes: int) -> None:
        """Evict files for one of this size, if enough was added since the last listing. The folder must exist."""
        self._added_bytes += size_bytes
        if self._added_bytes <= self.max_bytes * _LOOK_AFTER:
            return
        try:
            with FileLock(self._folder / _LOCK_NAME, timeout=0):
                self._free(size_bytes)
        except Timeout:
            return  # another process is evicting
        self._added_bytes = 0

    def _free(self, size_bytes: int) -> None:
        files = self._look()
        total = sum(file.size_bytes for file in files) + size_bytes
        if total <= self.max_bytes:
            return
        if size_bytes > self.max_bytes:
            logger.warning(
                "An artifact of %s bytes exceeds the bound of the cache, %s bytes. Raise MLCORE_ARTIFACT_CACHE_MB.",
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
        """List the files that may be evicted, and remove partial writes of killed processes."""
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
