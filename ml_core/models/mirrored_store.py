"""A caller's own artifact folder beside the platform's store, so that both see every version.

One registry knows the versions of a tenant, whichever class registered them. Replicas read from the platform's store
alone; a caller who names a folder gets a copy there, and what others registered is read from the platform's.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ml_core.domain.version import StoredArtifact
from ml_core.ids import Digest, TenantId
from ml_core.models.store import ArtifactStore, LocalStore, Removed, StoredBlob, Stray, platform_store
from ml_core.settings import Settings


class MirroredStore(LocalStore):
    """An artifact folder whose artifacts are in the platform's store too.

    What the store holds (``exists``, ``verify``, ``list``, ``strays``, ``tenants``) is the platform's to say.

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

    def put_file(self, tenant_id: TenantId, path: Path, format: str) -> StoredArtifact:  # noqa: A002
        """Store a file in both, the platform's first."""
        self._platform.put_file(tenant_id, path, format)
        return super().put_file(tenant_id, path, format)

    def read(self, tenant_id: TenantId, digest: Digest, size_bytes: int) -> bytes:
        """Read from the caller's folder what it has, the rest from the platform's store; both are proved."""
        if super().exists(tenant_id, digest):
            return super().read(tenant_id, digest, size_bytes)
        return self._platform.read(tenant_id, digest, size_bytes)

    def fetch(self, tenant_id: TenantId, digest: Digest, size_bytes: int) -> Path:
        """The file in the caller's folder if it has one, else the platform's; both are proved."""
        if super().exists(tenant_id, digest):
            return super().fetch(tenant_id, digest, size_bytes)
        return self._platform.fetch(tenant_id, digest, size_bytes)

    def verify(self, tenant_id: TenantId, digest: Digest, size_bytes: int) -> None:
        """Prove what lies in the platform's store."""
        self._platform.verify(tenant_id, digest, size_bytes)

    def exists(self, tenant_id: TenantId, digest: Digest) -> bool:
        """Whether the platform's store has it."""
        return self._platform.exists(tenant_id, digest)

    def delete(self, tenant_id: TenantId, digest: Digest) -> None:
        """Remove it from both."""
        super().delete(tenant_id, digest)
        self._platform.delete(tenant_id, digest)

    def list(self, tenant_id: TenantId) -> Iterator[StoredBlob]:
        """The tenant's artifacts in the platform's store."""
        return self._platform.list(tenant_id)

    def strays(self, tenant_id: TenantId) -> Iterator[Stray]:
        """What is no artifact in the tenant's folder of the platform's store."""
        return self._platform.strays(tenant_id)

    def delete_stray(self, tenant_id: TenantId, stray: Stray) -> None:
        """Remove it from the platform's store."""
        self._platform.delete_stray(tenant_id, stray)

    def tenants(self) -> Iterator[TenantId]:
        """The tenants that have a folder in the platform's store."""
        return self._platform.tenants()

    def delete_tenant(self, tenant_id: TenantId) -> Removed:
        """Remove the tenant's folder from both; the answer counts both."""
        own, shared = super().delete_tenant(tenant_id), self._platform.delete_tenant(tenant_id)
        return Removed(own.count + shared.count, own.bytes + shared.bytes)


def open_store(folder: str | Path | None, settings: Settings) -> ArtifactStore:
    """The platform's store, or a caller's folder beside it.

    Args:
        folder: The caller's folder; None, or the platform's own folder: the platform's store itself, wherever the
            settings say that it is.
        settings: Those of the platform.
    """
    platform = platform_store(settings)
    if folder is None or LocalStore(Path(folder)).root == LocalStore(settings.platform.artifact_root).root:
        return platform
    return MirroredStore(Path(folder), platform)
