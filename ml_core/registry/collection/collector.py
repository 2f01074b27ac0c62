"""Collecting: the plan of a tenant is made, and then removed item by item.

A plan may be an hour old, so each item is checked again, under locks, before it is removed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables import dataset_versions, models, versions
from ml_core.domain.retention import is_due
from ml_core.exceptions import MLFrameworkError, ModelNotFoundError, VersionInUseError
from ml_core.ids import Digest, ModelId, TenantId, VersionId
from ml_core.models.store import ArtifactStore
from ml_core.registry import journal
from ml_core.registry.blobs import claim_bytes, lock_digest
from ml_core.registry.collection.planner import HIDDEN_SINCE, Item, Kind, Plan, Planner, Policy
from ml_core.registry.collection.tenant_deletion import TenantDeletion
from ml_core.registry.idempotency import IdempotencyRepository
from ml_core.registry.journal import erase
from ml_core.registry.references import SHOWN, dataset_references, references
from ml_core.registry.tenants import tenant_ids
from ml_core.registry.versions.models import lock_model
from ml_core.registry.versions.registration import remove
from ml_core.registry.versions.rows import VERSIONS_WITH_MODEL, is_version


class Status(StrEnum):
    """What became of an item."""

    COLLECTED = "collected"
    SKIPPED = "skipped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an item. ``freed_bytes`` is what went from the store; ``reason`` why it was skipped or failed."""

    item: Item
    status: Status
    freed_bytes: int = 0
    reason: str | None = None

    def describe(self) -> dict[str, Any]:
        """As data for a table or JSON."""
        done = {"status": self.status, "freed_bytes": self.freed_bytes, "reason": self.reason}
        return {**self.item.describe(), **done}


@dataclass(frozen=True, slots=True)
class Report:
    """What a collection of a tenant did."""

    tenant_id: TenantId
    outcomes: Sequence[Outcome] = field(default_factory=tuple)

    @property
    def freed_bytes(self) -> int:
        """What it freed in the artifact store."""
        return sum(outcome.freed_bytes for outcome in self.outcomes)

    @property
    def is_complete(self) -> bool:
        """Whether nothing failed."""
        return all(outcome.status is not Status.FAILED for outcome in self.outcomes)


class _NotNow(Exception):  # noqa: N818 - not an error: it never leaves this module
    """Why an item is not removed after all."""


