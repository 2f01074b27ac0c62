"""Registering a file as a version of a dataset: bytes and row, or neither, see ``blobs.store_and_register``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import Connection

from ml_core.data.profile import profile_file
from ml_core.data.table_file import FORMAT, columns_of
from ml_core.database.connection import DatabaseConnection, acting
from ml_core.database.tables import dataset_versions, datasets
from ml_core.domain.dataset import DatasetVersion
from ml_core.domain.version import StoredArtifact
from ml_core.ids import DatasetId, TenantId
from ml_core.models.store import ArtifactStore
from ml_core.registry import journal
from ml_core.registry.blobs import store_and_register
from ml_core.registry.datasets.rows import dataset_not_found, find
from ml_core.registry.missing import tenant_deleted, tenant_not_found
from ml_core.registry.versions.rows import refusal


def register(
    db: DatabaseConnection,
    tenant_id: TenantId,
    store: ArtifactStore,
    dataset_id: DatasetId,
    path: Path,
    source: Mapping[str, Any],
) -> DatasetVersion:
    """Store a file that ``TableWriter`` wrote, with its profile, as the next version of a dataset.

    If the newest version has the same bytes, that version is returned.

    Raises:
        ModelSaveError: The store refuses; nothing is left behind.
        TenantNotFoundError: There is no such tenant.
    """
    profile = profile_file(path)
    recorded = {
        "row_count": profile.row_count,
        "columns": [{"name": name, "type": kind} for name, kind in columns_of(path)],
        "profile": profile.to_json(),
        "source": dict(source),
    }
    return store_and_register(
        db,
        tenant_id,
        store,
        lambda: store.put_file(tenant_id, path, FORMAT),
        lambda connection, artifact: _insert(connection, tenant_id, dataset_id, artifact, recorded),
    )


def _insert(
    connection: Connection,
    tenant_id: TenantId,
    dataset_id: DatasetId,
    artifact: StoredArtifact,
    recorded: Mapping[str, Any],
) -> DatasetVersion:
    number = _lock_dataset(connection, tenant_id, dataset_id)
    newest = find(connection, tenant_id, dataset_id, None)
    if newest is not None and newest.digest == artifact.digest:
        return newest
    connection.execute(
        dataset_versions.insert().values(
            tenant_id=tenant_id,
            dataset_id=dataset_id,
            number=number,
            digest=artifact.digest,
            size_bytes=artifact.size_bytes,
            created_by=acting(connection).name,
            **recorded,
        )
    )
    subject = {"dataset_id": dataset_id, "number": number}
    journal.record(connection, tenant_id, "dataset.version_created", subject, {"digest": artifact.digest})
    version = find(connection, tenant_id, dataset_id, number)
    if version is None:
        raise dataset_not_found(connection, tenant_id, dataset_id, number)
    return replace(version, is_new=True)


def _lock_dataset(connection: Connection, tenant_id: TenantId, dataset_id: DatasetId) -> int:
    """The next number of the dataset, whose row is created on first use and locked until the transaction ends."""
    made = insert(datasets).values(tenant_id=tenant_id, dataset_id=dataset_id, created_by=acting(connection).name)
    try:
        created = connection.scalar(made.on_conflict_do_nothing().returning(datasets.c.dataset_id))
    except sa.exc.IntegrityError as error:
        if refusal(error) == "fk_datasets_tenants":
            raise tenant_not_found(tenant_id) from error
        raise
    if created is not None:
        journal.record(connection, tenant_id, "dataset.created", {"dataset_id": dataset_id})
    locked = sa.select(datasets.c.next_number).where(
        datasets.c.tenant_id == tenant_id, datasets.c.dataset_id == dataset_id
    )
    number = connection.scalar(locked.with_for_update())
    if number is None:  # a deletion of the tenant removed it meanwhile
        raise tenant_deleted(tenant_id)
    return int(number)
