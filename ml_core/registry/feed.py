"""The assignment feed: what a cell must serve, read as a snapshot or as what changed since a generation.

Each change is stamped with a generation of the feed's clock, whose row is locked until the change commits. So in any
snapshot of the database every change up to the clock's generation is visible, and none after it: a reader that applied
a delta can't have missed one.

A dedicated cell follows its tenant. The shared cell follows all tenants but those that have moved to their own cells;
during a move both follow the tenant.

Unreadable rows are logged and skipped, and so are long documents of a tenant beyond ``MAX_TENANT_BYTES`` in one read,
so that one tenant can't stall the cell or fill its replicas.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.database.connection import DatabaseConnection
from ml_core.database.streaming import Stream
from ml_core.database.tables import (
    api_keys,
    environments,
    feed_clock,
    models,
    placements,
    prediction_quotas,
    replica_reports,
    tenants,
    versions,
)
from ml_core.domain.api_key import Grant, KeyRecord, KeyRef
from ml_core.domain.assignment import MAX_TENANT_BYTES, AssignmentDelta, CanaryRollout, PointerRef, Rollout
from ml_core.domain.placement import SHARED_CELL, tenant_of
from ml_core.domain.tenant_policies import PredictionPolicy, PredictionQuota
from ml_core.domain.version import UNREADABLE, ServableVersion, long_bytes
from ml_core.exceptions import ModelLoadError
from ml_core.ids import EnvironmentName, TenantId, VersionRef
from ml_core.registry.missing import not_shown
from ml_core.registry.records import value_of
from ml_core.registry.versions.rows import (
    SELECT_SERVABLE,
    SERVABLE_COLUMNS,
    is_version,
    name_parts,
    packed_from,
    servable_from,
)

if TYPE_CHECKING:
    from ml_core.registry.pages import AnyRow, AnySelect

_log = logging.getLogger(__name__)

_SNAPSHOT_TIMEOUT = "10min"  # of one statement that reads all pointers: 100,000 take some seconds

_Value = TypeVar("_Value")
_Row = TypeVar("_Row")

# For a while after a tenant was deleted its rows are still there. A delta says that the tenant is gone; a snapshot must
# not bring its pointers back.
_OF_DELETED_TENANT = sa.exists().where(
    tenants.c.tenant_id == environments.c.tenant_id, tenants.c.deleted_at.is_not(None)
)

_NOTHING: sa.ColumnElement[bool] = sa.false()


class FeedReader:
    """Reads a cell's assignment as the serving role, for one reader: it notices when the registry was restored.

    Args:
        db: The registry.
        cell: The cell.

    Raises:
        ConfigurationError: No cell has such a name.
    """

    def __init__(self, db: DatabaseConnection, cell: str = SHARED_CELL) -> None:
        self._db = db
        self._tenant_id = tenant_of(cell)
        self._clock: AnySelect = sa.select(*_CLOCK.selected_columns, _live_replicas(cell), *_IS_STAMPED)
        self._snapshot = Stream(self._versions(None))
        self._delta = Stream(self._versions(_SINCE))
        self._epoch: object = None

    def read(self, after: int | None, again: Sequence[str] = ()) -> AssignmentDelta:
        """What changed after a generation, in four queries at most, two for a promotion and one when nothing did.

        A key whose row can't be read counts as revoked. A pointer whose version can't be read is not named, so that a
        reader of a delta goes on with what it has. One whose canary or shadow can't be read is served without it.

        Args:
            after: The generation up to which the reader knows everything, or None for a snapshot. After a restore from
                a backup it gives a snapshot too, whether or not the registry has reached that generation again.
            again: Tenants of which a delta has all, whether or not it changed.
        """
        with self._db.serving() as connection:
            epoch, now, live, has_tenants, has_keys = connection.execute(self._clock, {"since": after or 0}).one()
            replicas = max(1, live)  # this one may not have reported yet
            if self._epoch not in (None, epoch):
                after = None
            if after == now and not again:
                self._epoch = epoch
                return AssignmentDelta(now, False, {}, {}, {}, epoch=epoch, replicas=replicas)
            since = after if after is not None and after <= now else None
            found = self._tenants(connection, since) if since is None or has_tenants else {}
            # In a delta, these may have come from another cell: all that they have is new here.
            changed = [] if since is None else [str(tenant) for tenant, policies in found.items() if policies]
            changed += [tenant for tenant in again if tenant not in found]  # a deleted one is, and has nothing any more
            rollouts, unreadable = self._rollouts(connection, since, changed)
            keys = self._keys(connection, since, changed) if since is None or has_keys or changed else {}
            self._epoch = epoch
            return AssignmentDelta(
                generation=now,
                is_snapshot=since is None,
                tenants={tenant: policies is not None for tenant, policies in found.items()},
                rollouts=rollouts,
                keys=keys,
                unreadable=unreadable,
                prediction_policies={tenant: policies.log for tenant, policies in found.items() if policies},
                quotas={tenant: policies.quota for tenant, policies in found.items() if policies and policies.quota},
                replicas=replicas,
                epoch=epoch,
            )

    def _is_followed(self, tenant_id: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
        if self._tenant_id is not None:
            return tenant_id == self._tenant_id
        return ~sa.exists().where(placements.c.tenant_id == tenant_id, placements.c.has_moved)

    def _tenants(self, connection: Connection, since: int | None) -> dict[TenantId, _Policies | None]:
        """The policies of each tenant; None once it is deleted or has moved to another cell."""
        is_here = sa.and_(tenants.c.deleted_at.is_(None), self._is_followed(tenants.c.tenant_id))
        statement = sa.select(
            tenants.c.tenant_id, tenants.c.prediction_policy, is_here.label("is_here"), *_QUOTA_COLUMNS
        ).join_from(tenants, prediction_quotas, prediction_quotas.c.tenant_id == tenants.c.tenant_id, isouter=True)
        if self._tenant_id is not None:
            statement = statement.where(tenants.c.tenant_id == self._tenant_id)
        statement = _restrict(statement, tenants.c.feed_generation, is_here, since)
        found = (_readable(_tenant, row, "tenant", row.tenant_id) for row in connection.execute(statement))
        return dict(pair for pair in found if pair is not None)

    def _rollouts(
        self, connection: Connection, since: int | None, changed: Sequence[str]
    ) -> tuple[dict[PointerRef, Rollout | None], frozenset[PointerRef]]:
        pointers: dict[tuple[str, str, str], _Pointer] = {}
        taken_bytes: Counter[str] = Counter()
        if since is None:
            connection.exec_driver_sql(f"SET LOCAL statement_timeout = '{_SNAPSHOT_TIMEOUT}'")
            reading = self._snapshot.rows(connection)
        else:
            reading = self._delta.rows(connection, since=since, changed=changed)
        with reading as rows:
            for row in rows:
                size = long_bytes(row.signature, row.self_test, row.modules, row.compiled)
                is_too_much = size > 0 and taken_bytes[row.of] + size > MAX_TENANT_BYTES
                taken_bytes[row.of] += 0 if is_too_much else size
                key = (row.of, row.model, row.environment)
                if (pointer := pointers.get(key)) is None:
                    names = (row.stable, row.canary, row.shadow)
                    pointer = pointers[key] = _Pointer(row.generation, names, row.canary_percent, row.canary_sticky, {})
                if row.version is not None:
                    pointer.versions[row.version] = _version(row, is_too_much=is_too_much)
        rollouts: dict[PointerRef, Rollout | None] = {}
        unreadable: set[PointerRef] = set()
        for key, pointer in pointers.items():
            ref = _readable(_pointer_ref, key, "environment", "/".join(key))
            if ref is None:
                continue  # no pointer of this release can have such a name
            if pointer.names[0] is None:
                rollouts[ref] = None
            elif (rollout := pointer.rollout()) is None:
                unreadable.add(ref)
            else:
                rollouts[ref] = rollout
        return rollouts, frozenset(unreadable)

    def _versions(self, since: sa.ColumnElement[int] | None) -> AnySelect:
        """A row for each version that a pointer names; for one that names none a row without a version."""
        pointer = environments.c
        names = (pointer.version, pointer.canary_version, pointer.shadow_version)
        of_pointer = (versions.c.tenant_id == pointer.tenant_id, versions.c.model_id == pointer.model_id)
        of_model = (models.c.tenant_id == pointer.tenant_id, models.c.model_id == pointer.model_id)
        # One join for all three: a delta takes as long to be planned as to be read.
        joined = environments.join(versions, sa.and_(*of_pointer, versions.c.version.in_(names)), isouter=True)
        statement = sa.select(
            pointer.tenant_id.label("of"),
            pointer.model_id.label("model"),
            pointer.environment,
            pointer.generation,
            *(name.label(label) for name, label in zip(names, _PARTS, strict=True)),
            pointer.canary_percent,
            pointer.canary_sticky,
            *SERVABLE_COLUMNS,
        ).select_from(joined.join(models, sa.and_(*of_model)))
        statement = statement.where(self._is_followed(pointer.tenant_id))
        is_live = sa.and_(pointer.version.is_not(None), sa.not_(_OF_DELETED_TENANT))
        is_new = sa.and_(pointer.tenant_id == sa.any_(_CHANGED), sa.not_(_OF_DELETED_TENANT))
        return _restrict(statement, pointer.feed_generation, is_live, since, is_new)

    def _keys(
        self, connection: Connection, since: int | None, changed: Sequence[str]
    ) -> dict[KeyRef, KeyRecord | None]:
        of_tenant = api_keys.c.tenant_id
        joined = api_keys.join(tenants, tenants.c.tenant_id == of_tenant)
        statement = sa.select(api_keys, tenants.c.deleted_at).select_from(joined).where(self._is_followed(of_tenant))
        is_live = sa.and_(api_keys.c.revoked_at.is_(None), tenants.c.deleted_at.is_(None))
        statement = _restrict(statement, api_keys.c.feed_generation, is_live, since, of_tenant.in_(changed))
        return {
            KeyRef(row.tenant_id, row.key_id): _readable(_key, row, "key", row.key_id)
            for row in connection.execute(statement)
        }

    def servable(self, ref: VersionRef) -> ServableVersion:
        """A version that no pointer need name, such as one that a request asked for by its name.

        Raises:
            ModelNotFoundError: There is no such version, or it is archived.
            ModelLoadError: Its row can't be read.
        """
        statement = SELECT_SERVABLE.where(is_version(ref.tenant_id, ref.model_id, ref.version))
        with self._db.serving() as connection:
            row = connection.execute(statement).one_or_none()
        if row is None or row.is_archived:
            raise not_shown(row, ref.tenant_id, ref.model_id, ref.version)
        found = _readable(servable_from, row, "version", str(ref))
        if found is None:
            raise ModelLoadError(
                f"What the registry says of {ref} can't be read.",
                remedy="Use another version, or train and register the model again.",
                tenant_id=ref.tenant_id,
                model_id=ref.model_id,
                version=ref.version,
            )
        return packed_from(row)  # readers keep it for a while, and its documents may have megabytes


class KeyWatch:
    """Notices that a key or a tenant has changed, for one reader."""

    def __init__(self) -> None:
        self._clock: tuple[object, int] | None = None

    def has_changed(self, connection: Connection) -> bool:
        """Whether a key or a tenant was created, changed or deleted since the last call; true at the first call.

        One query if the clock has not moved, else two.

        Args:
            connection: In a transaction of the serving plane (``DatabaseConnection.serving``).
        """
        epoch, generation = connection.execute(_CLOCK).one()
        known, self._clock = self._clock, (epoch, generation)
        if known is None or known[0] != epoch:
            return True
        return generation != known[1] and bool(connection.scalar(_IS_ANY_STAMPED, {"since": known[1]}))


_CLOCK = sa.select(feed_clock.c.epoch, feed_clock.c.generation)
_QUOTA_COLUMNS = [column for column in prediction_quotas.c if column.name != "tenant_id"]
_SINCE = sa.bindparam("since", type_=sa.BigInteger)
_CHANGED = sa.bindparam("changed", type_=sa.ARRAY(sa.Text))


def _is_any_newer(stamp: sa.Column[int]) -> sa.ColumnElement[bool]:
    # Not EXISTS, whose plan for any generation would read the table from its beginning: it would expect a row soon.
    newest = sa.select(stamp).where(stamp > _SINCE).order_by(stamp.desc()).limit(sa.literal_column("1"))
    return newest.scalar_subquery().is_not(None)


_IS_STAMPED = [_is_any_newer(table.c.feed_generation) for table in (tenants, api_keys)]
_IS_ANY_STAMPED = sa.select(sa.or_(*_IS_STAMPED))


def renew_epoch(connection: Connection) -> None:
    """Tell all readers that generations begin anew: after a restore they count other changes.

    Args:
        connection: In a transaction of the owner or a superuser.
    """
    connection.execute(feed_clock.update().values(epoch=sa.func.gen_random_uuid()))


def _restrict(
    statement: AnySelect,
    stamp: sa.ColumnElement[int],
    is_live: sa.ColumnElement[bool],
    since: int | sa.ColumnElement[int] | None,
    is_new: sa.ColumnElement[bool] = _NOTHING,
) -> AnySelect:
    """A snapshot names what there is; a delta also what is gone, as far as it changed or is new to the cell."""
    return statement.where(is_live if since is None else sa.or_(stamp > since, is_new))


def _readable(read: Callable[[_Row], _Value], row: _Row, kind: str, name: str) -> _Value | None:
    """What a row says, or None with a warning if it can't be read."""
    try:
        return read(row)
    except UNREADABLE as error:
        reason = f"{type(error).__name__}: {error}"
        _log.warning("The registry's row of the %s %r can't be read and is skipped (%r).", kind, name, reason)
        return None


