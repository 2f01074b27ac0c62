"""The local cache of an object store: one folder for all processes of a machine, bounded in bytes."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ml_core.ids import Digest, TenantId
from ml_core.models.store.base import MISSING
from ml_core.models.store.eviction import Eviction
from ml_core.models.store.files import fault_in, make_folder, read_proved, write_whole

logger = logging.getLogger(__name__)


class ArtifactCache:
    """Copies of artifacts: ``<folder>/<first two digits>/<tenant>.<digest>``.

    A copy is proved each time that it is used (sha256 reads about 2 GB a second, far more than an object store gives)
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
        """The bytes of an artifact, proved; None: there is no sound copy."""
        path = self.path(tenant_id, digest)
        data, fault = read_proved(path, digest, size_bytes)
        return data if self._is_sound(path, fault) else None

    def find(self, tenant_id: TenantId, digest: Digest, size_bytes: int) -> Path | None:
        """The copy of an artifact, proved; None: there is no sound one."""
        path = self.path(tenant_id, digest)
        return path if self._is_sound(path, fault_in(path, digest, size_bytes)) else None

    def _is_sound(self, path: Path, fault: str | None) -> bool:
        with suppress(OSError):  # gone meanwhile, or the disk is read-only: what was read is proved all the same
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
        """As ``write``, for bytes that are proved already; a disk that refuses is logged, not raised."""
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
