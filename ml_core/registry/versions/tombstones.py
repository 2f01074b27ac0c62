"""Tombstones: what the database keeps of a deleted version, so that its name never means other bytes."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.database.tables import deleted_versions, versions
from ml_core.exceptions import ModelVersionConflictError, VersionInUseError
from ml_core.ids import Digest, ModelId, TenantId, VersionId
from ml_core.registry.erasure import erase


def remove(
    connection: Connection, tenant_id: TenantId, model_id: ModelId, version: VersionId | None = None
) -> list[Digest]:
    """Delete a version, or all of a model; names and digests are kept. Whether anything needs it is for callers to ask.

    Returns:
        The digests of those that there were.

    Raises:
        VersionInUseError: It was promoted or held since the caller asked.
    """
    key = {"model_id": model_id} | ({} if version is None else {"version": version})
    going = [versions.c.tenant_id == tenant_id, *(versions.c[name] == value for name, value in key.items())]
    gone = connection.scalars(sa.select(versions.c.digest).where(*going)).all()
    try:
        erase(connection, versions, **key)
    except sa.exc.IntegrityError as error:
        what = f"The model {model_id!s}" if version is None else f"Version {version!s} of {model_id!s}"
        raise VersionInUseError(
            f"{what} was promoted or held meanwhile.",
            remedy="Look at the model's environments and holds.",
            tenant_id=tenant_id,
            model_id=model_id,
            version=version,
        ) from error
    return [Digest(digest) for digest in gone]


def is_buried(connection: Connection, tenant_id: TenantId, model_id: ModelId, version: VersionId) -> bool:
    """Whether there was a version of this name that was deleted or collected."""
    return _buried(connection, tenant_id, model_id, version) is not None


def refuse_reuse(
    connection: Connection, tenant_id: TenantId, model_id: ModelId, version: VersionId, digest: Digest
) -> None:
    """Refuse other bytes under the name of a deleted version; the very same may come back.

    Raises:
        ModelVersionConflictError: The name belongs to other bytes.
    """
    buried = _buried(connection, tenant_id, model_id, version)
    if buried not in (None, digest):
        raise ModelVersionConflictError(
            f"Version {version!s} of {model_id!s} was deleted and had other bytes; a name is never given to others.",
            remedy="Register under another version, or leave the version out for the next number.",
            tenant_id=tenant_id,
            model_id=model_id,
            version=version,
        )


def _buried(connection: Connection, tenant_id: TenantId, model_id: ModelId, version: VersionId) -> str | None:
    of = deleted_versions.c
    named = (of.tenant_id == tenant_id, of.model_id == model_id, of.version == version)
    return connection.scalar(sa.select(of.digest).where(*named))