class _Policies(NamedTuple):
    """The policy of a tenant's prediction log, and its quota; None: it has none of its own."""

    log: PredictionPolicy
    quota: PredictionQuota | None


def _tenant(row: AnyRow) -> tuple[TenantId, _Policies | None]:
    if not row.is_here:
        return TenantId(row.tenant_id), None
    quota = None if row.weight is None else value_of(PredictionQuota, row)
    return TenantId(row.tenant_id), _Policies(PredictionPolicy(row.prediction_policy), quota)


def _live_replicas(cell: str) -> sa.ScalarSelect[int]:
    is_live = sa.and_(replica_reports.c.cell == cell, replica_reports.c.expires_at > sa.func.now())
    return sa.select(sa.func.count()).select_from(replica_reports).where(is_live).scalar_subquery()


_PARTS = ("stable", "canary", "shadow")


class _Pointer(NamedTuple):
    """What a pointer names: its parts in the order of ``_PARTS``, and name → version, or None if it can't be read."""

    generation: int
    names: tuple[str | None, str | None, str | None]
    canary_percent: int | None
    canary_sticky: str | None
    versions: dict[str, ServableVersion | None]

    def rollout(self) -> Rollout | None:
        """What it serves. Without a canary or a shadow that can't be read it can do; None without a stable version."""
        stable, canary, shadow = (None if name is None else self.versions.get(name) for name in self.names)
        if stable is None:
            return None
        found = zip(_PARTS, self.names, (stable, canary, shadow), strict=True)
        return Rollout(
            stable,
            self.generation,
            None if canary is None else CanaryRollout(canary, self.canary_percent or 0, self.canary_sticky),
            shadow,
            unreadable=tuple(part for part, name, version in found if name is not None and version is None),
        )


def _version(row: AnyRow, *, is_too_much: bool) -> ServableVersion | None:
    name = f"{row.of}/{row.model}:{row.environment}"
    if is_too_much:
        _log.warning("The tenant of %s has more than %d bytes of documents; it is skipped.", name, MAX_TENANT_BYTES)
        return None
    return _readable(packed_from, row, f"version {row.version} that is served by", name)


def _pointer_ref(key: tuple[str, str, str]) -> PointerRef:
    return PointerRef(*name_parts(key[0], key[1]), _environment_name(key[2]))


_environment_name = lru_cache(maxsize=256)(EnvironmentName)


def _key(row: AnyRow) -> KeyRecord | None:
    if row.revoked_at is not None or row.deleted_at is not None:
        return None
    return KeyRecord(row.key_id, TenantId(row.tenant_id), row.salt, row.hash, Grant.read(row.scopes).scopes)
