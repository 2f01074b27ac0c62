"""The plan of a collection as values, and the planner: what of a tenant may be removed, and why. It changes nothing.

A version is needed by an environment that serves it (stable, canary or shadow), by an environment whose rollback would
serve it, by a hold, and by a version that was made from it and stays. Older moves of a history keep nothing: they name
versions and digests, and stay true without the bytes. A dataset version is needed by every version that was trained on
its bytes and stays, and by gates. ``ml_core.registry.references`` lists these roles.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables import dataset_versions, models, versions
from ml_core.domain.retention import without_needed_parents
from ml_core.ids import Digest, TenantId
from ml_core.models.store import ArtifactStore, Stray
from ml_core.models.store.base import TEMPORARY_PREFIX
from ml_core.registry.blobs import count_holders
from ml_core.registry.idempotency import count_old
from ml_core.registry.references import Reference, dataset_references, references
from ml_core.registry.tenants import TenantRepository
from ml_core.registry.versions.rows import VERSIONS_WITH_MODEL
from ml_core.settings import CollectionSettings

if TYPE_CHECKING:
    from ml_core.registry.pages import AnyRow

BATCH = 1_000
"""Digests in one query."""

# LEAST ignores nulls: hidden since the version was archived, or since its model was, whichever came first.
HIDDEN_SINCE = sa.func.least(versions.c.archived_at, models.c.archived_at)


class Kind(StrEnum):
    """What an item is."""

    VERSION = "version"
    MODEL = "model"
    DATASET_VERSION = "dataset_version"
    ARTIFACT = "artifact"
    TEMPORARY = "temporary"
    IDEMPOTENCY_KEYS = "idempotency_keys"
    TENANT = "tenant"


@dataclass(frozen=True, slots=True)
class Policy:
    """How long unneeded data is kept.

    Attributes:
        retention: How long a version or dataset stays archived before it is collected.
        grace: How long bytes that nothing refers to are left alone: their row may be about to be written.
    """

    retention: timedelta
    grace: timedelta

    @classmethod
    def of(cls, settings: CollectionSettings) -> Policy:
        """The policy of the settings."""
        return cls(timedelta(days=settings.retention_days), timedelta(seconds=settings.grace_s))


@dataclass(frozen=True, slots=True)
class Item:
    """Something that may be removed.

    Attributes:
        tenant_id: The tenant.
        kind: What it is.
        name: Its name, for people.
        why: Why it may be removed.
        size_bytes: What its removal frees in the artifact store; 0 for a row.
        key: What selects it.
    """

    tenant_id: TenantId
    kind: Kind
    name: str
    why: str
    size_bytes: int = 0
    key: tuple[Any, ...] = ()

    def describe(self) -> dict[str, Any]:
        """As data for a table or JSON."""
        return {name: getattr(self, name) for name in ("tenant_id", "kind", "name", "why", "size_bytes")}


@dataclass(frozen=True, slots=True)
class Kept:
    """A version or dataset that is old enough to be removed, and what needs it, such as ``hold:legal``."""

    tenant_id: TenantId
    kind: Kind
    name: str
    needed_by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a collection of a tenant would remove, in this order, and what it would keep although it is old enough."""

    tenant_id: TenantId
    items: Sequence[Item] = ()
    kept: Sequence[Kept] = ()

    @property
    def size_bytes(self) -> int:
        """What it would free."""
        return sum(item.size_bytes for item in self.items)


@dataclass(slots=True)
class _Rows:
    """Rows to remove and rows to keep: which versions go, how many of each model, and how many rows of each digest."""

    items: list[Item] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)
    versions: set[str] = field(default_factory=set)
    models: Counter[str] = field(default_factory=Counter)
    digests: Counter[str] = field(default_factory=Counter)


