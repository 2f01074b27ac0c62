"""Publishing: bytes into the artifact store and their version into the registry, or neither; and both out again."""

from __future__ import annotations

import contextlib

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.version import ModelVersion, VersionDraft
from ml_core.exceptions import MLFrameworkError
from ml_core.ids import Digest, TenantId
from ml_core.models.store import ArtifactStore
from ml_core.registry.blobs import claim_bytes
from ml_core.registry.versions import VersionRepository


class Publisher:
    """Brings versions of one tenant into being and removes what nothing needs.

    Args:
        db: The registry.
        tenant_id: The tenant; it must exist.
        store: Where the bytes go.
    """

    def __init__(self, db: DatabaseConnection, tenant_id: TenantId, store: ArtifactStore) -> None:
        self._db = db
        self._tenant_id = tenant_id
        self._store = store
        self._versions = VersionRepository(db, tenant_id)

    def publish(self, draft: VersionDraft, data: bytes, format: str, *, actor: str | None = None) -> ModelVersion:  # noqa: A002
        """Store the bytes of an artifact and register them as a version.

        Args:
            draft: What the version is.
            data: The artifact.
            format: Of the artifact, such as ``skops/1``.
            actor: Who does it; None means the connection's principal.

        Raises:
            ModelSaveError: The store or the registry refuses; nothing is left behind.
            ModelVersionConflictError: The version exists with other bytes.
            TenantNotFoundError: There is no such tenant.
        """
        artifact = self._store.put(self._tenant_id, data, format)
        try:
            version = self._versions.register(draft, artifact, actor or self._db.principal.name)
        except BaseException:
            # If the registry can't say whether the bytes are needed, they stay: they harm nobody.
            with contextlib.suppress(MLFrameworkError):
                self.discard(artifact.digest)
            raise
        if not self._store.exists(self._tenant_id, artifact.digest):
            # Another version with these bytes was deleted between the two steps above. From here on ours keeps them.
            self._store.put(self._tenant_id, data, format)
        return version

    def discard(self, digest: Digest) -> None:
        """Remove bytes, unless something needs them.

        Raises:
            ModelSaveError: The disk refuses.
        """
        with claim_bytes(self._db, self._tenant_id, digest) as is_unused:
            if is_unused:
                self._store.delete(self._tenant_id, digest)
