"""Pointers and their history as values, and the rows that they are read from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.database.tables import environment_history, environments
from ml_core.domain.rollout import Canary, RolloutState
from ml_core.ids import EnvironmentName, ModelId, TenantId, VersionId

if TYPE_CHECKING:
    from ml_core.registry.versions.rows import AnyRow


@dataclass(frozen=True, slots=True)
class Pointer:
    """What an environment of a model serves: no ``version`` once withdrawn. ``generation`` counts its moves from 1."""

    tenant_id: TenantId
    model_id: ModelId
    environment: EnvironmentName
    version: VersionId | None
    generation: int
    updated_at: datetime
    updated_by: str
    canary: Canary | None = None
    shadow: VersionId | None = None

    @property
    def state(self) -> RolloutState:
        """What it serves, for the rules of rollouts."""
        return RolloutState(self.version, self.canary, self.shadow)


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One move of a pointer: what (a ``Trigger``), what was served after it, who, why and when (UTC).

    ``version`` is the stable one, and ``digest`` says its bytes. ``restored_generation`` is the generation whose state
    a rollback brought back, and its own for other moves. ``gates`` is what each gate found
    (``ml_core.domain.gates.Outcome.to_json``), ``override_reason`` why one that failed was overridden.
    """

    generation: int
    action: str
    version: VersionId | None
    digest: str | None
    actor: str
    reason: str
    at: datetime
    restored_generation: int
    gates: Sequence[Mapping[str, Any]] = ()
    override_reason: str | None = None
    canary: Canary | None = None
    shadow: VersionId | None = None


@dataclass(frozen=True, slots=True)
class Move:
    """A wanted move of a pointer, with what its history row says.

    Attributes:
        model_id: The model.
        environment: The environment.
        action: A ``Trigger``.
        version: What the trigger needs: the version to serve, or to start as canary or shadow.
        digest: Of the version that is stable afterwards; None: as the registry has it.
        actor: Who does it.
        reason: Why.
        restored_generation: For a rollback, the generation whose state it brings back.
        gates: What each gate found.
        override_reason: Why a gate that failed was overridden.
        percent: Of a canary that starts or steps.
        sticky: Of a canary that starts.
    """

    model_id: ModelId
    environment: EnvironmentName
    action: str
    version: VersionId | None
    digest: str | None
    actor: str
    reason: str
    restored_generation: int | None = None
    gates: Sequence[Mapping[str, Any]] = ()
    override_reason: str | None = None
    percent: int | None = None
    sticky: str | None = None


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


def state_before(connection: Connection, pointer: Pointer) -> HistoryEntry | None:
    """The entry whose state a rollback brings back: the last different version before the present state's own.

    One query for each rollback that led to the present state; other moves that kept the version are passed over.
    """
    of, upto = environment_history.c, pointer.generation
    is_other = of.version.is_not(None) if pointer.version is None else of.version != pointer.version
    statement = (
        sa.select(environment_history)
        .where(
            of.tenant_id == pointer.tenant_id,
            of.model_id == pointer.model_id,
            of.environment == pointer.environment,
            of.generation <= sa.bindparam("upto"),
            sa.or_(is_other, of.restored_generation < of.generation),
        )
        .order_by(of.generation.desc())
        .limit(1)
    )
    while True:
        row = connection.execute(statement, {"upto": upto}).one_or_none()
        if row is None or (row.version is not None and row.version != pointer.version):
            return None if row is None else entry_from(row)
        upto = row.restored_generation - 1


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
        *_parts(row),
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
        row.gates,
        row.override_reason,
        *_parts(row),
    )


def _parts(row: AnyRow) -> tuple[Canary | None, VersionId | None]:
    canary, shadow = row.canary_version, row.shadow_version
    return (
        None if canary is None else Canary(VersionId(canary), row.canary_percent, row.canary_sticky),
        None if shadow is None else VersionId(shadow),
    )
