"""Pointers and their moves: the values, and the one transaction step that moves a pointer."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import Connection

from ml_core.database.tables import environment_history, environments, tenants, versions
from ml_core.exceptions import InvalidRequestError, PromotionConflictError
from ml_core.ids import EnvironmentName, ModelId, TenantId, VersionId
from ml_core.registry import journal
from ml_core.registry.clock import advance_feed
from ml_core.registry.missing import model_archived, model_not_found
from ml_core.registry.models import lock_model
from ml_core.registry.rows import IS_ARCHIVED, VERSIONS_WITH_MODEL

if TYPE_CHECKING:
    from ml_core.registry.rows import AnyRow


@dataclass(frozen=True, slots=True)
class Pointer:
    """Where an environment of a model points: None once withdrawn. ``generation`` counts its moves from 1."""

    tenant_id: TenantId
    model_id: ModelId
    environment: EnvironmentName
    version: VersionId | None
    generation: int
    updated_at: datetime
    updated_by: str


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One move of a pointer: what (``promote``, ``rollback``, ``withdraw``), to which version, who, why and when (UTC).

    ``restored_generation`` is the generation whose state a rollback brought back, and its own for other moves.
    """

    generation: int
    action: str
    version: VersionId | None
    digest: str | None
    actor: str
    reason: str
    at: datetime
    restored_generation: int


@dataclass(frozen=True, slots=True)
class Move:
    """A wanted move of a pointer, with what its history row says."""

    model_id: ModelId
    environment: EnvironmentName
    action: str
    version: VersionId | None
    digest: str | None
    actor: str
    reason: str
    restored_generation: int | None = None


def pointer_key(
    tenant_id: TenantId, model_id: ModelId, environment: EnvironmentName
) -> tuple[sa.ColumnElement[bool], ...]:
    """The conditions that select one pointer."""
    return (
        environments.c.tenant_id == tenant_id,
        environments.c.model_id == model_id,
        environments.c.environment == environment,
    )


def find_pointer(
    connection: Connection, tenant_id: TenantId, model_id: ModelId, environment: EnvironmentName
) -> Pointer | None:
    """Where an environment points, or None if nothing was ever promoted to it."""
    statement = sa.select(environments).where(*pointer_key(tenant_id, model_id, environment))
    row = connection.execute(statement).one_or_none()
    return None if row is None else pointer_from(row)


def move_pointer(connection: Connection, tenant_id: TenantId, move: Move, expected: int) -> Pointer:
    """Move a pointer from one generation to the next, with its history row, outbox row and feed generation.

    Raises:
        PromotionConflictError: It does not stand at the expected generation (0: it does not exist yet).
        ModelNotFoundError: The version was deleted meanwhile.
    """
    try:
        row = connection.execute(_swap(tenant_id, move, expected)).one_or_none()
    except sa.exc.IntegrityError as error:
        raise model_not_found(tenant_id, move.model_id, move.version) from error
    if row is None:
        raise _conflict(connection, tenant_id, move, expected)
    _record(connection, tenant_id, move, expected + 1)
    connection.execute(  # last: from here to the commit no other change of the cell can commit
        environments.update()
        .where(*pointer_key(tenant_id, move.model_id, move.environment))
        .values(feed_generation=advance_feed(environments.c.cell))
    )
    return pointer_from(row)


def promotable_digest(
    connection: Connection, tenant_id: TenantId, model_id: ModelId, version: VersionId, *, served: str | None = None
) -> str:
    """The digest of a version that may be served; it is neither hidden nor deleted until the transaction ends.

    Args:
        connection: In the tenant's transaction.
        tenant_id: The tenant.
        model_id: The model.
        version: The version.
        served: The digest that it had when it was served before, if it was.

    Raises:
        ModelNotFoundError: There is no such version, it is archived, or its digest is not that which was served.
        InvalidRequestError: No server can load it: it has no signature, or its artifact holds types of the caller's.
    """
    lock_model(connection, tenant_id, model_id, shared=True)
    statement = (
        sa.select(
            versions.c.digest,
            versions.c.outside_types,
            IS_ARCHIVED.label("is_archived"),
            sa.func.jsonb_array_length(versions.c.signature["inputs"]).label("inputs"),
        )
        .select_from(VERSIONS_WITH_MODEL)
        .where(versions.c.tenant_id == tenant_id, versions.c.model_id == model_id, versions.c.version == version)
    )
    row = connection.execute(statement).one_or_none()
    if served is not None and (row is None or row.digest != served):
        deleted, remedy = "was deleted since it was served", "Promote another version."
        raise model_not_found(tenant_id, model_id, version, why=deleted, remedy=remedy)
    if row is None:
        raise model_not_found(tenant_id, model_id, version)
    if row.is_archived:
        raise model_archived(tenant_id, model_id, version)
    if why_not := _unservable(row):
        what, remedy = why_not
        raise InvalidRequestError(
            f"Version {version!s} of {model_id!s} {what}.", remedy=remedy, tenant_id=tenant_id, field="version"
        )
    return str(row.digest)


