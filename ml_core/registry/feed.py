"""The assignment feed: what a cell must serve, read as a snapshot or as what changed since a generation.

Each change is stamped with a generation of its cell's clock, whose row is locked until the change commits. So in any
snapshot of the database every change up to the clock's generation is visible, and none after it: a reader that applied
a delta can't have missed one.

A row that can't be read is its tenant's misfortune, not the cell's: it is logged and passed over.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables import SHARED_CELL, api_keys, environments, feed_clock, models, tenants, versions
from ml_core.domain.api_key import KeyRecord
from ml_core.domain.assignment import AssignmentDelta, PointerRef, Rollout
from ml_core.domain.version import ServableVersion
from ml_core.exceptions import ConfigurationError, MLFrameworkError, ModelLoadError, ModelNotFoundError
from ml_core.ids import EnvironmentName, ModelId, TenantId, VersionRef
from ml_core.registry.keys import known_scopes
from ml_core.registry.rows import IS_ARCHIVED, SERVABLE_COLUMNS, VERSIONS_WITH_MODEL, servable_from

if TYPE_CHECKING:
    from ml_core.registry.rows import AnyRow, AnySelect

_log = logging.getLogger(__name__)

# What reading a row raises that no release of the platform wrote, or a later one did.
_UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, MLFrameworkError)

_Value = TypeVar("_Value")


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

        A key whose row can't be read counts as revoked. A pointer whose version can't be read is not named, so that a
        reader of a delta goes on with what it has.

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
            rollouts, unreadable = self._rollouts(connection, since)
            return AssignmentDelta(
                generation=now,
                is_snapshot=since is None,
                tenants=self._tenants(connection, since),
                rollouts=rollouts,
                keys=self._keys(connection, since),
                unreadable=unreadable,
            )

    def _tenants(self, connection: Connection, since: int | None) -> dict[TenantId, bool]:
        statement = sa.select(tenants.c.tenant_id, tenants.c.deleted_at).where(tenants.c.cell == self._cell)
        statement = _restrict(statement, tenants.c.feed_generation, tenants.c.deleted_at.is_(None), since)
        found = (_readable(_tenant, row, "tenant", row.tenant_id) for row in connection.execute(statement))
        return dict(pair for pair in found if pair is not None)

    def _rollouts(
        self, connection: Connection, since: int | None
    ) -> tuple[dict[PointerRef, Rollout | None], frozenset[PointerRef]]:
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
        rollouts: dict[PointerRef, Rollout | None] = {}
        unreadable: set[PointerRef] = set()
        for row in connection.execute(statement):
            name = f"{row.of}/{row.model}:{row.environment}"
            ref = _readable(_pointer_ref, row, "environment", name)
            if ref is None:
                continue  # no pointer of this release can have such a name
            if row.version is None:
                rollouts[ref] = None
            elif (servable := _readable(servable_from, row, "version that is served by", name)) is not None:
                rollouts[ref] = Rollout(servable, row.generation)
            else:
                unreadable.add(ref)
        return rollouts, frozenset(unreadable)

    def _keys(self, connection: Connection, since: int | None) -> dict[str, KeyRecord | None]:
        joined = api_keys.join(tenants, tenants.c.tenant_id == api_keys.c.tenant_id)
        statement = sa.select(api_keys).select_from(joined).where(tenants.c.cell == self._cell)
        statement = _restrict(statement, api_keys.c.feed_generation, api_keys.c.revoked_at.is_(None), since)
        return {row.key_id: _readable(_key, row, "key", row.key_id) for row in connection.execute(statement)}

    def servable(self, ref: VersionRef) -> ServableVersion:
        """A version that no pointer need name, such as one that a request asked for by its name.

        Raises:
            ModelNotFoundError: There is no such version, or it is archived.
            ModelLoadError: Its row can't be read.
            RegistryUnavailableError: Postgres can't be reached.
        """
        statement = (
            sa.select(*SERVABLE_COLUMNS)
            .select_from(VERSIONS_WITH_MODEL)
            .where(
                versions.c.tenant_id == ref.tenant_id,
                versions.c.model_id == ref.model_id,
                versions.c.version == ref.version,
                sa.not_(IS_ARCHIVED),
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
        found = _readable(servable_from, row, "version", str(ref))
        if found is None:
            raise ModelLoadError(
                f"What the registry says of {ref} can't be read.",
                remedy="Use another version, or train and register the model again.",
                tenant_id=ref.tenant_id,
                model_id=ref.model_id,
                version=ref.version,
            )
        return found


def _restrict(
    statement: AnySelect, stamp: sa.ColumnElement[int], is_live: sa.ColumnElement[bool], since: int | None
) -> AnySelect:
    """A snapshot names what there is; a delta also what is gone, as far as it changed."""
    return statement.where(is_live if since is None else stamp > since)


def _readable(read: Callable[[AnyRow], _Value], row: AnyRow, kind: str, name: str) -> _Value | None:
    """What a row says, or None with a warning if it can't be read."""
    try:
        return read(row)
    except _UNREADABLE as error:
        reason = f"{type(error).__name__}: {error}"
        _log.warning("The registry's row of the %s %r can't be read and is passed over (%r).", kind, name, reason)
        return None


def _tenant(row: AnyRow) -> tuple[TenantId, bool]:
    return TenantId(row.tenant_id), row.deleted_at is None


def _pointer_ref(row: AnyRow) -> PointerRef:
    return PointerRef(TenantId(row.of), ModelId(row.model), EnvironmentName(row.environment))


def _key(row: AnyRow) -> KeyRecord | None:
    if row.revoked_at is not None:
        return None
    return KeyRecord(row.key_id, TenantId(row.tenant_id), row.salt, row.hash, known_scopes(row.scopes))
