"""Replicas in this process, on a real registry: they follow, load and report as those behind an ingress do."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.placement import SHARED_CELL
from ml_core.ids import ModelId, TenantId, VersionId
from ml_core.inference.replica import Replica
from ml_core.models.store import LocalStore
from ml_core.registry.replicas import seen_replicas
from ml_core.registry.versions.repository import VersionRepository
from ml_core.settings import OidcSettings, ServingSettings, Settings
from support.waiting import wait_until


def replica_settings(db: DatabaseConnection, **serving: object) -> Settings:
    """Settings as a replica gets them: where the registry is, and the home with the artifacts."""
    database = dataclasses.replace(
        db.settings.database, url=db.urls.app, ingest_url=db.urls.ingest, tenant_key=db.tenant_key
    )
    limits = ServingSettings(**{"poll_interval_s": 0.5, **serving})  # type: ignore[arg-type]
    return dataclasses.replace(db.settings, database=database, serving=limits)


@contextmanager
def running_replica(
    db: DatabaseConnection,
    replica_id: str,
    cell: str = SHARED_CELL,
    oidc: OidcSettings | None = None,
    **serving: object,
) -> Iterator[Replica]:
    """A replica that has read the assignment, loaded what it could, and said so."""
    settings = dataclasses.replace(replica_settings(db, **serving), oidc=oidc or OidcSettings())
    replica = Replica(settings, replica_id, cell=cell)
    try:
        replica.start(wait_s=30)
        wait_until(lambda: replica_id in {seen.replica_id for seen in seen_replicas(db) if not seen.is_behind})
        yield replica
    finally:
        replica.stop()


def damage(db: DatabaseConnection, tenant_id: TenantId, model_id: ModelId, version: VersionId) -> None:
    """Flip one byte of a version's artifact on disk."""
    servable = VersionRepository(db, tenant_id).get(model_id, version).servable
    path = LocalStore(db.settings.platform.artifact_root).path(tenant_id, servable.digest)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(bytes(data))
