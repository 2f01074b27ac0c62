"""``MLSystem.holds`` and ``ModelRegistry.holds``: versions that must be kept, in plain names."""

from __future__ import annotations

from ml_core.database.connection import DatabaseConnection
from ml_core.ids import HoldName, ModelId, TenantId, VersionId
from ml_core.registry.collection.holds import Hold, HoldRepository
from ml_core.registry.pages import Page


class Holds:
    """The holds of one tenant: a version with one is neither deleted nor collected, whatever its age.

    Args:
        db: The registry; its principal is who acts.
        tenant_id: The tenant.
    """

    def __init__(self, db: DatabaseConnection, tenant_id: TenantId) -> None:
        self._holds = HoldRepository(db, tenant_id)

    def place(self, model_id: str, version: str, name: str, reason: str) -> Hold:
        """Keep a version until the hold is released. One of this name that is there stays as it is.

        Args:
            model_id: The model.
            version: The version, archived or not.
            name: Such as ``legal``: 1 to 40 of a-z, 0-9, ``-`` and ``_``.
            reason: Why; not blank.

        Raises:
            ModelNotFoundError: There is no such version.
            InvalidRequestError: There is no reason.
            PermissionDeniedError: The connection's principal may not.
        """
        return self._holds.place(ModelId(model_id), VersionId(version), HoldName(name), reason)

    def release(self, model_id: str, version: str, name: str) -> None:
        """End a hold.

        Raises:
            InvalidRequestError: There is no such hold.
            PermissionDeniedError: The connection's principal is not an admin.
        """
        self._holds.release(ModelId(model_id), VersionId(version), HoldName(name))

    def list(self, model_id: str | None = None, *, limit: int = 100, cursor: str | None = None) -> Page[Hold]:
        """The holds of a model or of all, by model, version and name.

        Args:
            model_id: Only those of this model.
            limit: At most so many, 1 to 1000.
            cursor: ``next_cursor`` of the page before.

        Raises:
            InvalidRequestError: The limit or the cursor can't be used.
        """
        return self._holds.list(None if model_id is None else ModelId(model_id), limit=limit, cursor=cursor)