class Collector(Planner):
    """A planner that collects what it plans, tenant by tenant."""

    def __init__(self, db: DatabaseConnection, store: ArtifactStore, policy: Policy | None = None) -> None:
        super().__init__(db, store, policy)
        self._deletion = TenantDeletion(db, store)
        self._collect: dict[Kind, Callable[[Item], int]] = {
            Kind.VERSION: self._version,
            Kind.MODEL: self._model,
            Kind.DATASET_VERSION: self._dataset_version,
            Kind.ARTIFACT: self._artifact,
            Kind.TEMPORARY: self._stray,
            Kind.IDEMPOTENCY_KEYS: self._idempotency_keys,
            Kind.TENANT: self._tenant,
        }

    def tenants(self) -> Iterator[TenantId]:
        """Every tenant, page by page, then the deleted ones of which something is left."""
        yield from tenant_ids(self._db)
        in_store, deletion = set(self._store.tenants()), self._deletion
        for tenant_id in tenant_ids(self._db, deleted=True):
            if tenant_id in in_store or deletion.has_checkpoints(tenant_id) or deletion.has_rows(tenant_id):
                yield tenant_id

    def collect(self, plan: Plan) -> Report:
        """Remove what a plan names, unless something needs it by now. A failure does not stop the rest."""
        return Report(plan.tenant_id, [self._apply(item) for item in plan.items])

    def _apply(self, item: Item) -> Outcome:
        """Remove an item, unless something needs it by now. An error of the disk or registry fails this item only."""
        try:
            freed = self._collect[item.kind](item)
        except _NotNow as reason:
            return Outcome(item, Status.SKIPPED, reason=str(reason))
        except (VersionInUseError, ModelNotFoundError) as reason:
            return Outcome(item, Status.SKIPPED, reason=reason.message)
        except MLFrameworkError as error:
            return Outcome(item, Status.FAILED, reason=str(error))
        return Outcome(item, Status.COLLECTED, freed)

    def _version(self, item: Item) -> int:
        model_id, version = ModelId(item.key[0]), VersionId(item.key[1])
        hidden = sa.select(HIDDEN_SINCE.label("since"), sa.func.now().label("now")).select_from(VERSIONS_WITH_MODEL)
        mine = hidden.where(is_version(item.tenant_id, model_id, version))
        with journal.writing(self._db, item.tenant_id) as connection:
            lock_model(connection, item.tenant_id, model_id)
            row = connection.execute(mine).one_or_none()
            if row is None:
                raise _NotNow("it was deleted meanwhile")
            if not is_due(row.since, row.now, self._policy.retention):
                raise _NotNow("it was restored meanwhile")
            if users := references(connection, item.tenant_id, [model_id], version):
                raise _NotNow(f"it is needed by {', '.join(map(str, users))}")
            digest, *_ = remove(connection, item.tenant_id, model_id, version)
            subject = {"model_id": model_id, "version": version}
            journal.record(connection, item.tenant_id, "version.collected", subject, {"digest": digest})
        return 0

    def _model(self, item: Item) -> int:
        model_id = ModelId(item.key[0])
        mine = {"tenant_id": item.tenant_id, "model_id": model_id}
        left = sa.select(versions).filter_by(**mine).exists()
        due = models.c.archived_at <= sa.func.now() - self._policy.retention
        deleted = models.update().filter_by(**mine).where(due, ~left).values(deleted_at=sa.func.now())
        with journal.writing(self._db, item.tenant_id) as connection:
            lock_model(connection, item.tenant_id, model_id)
            if connection.execute(deleted).rowcount == 0:
                raise _NotNow("it was restored or has a version")
            journal.record(connection, item.tenant_id, "model.collected", {"model_id": model_id})
        return 0

    def _dataset_version(self, item: Item) -> int:
        dataset_id, number = item.key
        of = dataset_versions.c
        mine = sa.and_(of.tenant_id == item.tenant_id, of.dataset_id == dataset_id, of.number == number)
        due = of.archived_at <= sa.func.now() - self._policy.retention
        with journal.writing(self._db, item.tenant_id) as connection:
            digest = connection.scalar(sa.select(of.digest).where(mine))
            if digest is None:
                raise _NotNow("it was deleted meanwhile")
            lock_digest(connection, item.tenant_id, digest, shared=False)  # the registration of a version of it waits
            users = dataset_references(connection, item.tenant_id, [digest], [dataset_id])
            if needed_by := (*users.get(digest, ()), *users.get((dataset_id, number), ())):
                raise _NotNow(f"it is needed by {', '.join(needed_by[:SHOWN])}")
            if connection.scalar(sa.select(of.number).where(mine, due).with_for_update()) is None:
                raise _NotNow("it was restored meanwhile")
            erase(connection, dataset_versions, dataset_id=dataset_id, number=number)
            subject = {"dataset_id": dataset_id, "number": number}
            journal.record(connection, item.tenant_id, "dataset.version_collected", subject, {"digest": digest})
        return 0

    def _artifact(self, item: Item) -> int:
        digest: Digest = item.key[0]
        with claim_bytes(self._db, item.tenant_id, digest) as is_unused:
            if not is_unused:
                raise _NotNow("a row or a running backup needs it")
            if not self._store.exists(item.tenant_id, digest):
                raise _NotNow("it was removed already")
            self._store.delete(item.tenant_id, digest)
        return item.size_bytes

    def _stray(self, item: Item) -> int:
        self._store.delete_stray(item.tenant_id, item.key[0])
        return item.size_bytes

    def _idempotency_keys(self, item: Item) -> int:
        IdempotencyRepository(self._db, item.tenant_id).prune()
        return 0

    def _tenant(self, item: Item) -> int:
        report = self._deletion.delete(item.tenant_id)
        return report.artifacts.bytes + report.checkpoints.bytes
