"""Lineage: what a version was made from, and what was made from it, in both directions and all the way."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables import dataset_versions, environments, runs, versions
from ml_core.domain.version import ModelVersion
from ml_core.ids import Digest, ModelId, TenantId, VersionId
from ml_core.registry.versions.repository import VersionRepository

_ROLES = ("version", "canary_version", "shadow_version")


class LineageRepository:
    """The lineage of one tenant's versions."""

    def __init__(self, db: DatabaseConnection, tenant_id: TenantId) -> None:
        self._db = db
        self._tenant_id = tenant_id
        self._versions = VersionRepository(db, tenant_id)

    def of(self, model_id: ModelId, version: VersionId) -> dict[str, Any]:
        """Where a version came from and what came of it.

        Returns:
            ``digest``, ``run_id``, ``dataset_digest``, ``data_digest``, ``parent_version``, ``code_commit``,
            ``libraries``, ``created_at``, ``created_by``; upstream ``run`` (``run_id``, ``kind``, ``status``),
            ``datasets`` (those of these bytes, as ``name@number``) and ``ancestors`` (parent first); downstream
            ``children`` (versions made from it), ``descendants`` (theirs as well, oldest first) and ``environments``
            (that serve it, as stable version, canary or shadow).

        Raises:
            ModelNotFoundError: There is no such version.
        """
        found = self._versions.get(model_id, version)
        lineage = found.lineage
        with self._db.tenant(self._tenant_id) as connection:
            descendants = self._descendants(connection, found)
            upstream = {
                "run": self._run(connection, lineage.run_id),
                "datasets": self._datasets(connection, lineage.dataset_digest),
                "ancestors": self._ancestors(connection, found),
            }
            downstream = {
                "children": [name for name, parent in descendants if parent == version],
                "descendants": [name for name, _ in descendants],
                "environments": self._environments(connection, found),
            }
        return {
            "model_id": str(found.model_id),
            "version": str(found.version),
            "digest": str(found.servable.digest),
            "run_id": lineage.run_id,
            "dataset_digest": lineage.dataset_digest,
            "data_digest": lineage.data_digest,
            "parent_version": lineage.parent_version,
            "code_commit": lineage.code_commit,
            "libraries": dict(lineage.libraries),
            "created_at": found.created_at,
            "created_by": found.created_by,
            **upstream,
            **downstream,
        }

    def trained_on(self, digest: Digest) -> list[tuple[ModelId, VersionId]]:
        """The versions that were trained on these bytes, oldest first."""
        statement = (
            sa.select(versions.c.model_id, versions.c.version)
            .where(versions.c.tenant_id == self._tenant_id, versions.c.dataset_digest == digest)
            .order_by(versions.c.created_at, versions.c.model_id, versions.c.version)
        )
        with self._db.tenant(self._tenant_id) as connection:
            return [(ModelId(row.model_id), VersionId(row.version)) for row in connection.execute(statement)]

    def _run(self, connection: Connection, run_id: str | None) -> dict[str, Any] | None:
        if run_id is None:
            return None
        statement = sa.select(runs.c.run_id, runs.c.kind, runs.c.status).where(
            runs.c.tenant_id == self._tenant_id, runs.c.run_id == run_id
        )
        row = connection.execute(statement).one_or_none()
        return None if row is None else {"run_id": row.run_id, "kind": row.kind, "status": row.status}

    def _datasets(self, connection: Connection, digest: str | None) -> list[str]:
        if digest is None:
            return []
        of = dataset_versions.c
        statement = (
            sa.select(of.dataset_id, of.number)
            .where(of.tenant_id == self._tenant_id, of.digest == digest)
            .order_by(of.dataset_id, of.number)
        )
        return [f"{row.dataset_id}@{row.number}" for row in connection.execute(statement)]

    def _ancestors(self, connection: Connection, found: ModelVersion) -> list[str]:
        """The parent, its parent and so on. A parent that was deleted ends the chain: what it had was deleted too."""
        of = versions.c
        mine = sa.and_(of.tenant_id == self._tenant_id, of.model_id == found.model_id)
        chain = sa.select(of.version, of.parent_version, sa.literal(0).label("depth")).where(
            mine, of.version == found.version
        )
        above = chain.cte("above", recursive=True)
        above = above.union_all(
            sa.select(of.version, of.parent_version, above.c.depth + 1).where(
                mine, of.version == above.c.parent_version
            )
        )
        return list(connection.scalars(sa.select(above.c.version).where(above.c.depth > 0).order_by(above.c.depth)))

    def _descendants(self, connection: Connection, found: ModelVersion) -> list[tuple[str, str]]:
        """Each version made from this one, directly or not, with its parent."""
        of = versions.c
        mine = sa.and_(of.tenant_id == self._tenant_id, of.model_id == found.model_id)
        first = sa.select(of.version, of.parent_version, of.number).where(mine, of.parent_version == found.version)
        below = first.cte("below", recursive=True)
        below = below.union_all(
            sa.select(of.version, of.parent_version, of.number).where(mine, of.parent_version == below.c.version)
        )
        return [
            tuple(row)
            for row in connection.execute(sa.select(below.c.version, below.c.parent_version).order_by(below.c.number))
        ]

    def _environments(self, connection: Connection, found: ModelVersion) -> list[str]:
        serving = sa.or_(*(environments.c[role] == found.version for role in _ROLES))
        statement = (
            sa.select(environments.c.environment)
            .where(environments.c.tenant_id == self._tenant_id, environments.c.model_id == found.model_id, serving)
            .order_by(environments.c.environment)
        )
        return list(connection.scalars(statement))
