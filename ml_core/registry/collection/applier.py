"""Collecting one item of a plan: it is asked about again, under locks, before it goes. The plan may be an hour old."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables import dataset_versions, models, versions
from ml_core.domain.lifecycle import VersionTrigger, advance, is_due, state_of
from ml_core.exceptions import InvalidTransitionError, MLFrameworkError, ModelNotFoundError, VersionInUseError
from ml_core.ids import Digest, ModelId, VersionId
from ml_core.models.store import ArtifactStore
from ml_core.registry import journal
from ml_core.registry.blobs import claim_bytes, lock_digest
from ml_core.registry.collection.needs import refuse_if_needed, trained_on
from ml_core.registry.collection.planner import HIDDEN_SINCE
from ml_core.registry.collection.values import Item, Kind, Outcome, Policy, Status
from ml_core.registry.erasure import erase
from ml_core.registry.idempotency import IdempotencyRepository
from ml_core.registry.versions.models import lock_model
from ml_core.registry.versions.rows import VERSIONS_WITH_MODEL
from ml_core.registry.versions.tombstones import remove


class _NotNow(Exception):  # noqa: N818 - not an error: it never leaves this module
    """Why an item does not go after all."""


class Applier:
    """Removes what a plan names, one item at a time.

    Args:
        db: The registry.
        store: The platform's artifact store.
        policy: The one that the plan was made with.
    """

    def __init__(self, db: DatabaseConnection, store: ArtifactStore, policy: Policy) -> None:
        self._db = db
        self._store = store
        self._policy = policy
        self._collect: dict[Kind, Callable[[Item], int]] = {
            Kind.VERSION: self._version,
            Kind.MODEL: self._model,
            Kind.DATASET_VERSION: self._dataset_version,
            Kind.ARTIFACT: self._artifact,
            Kind.TEMPORARY: self._temporary,
            Kind.IDEMPOTENCY_KEYS: self._idempotency_keys,
        }

    def apply(self, item: Item) -> Outcome:
        """Remove an item, unless something needs it by now.

        A disk that refuses, or a registry that can't be reached, fails this item and no other.
        """
        try:
            freed = self._collect[item.kind](item)
        except _NotNow as reason:
            return Outcome(item, Status.SKIPPED, reason=str(reason))
        except (VersionInUseError, ModelNotFoundError, InvalidTransitionError) as reason:
            return Outcome(item, Status.SKIPPED, reason=reason.message)
        except MLFrameworkError as error:
            return Outcome(item, Status.FAILED, reason=str(error))
        return Outcome(item, Status.COLLECTED, freed)

    def _version(self, item: Item) -> int:
        model_id, version = ModelId(item.key[0]), VersionId(item.key[1])
        mine = (versions.c.tenant_id == item.tenant_id, versions.c.model_id == model_id, versions.c.version == version)
        hidden = sa.select(HIDDEN_SINCE.label("since"), sa.func.now().label("now"))
        with journal.writing(self._db, item.tenant_id) as connection:
            lock_model(connection, item.tenant_id, model_id)
            row = connection.execute(hidden.select_from(VERSIONS_WITH_MODEL).where(*mine)).one_or_none()
            if row is None:
                raise _NotNow("it was deleted meanwhile")
            advance(state_of(row.since), VersionTrigger.COLLECT)
            if not is_due(row.since, row.now, self._policy.retention):
                raise _NotNow("it was restored and archived again meanwhile")
            refuse_if_needed(connection, item.tenant_id, model_id, version)
            (digest,) = remove(connection, item.tenant_id, model_id, version)
            subject = {"model_id": model_id, "version": version}
            journal.record(connection, item.tenant_id, "version.collected", subject, {"digest": digest})
        return 0

    def _model(self, item: Item) -> int:
        model_id = ModelId(item.key[0])
        mine = sa.and_(models.c.tenant_id == item.tenant_id, models.c.model_id == model_id)
        left = sa.exists().where(versions.c.tenant_id == item.tenant_id, versions.c.model_id == model_id)
        due = models.c.archived_at <= sa.func.now() - self._policy.retention
        with journal.writing(self._db, item.tenant_id) as connection:
            lock_model(connection, item.tenant_id, model_id)
            gone = models.update().where(mine, due, ~left).values(deleted_at=sa.func.now())
            if connection.execute(gone).rowcount == 0:
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
            lock_digest(connection, item.tenant_id, digest, shared=False)  # whoever registers a version of it waits
            if users := trained_on(connection, item.tenant_id, [digest]):
                raise _NotNow(f"it is needed by {', '.join(f'{model}@{version}' for _, model, version in users[:10])}")
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
                raise _NotNow("it is gone already")
            self._store.delete(item.tenant_id, digest)
        return item.size_bytes

    def _temporary(self, item: Item) -> int:
        self._store.delete_stray(item.tenant_id, item.key[0])
        return item.size_bytes

    def _idempotency_keys(self, item: Item) -> int:
        IdempotencyRepository(self._db, item.tenant_id).prune()
        return 0


def describe(outcome: Outcome) -> dict[str, Any]:
    """An outcome as data for a table or JSON."""
    item = outcome.item
    return {
        **describe_item(item),
        "status": outcome.status.value,
        "freed_bytes": outcome.freed_bytes,
        "reason": outcome.reason,
    }


def describe_item(item: Item) -> dict[str, Any]:
    """An item as data for a table or JSON."""
    return {
        "tenant_id": item.tenant_id,
        "kind": item.kind.value,
        "name": item.name,
        "why": item.why,
        "size_bytes": item.size_bytes,
    }