def _unservable(row: AnyRow) -> tuple[str, str] | None:
    """Why no server can load a version, and what to do; None if one can."""
    if not row.inputs:
        return (
            "has no signature, so it can't be served",
            "Register it as a new version with signature=…, or train it with MLSystem or Trainer.",
        )
    if row.outside_types:
        return (
            f"holds {', '.join(row.outside_types)}, which no server loads",
            "Train it again with estimators and processors of the platform's list. This version still predicts in the "
            "process that trained it, when it is asked for by its name.",
        )
    return None


def _swap(tenant_id: TenantId, move: Move, expected: int) -> sa.Executable:
    values = {"version": move.version, "generation": expected + 1, "updated_by": move.actor}
    if expected == 0:
        cell = sa.select(tenants.c.cell).where(tenants.c.tenant_id == tenant_id).scalar_subquery()
        keys = {"tenant_id": tenant_id, "model_id": move.model_id, "environment": move.environment}
        return (
            insert(environments)
            .values(**keys, **values, cell=cell, feed_generation=0)
            .on_conflict_do_nothing()
            .returning(environments)
        )
    return (
        environments.update()
        .where(*pointer_key(tenant_id, move.model_id, move.environment), environments.c.generation == expected)
        .values(**values, updated_at=sa.func.now())
        .returning(environments)
    )


def _record(connection: Connection, tenant_id: TenantId, move: Move, generation: int) -> None:
    moved = {"model_id": move.model_id, "environment": move.environment, "version": move.version}
    what = {"generation": generation, "action": move.action, "actor": move.actor}
    connection.execute(
        environment_history.insert().values(
            tenant_id=tenant_id,
            **moved,
            **what,
            digest=move.digest,
            restored_generation=move.restored_generation or generation,
            reason=move.reason,
        )
    )
    subject = {"model_id": move.model_id, "environment": move.environment}
    details = {"version": move.version, **what, "reason": move.reason}
    journal.record(connection, tenant_id, "environment.moved", subject, details, actor=move.actor)


def _conflict(connection: Connection, tenant_id: TenantId, move: Move, expected: int) -> PromotionConflictError:
    actual = find_pointer(connection, tenant_id, move.model_id, move.environment)
    stands = "nowhere yet" if actual is None else f"at generation {actual.generation}, moved by {actual.updated_by}"
    return PromotionConflictError(
        f"{move.environment!s} of {move.model_id!s} was expected at generation {expected} but stands {stands}.",
        remedy="Look at its history, then promote again if that is still right.",
        tenant_id=tenant_id,
        model_id=move.model_id,
        environment=move.environment,
        expected_generation=expected,
        actual_generation=0 if actual is None else actual.generation,
        moved_by=None if actual is None else actual.updated_by,
    )


def pointer_from(row: AnyRow) -> Pointer:
    """A pointer, from a row of its table."""
    return Pointer(
        TenantId(row.tenant_id),
        ModelId(row.model_id),
        EnvironmentName(row.environment),
        None if row.version is None else VersionId(row.version),
        row.generation,
        row.updated_at,
        row.updated_by,
    )


def entry_from(row: AnyRow) -> HistoryEntry:
    """A move, from a row of the history."""
    return HistoryEntry(
        row.generation,
        row.action,
        None if row.version is None else VersionId(row.version),
        row.digest,
        row.actor,
        row.reason,
        row.at,
        row.restored_generation,
    )
