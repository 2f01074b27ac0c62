"""The plan of a collection: what of a tenant may go, and why. It reads and changes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables import dataset_versions, models, versions
from ml_core.domain.lifecycle import without_needed_parents
from ml_core.ids import Digest, TenantId
from ml_core.models.store import ArtifactStore
from ml_core.models.store.base import TEMPORARY_PREFIX
from ml_core.registry.blobs import count_holders
from ml_core.registry.collection.needs import children_of_models, needs_of_models, trained_on
from ml_core.registry.collection.values import Item, Kept, Kind, Plan, Policy
from ml_core.registry.idempotency import count_old
from ml_core.registry.versions.rows import VERSIONS_WITH_MODEL

if TYPE_CHECKING:
    from ml_core.registry.versions.rows import AnyRow

BATCH = 1_000
"""Digests asked for in one query."""

# LEAST passes over nulls: hidden since the version was archived, or since its model was, whichever came first.
HIDDEN_SINCE = sa.func.least(versions.c.archived_at, models.c.archived_at)


@dataclass(slots=True)
class _Rows:
    """Rows that go and rows that stay, and how many of those that go need which bytes."""

    items: list[Item] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)
    digests: Counter[str] = field(default_factory=Counter)
    versions: set[tuple[str, str]] = field(default_factory=set)


class Planner:
    """Plans collections.

    Args:
        db: The registry.
        store: The platform's artifact store.
        policy: How long what nobody needs is kept.
    """

    def __init__(self, db: DatabaseConnection, store: ArtifactStore, policy: Policy) -> None:
        self._db = db
        self._store = store
        self._policy = policy

    def plan(self, tenant_id: TenantId) -> Plan:
        """What of a tenant may go now: rows first, then the bytes that nothing needs without them.

        Memory grows with what may go, not with what the tenant has.

        Raises:
            ModelLoadError: The artifact store can't be listed.
            RegistryUnavailableError: Postgres can't be reached.
        """
        rows = _Rows()
        with self._db.tenant(tenant_id) as connection:
            self._plan_versions(connection, tenant_id, rows)
            self._plan_datasets(connection, tenant_id, rows)
            old_keys = count_old(connection, tenant_id)
        items = [*rows.items, *self._artifacts(tenant_id, rows.digests), *self._temporary(tenant_id)]
        if old_keys:
            items.append(Item(tenant_id, Kind.IDEMPOTENCY_KEYS, f"{old_keys} keys", "older than a day"))
        return Plan(tenant_id, items, rows.kept)

    def _plan_versions(self, connection: Connection, tenant_id: TenantId, rows: _Rows) -> None:
        due: dict[str, dict[str, AnyRow]] = {}
        for row in self._due_versions(connection, tenant_id):
            due.setdefault(row.model_id, {})[row.version] = row
        needs = needs_of_models(connection, tenant_id, due) if due else {}
        children = children_of_models(connection, tenant_id, due) if due else {}
        for model_id, of_model in due.items():
            edges = children.get(model_id, [])
            free = {name: row.number for name, row in of_model.items() if (model_id, name) not in needs}
            going = dict.fromkeys(without_needed_parents(free, edges))
            for name in going:
                rows.items.append(_version_item(tenant_id, of_model[name]))
                rows.digests[of_model[name].digest] += 1
                rows.versions.add((model_id, name))
            why = {name: list(needs.get((model_id, name), ())) for name in of_model if name not in going}
            for parent, child in edges:
                if parent in why and child not in going:
                    why[parent].append(f"version:{child}")
            rows.kept += [Kept(tenant_id, Kind.VERSION, f"{model_id}@{name}", tuple(why[name])) for name in why]
        rows.items += self._empty_models(connection, tenant_id, rows.versions)

    def _due_versions(self, connection: Connection, tenant_id: TenantId) -> Sequence[AnyRow]:
        wanted = (versions.c.model_id, versions.c.version, versions.c.number, versions.c.digest)
        statement = (
            sa.select(*wanted, HIDDEN_SINCE.label("hidden_since"))
            .select_from(VERSIONS_WITH_MODEL)
            .where(versions.c.tenant_id == tenant_id, sa.func.now() - self._policy.retention >= HIDDEN_SINCE)
            .order_by(versions.c.model_id, versions.c.number)
        )
        return connection.execute(statement).all()

    def _empty_models(
        self, connection: Connection, tenant_id: TenantId, going: Iterable[tuple[str, str]]
    ) -> Iterator[Item]:
        """Models archived for the whole retention of which no version is left."""
        count = (
            sa.select(sa.func.count())
            .select_from(versions)
            .where(versions.c.tenant_id == models.c.tenant_id, versions.c.model_id == models.c.model_id)
            .scalar_subquery()
        )
        statement = sa.select(models.c.model_id, models.c.archived_at, count.label("versions")).where(
            models.c.tenant_id == tenant_id,
            models.c.deleted_at.is_(None),
            models.c.archived_at <= sa.func.now() - self._policy.retention,
        )
        leaving = Counter(model_id for model_id, _ in going)
        for row in connection.execute(statement.order_by(models.c.model_id)):
            if row.versions == leaving[row.model_id]:
                why = f"archived {_day(row.archived_at)}, without a version"
                yield Item(tenant_id, Kind.MODEL, row.model_id, why, key=(row.model_id,))

    def _plan_datasets(self, connection: Connection, tenant_id: TenantId, rows: _Rows) -> None:
        of = dataset_versions.c
        statement = (
            sa.select(of.dataset_id, of.number, of.digest, of.archived_at)
            .where(of.tenant_id == tenant_id, of.archived_at <= sa.func.now() - self._policy.retention)
            .order_by(of.dataset_id, of.number)
        )
        for due in _batches(connection.execute(statement).all()):
            users: dict[str, list[str]] = {}
            for digest, model_id, version in trained_on(connection, tenant_id, {row.digest for row in due}):
                if (model_id, version) not in rows.versions:
                    users.setdefault(digest, []).append(f"version:{model_id}@{version}")
            for row in due:
                name = f"{row.dataset_id}@{row.number}"
                if needed_by := users.get(row.digest):
                    rows.kept.append(Kept(tenant_id, Kind.DATASET_VERSION, name, tuple(needed_by)))
                    continue
                why = f"archived {_day(row.archived_at)}"
                key = (row.dataset_id, row.number)
                rows.items.append(Item(tenant_id, Kind.DATASET_VERSION, name, why, key=key))
                rows.digests[row.digest] += 1

    def _artifacts(self, tenant_id: TenantId, going: Counter[str]) -> Iterator[Item]:
        """Bytes that no row will need, by one walk over what the store has; sizes are those found there."""
        oldest = datetime.now(UTC) - self._policy.grace
        for blobs in _batches(self._store.list(tenant_id)):
            with self._db.tenant(tenant_id) as connection:
                holders = count_holders(connection, tenant_id, [blob.digest for blob in blobs])
            for blob in blobs:
                rows = holders.get(blob.digest, 0)
                if rows > going[blob.digest] or (rows == 0 and blob.modified_at > oldest):
                    continue
                why = "no row needs it any more" if rows else f"nothing refers to it; stored {_day(blob.modified_at)}"
                yield Item(tenant_id, Kind.ARTIFACT, blob.digest, why, blob.size_bytes, (Digest(blob.digest),))

    def _temporary(self, tenant_id: TenantId) -> Iterator[Item]:
        """What killed processes left half-written. A foreign file is not ours to remove: ``fsck`` reports it."""
        oldest = datetime.now(UTC) - self._policy.grace
        for stray in self._store.strays(tenant_id):
            if stray.name.rpartition("/")[2].startswith(TEMPORARY_PREFIX) and stray.modified_at <= oldest:
                why = f"half-written {_day(stray.modified_at)}"
                yield Item(tenant_id, Kind.TEMPORARY, stray.name, why, stray.size_bytes, (stray,))


def _version_item(tenant_id: TenantId, row: AnyRow) -> Item:
    why = f"archived {_day(row.hidden_since)}"
    name = f"{row.model_id}@{row.version}"
    return Item(tenant_id, Kind.VERSION, name, why, key=(row.model_id, row.version))


def _day(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d")


def _batches(items: Iterable[Any]) -> Iterator[list[Any]]:
    iterator = iter(items)
    while batch := list(islice(iterator, BATCH)):
        yield batch
