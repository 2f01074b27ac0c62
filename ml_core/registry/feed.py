"""The assignment feed: what a cell must serve, read as a snapshot or as what changed since a generation.

Each change is stamped with a generation of its cell's clock, whose row is locked until the change commits. So in any
snapshot of the database every change up to the clock's generation is visible, and none after it: a reader that applied
a delta can't have missed one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables import SHARED_CELL, api_keys, environments, feed_clock, models, tenants, versions
from ml_core.domain.api_key import KeyRecord, Scope
from ml_core.domain.assignment import AssignmentDelta, PointerRef, Rollout
from ml_core.domain.version import ServableVersion
from ml_core.exceptions import ConfigurationError, ModelNotFoundError
from ml_core.ids import EnvironmentName, ModelId, TenantId, VersionRef
from ml_core.registry.rows import SERVABLE_COLUMNS, VERSIONS_WITH_MODEL, servable_from

if TYPE_CHECKING:
    from ml_core.registry.rows import AnyRow, AnySelect


class FeedReader:
    """Reads a cell's assignment as the serving role.

    Args:
        db: The registry.
        cell: The cell.
    """

    def __init__(self, db: DatabaseConnection, cell: str = SHARED_CELL) -> None:
        self._db = db
        self._cell = cell

    def read(self, after: int | None) -> AssignmentDelta:
        """What changed after a generation, in four queries at most and one when nothing did.

        Args:
            after: The generation up to which the reader knows everything, or None for a snapshot. One that the
                registry has not reached, as after a restore from a backup, gives a snapshot too.

        Raises:
            RegistryUnavailableError: Postgres can't be reached.
            ConfigurationError: There is no such cell.
        """
        with self._db.serving() as connection:
            now = connection.scalar(sa.select(feed_clock.c.generation).where(feed_clock.c.cell == self._cell))
            if now is None:
                raise ConfigurationError(f"The registry knows no cell {self._cell!r}.", remedy="Serve the shared cell.")
            if after == now:
                return AssignmentDelta(now, False, {}, {}, {})
            since = after if after is not None and after < now else None
            return AssignmentDelta(
                generation=now,
                is_snapshot=since is None,
                tenants=self._tenants(connection, since),
                rollouts=self._rollouts(connection, since),
                keys=self._keys(connection, since),
            )

    def _tenants(self, connection: Connection, since: int | None) -> dict[TenantId, bool]:
        statement = sa.select(tenants.c.tenant_id, tenants.c.deleted_at).where(tenants.c.cell == self._cell)
        statement = _restrict(statement, tenants.c.feed_generation, tenants.c.deleted_at.is_(None), since)
        return {TenantId(row.tenant_id): row.deleted_at is None for row in connection.execute(statement)}

    def _rollouts(self, connection: Connection, since: int | None) -> dict[PointerRef, Rollout | None]:
        pointer = environments.c
        joined = environments.outerjoin(
            versions,
            sa.and_(
                versions.c.tenant_id == pointer.tenant_id,
                versions.c.model_id == pointer.model_id,
                versions.c.version == pointer.version,
            ),
        ).join(models, sa.and_(models.c.tenant_id == pointer.tenant_id, models.c.model_id == pointer.model_id))
        named = (
            pointer.tenant_id.label("of"),
            pointer.model_id.label("model"),
            pointer.environment,
            pointer.generation,
        )
        statement = sa.select(*named, *SERVABLE_COLUMNS).select_from(joined).where(pointer.cell == self._cell)
        statement = _restrict(statement, pointer.feed_generation, pointer.version.is_not(None), since)
        return dict(_rollout(row) for row in connection.execute(statement))

    def _keys(self, connection: Connection, since: int | None) -> dict[str, KeyRecord | None]:
        joined = api_keys.join(tenants, tenants.c.tenant_id == api_keys.c.tenant_id)
        statement = sa.select(api_keys).select_from(joined).where(tenants.c.cell == self._cell)
        statement = _restrict(statement, api_keys.c.feed_generation, api_keys.c.revoked_at.is_(None), since)
        return {row.key_id: _key(row) for row in connection.execute(statement)}

    def servable(self, ref: VersionRef) -> ServableVersion:
        """A version that no pointer need name, such as one that a request asked for by its name.

        Raises:
            ModelNotFoundError: There is no such version, or it is archived.
            RegistryUnavailableError: Postgres can't be reached.
        """
        statement = (
            sa.select(*SERVABLE_COLUMNS)
            .select_from(VERSIONS_WITH_MODEL)
            .where(
                versions.c.tenant_id == ref.tenant_id,
                versions.c.model_id == ref.model_id,
                versions.c.version == ref.version,
                versions.c.archived_at.is_(None),
                models.c.archived_at.is_(None),
            )
        )
        with self._db.serving() as connection:
            row = connection.execute(statement).one_or_none()
        if row is None:
            raise ModelNotFoundError(
                f"The model {ref.model_id!s} has no version {ref.version!s}.",
                remedy="List its versions.",
                tenant_id=ref.tenant_id,
                model_id=ref.model_id,
                version=ref.version,
            )
        return servable_from(row)


def _restrict(
    statement: AnySelect, stamp: sa.ColumnElement[int], is_live: sa.ColumnElement[bool], since: int | None
) -> AnySelect:
    """A snapshot names what there is; a delta also what is gone, as far as it changed."""
    return statement.where(is_live if since is None else stamp > since)


def _rollout(row: AnyRow) -> tuple[PointerRef, Rollout | None]:
    ref = PointerRef(TenantId(row.of), ModelId(row.model), EnvironmentName(row.environment))
    return ref, None if row.version is None else Rollout(servable_from(row), row.generation)


def _key(row: AnyRow) -> KeyRecord | None:
    if row.revoked_at is not None:
        return None
    return KeyRecord(row.key_id, TenantId(row.tenant_id), row.salt, row.hash, frozenset(map(Scope, row.scopes)))
