"""Publishing: bytes into the artifact store and their version into the registry, or neither; and both out again."""

from __future__ import annotations

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.api_key import Scope
from ml_core.domain.version import ModelVersion, VersionDraft
from ml_core.ids import Digest, TenantId
from ml_core.models.store import ArtifactStore
from ml_core.registry.blobs import remove_unneeded, store_and_register
from ml_core.registry.versions.limits import check_draft
from ml_core.registry.versions.registration import register


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

    def publish(self, draft: VersionDraft, data: bytes, format: str, *, actor: str | None = None) -> ModelVersion:  # noqa: A002
        """Store the bytes of an artifact and register them as a version.

        Args:
            draft: What the version is.
            data: The artifact.
            format: Of the artifact, such as ``skops/2``.
            actor: Who does it; None means the connection's principal.

        Raises:
            PermissionDeniedError: The principal lacks the scope ``train``.
            ModelSaveError: The store or the registry refuses; nothing is left behind.
            ModelVersionConflictError: The version exists with other bytes.
            TenantNotFoundError: There is no such tenant.
        """
        self._db.principal.require(Scope.TRAIN)  # before anything is stored
        check_draft(draft)
        signed = actor or self._db.principal.name
        return store_and_register(
            self._db,
            self._tenant_id,
            self._store,
            lambda: self._store.put(self._tenant_id, data, format),
            lambda connection, artifact: register(connection, self._tenant_id, draft, artifact, signed),
        )

    def discard(self, digest: Digest) -> None:
        """Remove bytes, unless something needs them.

        Raises:
            ModelSaveError: The disk refuses.
        """
        remove_unneeded(self._db, self._tenant_id, self._store, digest)
