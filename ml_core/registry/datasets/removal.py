"""Hiding a version of a dataset, showing it again, and deleting it."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.database.tables import dataset_versions, versions
from ml_core.exceptions import DatasetInUseError
from ml_core.ids import DatasetId, Digest, TenantId
from ml_core.registry import journal
from ml_core.registry.blobs import lock_digest
from ml_core.registry.datasets.gated import refuse_if_gated
from ml_core.registry.datasets.rows import dataset_not_found, is_version, of
from ml_core.registry.erasure import erase

_MOST_NAMED = 20


def set_archived(
    connection: Connection, tenant_id: TenantId, dataset_id: DatasetId, number: int, *, archived: bool
) -> None:
    """Hide or show a version; one that is so already stays as it is.

    Raises:
        DatasetNotFoundError: There is no such version.
        DatasetInUseError: It is to be hidden, and a gate needs it.
    """
    at: Any = sa.func.coalesce(of.archived_at, sa.func.now()) if archived else None
    which = is_version(tenant_id, dataset_id, number)
    if archived:
        digest = _digest(connection, tenant_id, dataset_id, number)
        lock_digest(connection, tenant_id, digest, shared=False)
        refuse_if_gated(connection, tenant_id, dataset_id, number)
    if not connection.execute(dataset_versions.update().where(which).values(archived_at=at)).rowcount:
        raise dataset_not_found(connection, tenant_id, dataset_id, number)
    action = "dataset.version_archived" if archived else "dataset.version_restored"
    journal.record(connection, tenant_id, action, {"dataset_id": dataset_id, "number": number})


def delete(connection: Connection, tenant_id: TenantId, dataset_id: DatasetId, number: int) -> Digest:
    """Delete a version's row, unless a model version was trained on it and no other row holds its bytes.

    Returns:
        Its digest, for whoever keeps the bytes.

    Raises:
        DatasetNotFoundError: There is no such version.
        DatasetInUseError: A model version was trained on it, or a gate needs it.
    """
    which = is_version(tenant_id, dataset_id, number)
    digest = _digest(connection, tenant_id, dataset_id, number)
    lock_digest(connection, tenant_id, digest, shared=False)
    refuse_if_gated(connection, tenant_id, dataset_id, number)
    twin = sa.exists().where(of.tenant_id == tenant_id, of.digest == digest, sa.not_(which))
    if not connection.scalar(sa.select(twin)):
        _refuse_if_trained_on(connection, tenant_id, dataset_id, number, digest)
    if not erase(connection, dataset_versions, dataset_id=dataset_id, number=number):  # deleted while we waited
        raise dataset_not_found(connection, tenant_id, dataset_id, number)
    subject = {"dataset_id": dataset_id, "number": number}
    journal.record(connection, tenant_id, "dataset.version_deleted", subject, {"digest": digest})
    return digest


def _digest(connection: Connection, tenant_id: TenantId, dataset_id: DatasetId, number: int) -> Digest:
    digest = connection.scalar(sa.select(of.digest).where(is_version(tenant_id, dataset_id, number)))
    if digest is None:
        raise dataset_not_found(connection, tenant_id, dataset_id, number)
    return Digest(digest)


def _refuse_if_trained_on(
    connection: Connection, tenant_id: TenantId, dataset_id: DatasetId, number: int, digest: str
) -> None:
    statement = (
        sa.select(versions.c.model_id, versions.c.version)
        .where(versions.c.tenant_id == tenant_id, versions.c.dataset_digest == digest)
        .order_by(versions.c.model_id, versions.c.version)
        .limit(_MOST_NAMED)
    )
    used_by = [f"{row.model_id}@{row.version}" for row in connection.execute(statement)]
    if used_by:
        raise DatasetInUseError(
            f"The model versions {', '.join(used_by)} were trained on {dataset_id!s}@{number}.",
            remedy="Archive it, which hides it, or delete those versions first.",
            tenant_id=tenant_id,
            dataset_id=str(dataset_id),
            number=number,
            used_by=used_by,
        )
