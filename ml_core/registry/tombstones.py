"""Tombstones: what stays of a deleted version, so that its name never means other bytes."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import Connection

from ml_core.database.tables import deleted_versions, versions
from ml_core.exceptions import ModelVersionConflictError
from ml_core.ids import Digest, ModelId, TenantId, VersionId

_KEPT = ("tenant_id", "model_id", "version", "digest")


def bury(connection: Connection, conditions: sa.ColumnElement[bool]) -> None:
    """Note names and digests of the versions that meet the conditions, just before they are deleted."""
    gone = sa.select(*(versions.c[name] for name in _KEPT)).where(conditions)
    connection.execute(insert(deleted_versions).from_select(_KEPT, gone).on_conflict_do_nothing())


def refuse_reuse(
    connection: Connection, tenant_id: TenantId, model_id: ModelId, version: VersionId, digest: Digest
) -> None:
    """Refuse other bytes under the name of a deleted version; the very same may come back.

    Raises:
        ModelVersionConflictError: The name belongs to other bytes.
    """
    buried = connection.scalar(
        sa.select(deleted_versions.c.digest).where(
            deleted_versions.c.tenant_id == tenant_id,
            deleted_versions.c.model_id == model_id,
            deleted_versions.c.version == version,
        )
    )
    if buried not in (None, digest):
        raise ModelVersionConflictError(
            f"Version {version!s} of {model_id!s} was deleted and had other bytes; a name is never given to others.",
            remedy="Register under another version, or leave the version out for the next number.",
            tenant_id=tenant_id,
            model_id=model_id,
            version=version,
        )
