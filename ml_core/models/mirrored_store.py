"""A caller's own artifact folder beside the platform's store, so that both see every version.

One registry knows the versions of a tenant, whichever class registered them. Replicas read from the platform's store
alone; a caller who names a folder gets a copy there, and what others registered is read from the platform's.
"""

from __future__ import annotations

from pathlib import Path

from ml_core.domain.version import StoredArtifact
from ml_core.ids import Digest, TenantId
from ml_core.models.store import ArtifactStore


class MirroredStore(ArtifactStore):
    """An artifact folder whose artifacts are in the platform's store too.

    Args:
        root: The caller's folder.
        platform: The platform's store.
    """

    def __init__(self, root: Path, platform: ArtifactStore) -> None:
        super().__init__(root)
        self._platform = platform

    def put(self, tenant_id: TenantId, data: bytes, format: str) -> StoredArtifact:  # noqa: A002 - the field's name
        """Store bytes in both, the platform's first: what only the caller's folder held could not be served."""
        self._platform.put(tenant_id, data, format)
        return super().put(tenant_id, data, format)

    def read(self, tenant_id: TenantId, digest: Digest, size_bytes: int) -> bytes:
        """Read from the caller's folder what it has, the rest from the platform's store; both are proved."""
        if super().exists(tenant_id, digest):
            return super().read(tenant_id, digest, size_bytes)
        return self._platform.read(tenant_id, digest, size_bytes)

    def exists(self, tenant_id: TenantId, digest: Digest) -> bool:
        """Whether the platform's store has it."""
        return self._platform.exists(tenant_id, digest)

    def delete(self, tenant_id: TenantId, digest: Digest) -> None:
        """Remove it from both."""
        super().delete(tenant_id, digest)
        self._platform.delete(tenant_id, digest)


def open_store(folder: str | Path | None, platform_root: Path) -> ArtifactStore:
    """The platform's store, or a caller's folder beside it.

    Args:
        folder: The caller's folder; None: the platform's store itself.
        platform_root: Where the platform keeps artifacts.
    """
    platform = ArtifactStore(platform_root)
    if folder is None or ArtifactStore(Path(folder)).root == platform.root:
        return platform
    return MirroredStore(Path(folder), platform)