class Planner:
    """Plans collections.

    Args:
        db: The registry.
        store: The platform's artifact store.
        policy: How long unneeded data is kept; None: as the settings say.
    """

    def __init__(self, db: DatabaseConnection, store: ArtifactStore, policy: Policy | None = None) -> None:
        self._db = db
        self._store = store
        self._policy = policy or Policy.of(db.settings.collection)

    def plan(self, tenant_id: TenantId) -> Plan:
        """What of a tenant may be removed now: rows first, then the bytes that nothing else needs; all if deleted.

        Memory grows with what may be removed, not with what the tenant has.

        Raises:
            ModelLoadError: The artifact store can't be listed.
        """
        tenant = TenantRepository(self._db).find(tenant_id)
        if tenant is not None and tenant.is_deleted:
            return Plan(tenant_id, [Item(tenant_id, Kind.TENANT, tenant_id, "deleted; all that is left of it")])
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
        needs: dict[tuple[str, str], list[Reference]] = {}
        for each in references(connection, tenant_id, due) if due else ():
            needs.setdefault((each.model_id, each.version), []).append(each)
        for model_id, of_model in due.items():
            needed = {name: needs.get((model_id, name), []) for name in of_model}
            free = {name: of_model[name].number for name, of in needed.items() if all(each.is_child for each in of)}
            edges = [(name, each.holder) for name, of in needed.items() for each in of if each.is_child]
            going = dict.fromkeys(without_needed_parents(free, edges))
            for name in going:
                why = f"archived {_day(of_model[name].hidden_since)}"
                rows.items.append(Item(tenant_id, Kind.VERSION, f"{model_id}@{name}", why, key=(model_id, name)))
                rows.digests.update(filter(None, (of_model[name].digest, of_model[name].compiled_digest)))
                rows.versions.add(f"version:{model_id}@{name}")
            rows.models[model_id] = len(going)
            rows.kept += [
                Kept(
                    tenant_id,
                    Kind.VERSION,
                    f"{model_id}@{name}",
                    tuple(str(each) for each in of if not (each.is_child and each.holder in going)),
                )
                for name, of in needed.items()
                if name not in going
            ]
        rows.items += self._empty_models(connection, tenant_id, rows.models)

    def _due_versions(self, connection: Connection, tenant_id: TenantId) -> Sequence[AnyRow]:
        of = versions.c
        wanted = (of.model_id, of.version, of.number, of.digest, of.compiled_digest)
        statement = (
            sa.select(*wanted, HIDDEN_SINCE.label("hidden_since"))
            .select_from(VERSIONS_WITH_MODEL)
            .where(versions.c.tenant_id == tenant_id, sa.func.now() - self._policy.retention >= HIDDEN_SINCE)
            .order_by(versions.c.model_id, versions.c.number)
        )
        return connection.execute(statement).all()

    def _empty_models(self, connection: Connection, tenant_id: TenantId, going: Counter[str]) -> Iterator[Item]:
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
        for row in connection.execute(statement.order_by(models.c.model_id)):
            if row.versions == going[row.model_id]:
                why = f"archived {_day(row.archived_at)}, without a version"
                yield Item(tenant_id, Kind.MODEL, row.model_id, why, key=(row.model_id,))

    def _plan_datasets(self, connection: Connection, tenant_id: TenantId, rows: _Rows) -> None:
        of = dataset_versions.c
        statement = (
            sa.select(of.dataset_id, of.number, of.digest, of.archived_at)
            .where(of.tenant_id == tenant_id, of.archived_at <= sa.func.now() - self._policy.retention)
            .order_by(of.dataset_id, of.number)
        )
        for due in batches(connection.execute(statement).all()):
            digests, dataset_ids = {row.digest for row in due}, {row.dataset_id for row in due}
            users = dataset_references(connection, tenant_id, digests, dataset_ids)
            for row in due:
                name, key = f"{row.dataset_id}@{row.number}", (row.dataset_id, row.number)
                needed_by = (*users.get(row.digest, ()), *users.get(key, ()))
                if staying := tuple(user for user in needed_by if user not in rows.versions):
                    rows.kept.append(Kept(tenant_id, Kind.DATASET_VERSION, name, staying))
                    continue
                why = f"archived {_day(row.archived_at)}"
                rows.items.append(Item(tenant_id, Kind.DATASET_VERSION, name, why, key=key))
                rows.digests[row.digest] += 1

    def _artifacts(self, tenant_id: TenantId, going: Counter[str]) -> Iterator[Item]:
        """Bytes that no row will need, by one walk over the store; sizes are those found there."""
        oldest = datetime.now(UTC) - self._policy.grace
        for blobs in batches(self._store.list(tenant_id)):
            with self._db.tenant(tenant_id) as connection:
                holders = count_holders(connection, tenant_id, [blob.digest for blob in blobs])
            for blob in blobs:
                rows = holders.get(blob.digest, 0)
                if rows > going[blob.digest] or (rows == 0 and blob.modified_at > oldest):
                    continue
                why = "no row needs it any more" if rows else f"nothing refers to it; stored {_day(blob.modified_at)}"
                yield Item(tenant_id, Kind.ARTIFACT, blob.digest, why, blob.size_bytes, (Digest(blob.digest),))

    def _temporary(self, tenant_id: TenantId) -> Iterator[Item]:
        """Half-written files of killed processes. Foreign files are not removed: ``fsck`` reports them."""
        oldest = datetime.now(UTC) - self._policy.grace
        for stray in self._store.strays(tenant_id):
            if is_temporary(stray) and stray.modified_at <= oldest:
                why = f"half-written {_day(stray.modified_at)}"
                yield Item(tenant_id, Kind.TEMPORARY, stray.name, why, stray.size_bytes, (stray,))


def _day(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d")


def is_temporary(stray: Stray) -> bool:
    """Whether a file was being written by the store when its process was killed."""
    return stray.name.rpartition("/")[2].startswith(TEMPORARY_PREFIX)


def batches(items: Iterable[Any], size: int = BATCH) -> Iterator[list[Any]]:
    """Items in lists of at most so many."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
