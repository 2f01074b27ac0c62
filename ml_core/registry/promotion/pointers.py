"""Pointers and their moves: the values, and the rows that they are read from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypedDict

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.database.tables import environment_history, environments
from ml_core.domain.rollout import Canary, RolloutState
from ml_core.ids import EnvironmentName, ModelId, TenantId, VersionId
from ml_core.registry.pages import Page, read_page
from ml_core.registry.records import value_of

if TYPE_CHECKING:
    from ml_core.registry.pages import AnyRow


@dataclass(frozen=True, slots=True)
class Pointer:
    """What an environment of a model serves.

    Attributes:
        tenant_id: The tenant.
        model_id: The model.
        environment: The environment.
        version: The stable version; None once it was withdrawn.
        generation: Number of moves, from 1.
        updated_at: Time of the last move, UTC.
        updated_by: Who made the last move.
        canary: The canary, if one runs.
        shadow: The shadow, if one runs.
        gates: Returned by a move: the result of each gate (``ml_core.domain.gates.GateResult.to_json``) that was
            evaluated for it. Empty when the pointer is read; ``history`` has the results of each move.
    """

    tenant_id: TenantId
    model_id: ModelId
    environment: EnvironmentName
    version: VersionId | None
    generation: int
    updated_at: datetime
    updated_by: str
    canary: Canary | None = None
    shadow: VersionId | None = None
    gates: Sequence[Mapping[str, Any]] = field(default=(), compare=False)

    @property
    def state(self) -> RolloutState:
        """What it serves, as the state machine of rollouts sees it."""
        return RolloutState(self.version, self.canary, self.shadow)


@dataclass(frozen=True, slots=True)
class Move:
    """One change of a pointer, as its history has it.

    Attributes:
        generation: The pointer's generation after the move.
        action: A ``ml_core.domain.rollout.Trigger``.
        version: The stable version after the move.
        digest: The digest of that version.
        actor: Who made the move.
        reason: Why.
        at: When, UTC.
        restored_generation: For a rollback the generation whose state it restored; otherwise its own generation.
        gates: The result of each gate that was evaluated, as ``ml_core.domain.gates.GateResult.to_json``.
        override_reason: Why failed gates were overridden; None if none was.
        canary: The canary after the move.
        shadow: The shadow after the move.
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


class PointerKey(TypedDict):
    """What selects one pointer."""

    tenant_id: TenantId
    model_id: ModelId
    environment: EnvironmentName


# For statements that are made once: making one takes longer than executing it.
BOUND_KEY = tuple(
    environments.c[name] == sa.bindparam(f"of_{name}") for name in ("tenant_id", "model_id", "environment")
)
_POINTER = sa.select(environments).where(*BOUND_KEY)


def bound_key(tenant_id: TenantId, model_id: ModelId, environment: EnvironmentName) -> dict[str, str]:
    """The parameters of ``BOUND_KEY`` that select one pointer."""
    return {"of_tenant_id": tenant_id, "of_model_id": model_id, "of_environment": environment}


def find_pointer(
    connection: Connection, tenant_id: TenantId, model_id: ModelId, environment: EnvironmentName
) -> Pointer | None:
    """The pointer, or None if nothing was ever promoted to the environment."""
    row = connection.execute(_POINTER, bound_key(tenant_id, model_id, environment)).one_or_none()
    return None if row is None else pointer_from(row)


def list_pointers(
    connection: Connection,
    tenant_id: TenantId,
    model_id: ModelId | None,
    limit: int,
    cursor: str | None,
    *conditions: sa.ColumnElement[bool],
) -> Page[Pointer]:
    """A page of the pointers of a model, or of all models, by model and environment."""
    of = environments.c
    statement = sa.select(environments).where(of.tenant_id == tenant_id, *conditions)
    if model_id is not None:
        statement = statement.where(of.model_id == model_id)
    order = [of.model_id, of.environment]
    return read_page(connection, statement, order, limit=limit, cursor=cursor).map(pointer_from)


def state_before(connection: Connection, pointer: Pointer) -> Move | None:
    """The move whose state a rollback restores: the last one to another version before the present state's own.

    One query for each rollback that led to the present state; moves that kept the version are skipped.
    """
    of, upto = environment_history.c, pointer.generation
    is_other = of.version.is_not(None) if pointer.version is None else of.version != pointer.version
    statement = (
        sa.select(environment_history)
        .filter_by(tenant_id=pointer.tenant_id, model_id=pointer.model_id, environment=pointer.environment)
        .where(of.generation <= sa.bindparam("upto"), sa.or_(is_other, of.restored_generation < of.generation))
        .order_by(of.generation.desc())
        .limit(1)
    )
    while True:
        row = connection.execute(statement, {"upto": upto}).one_or_none()
        if row is None or (row.version is not None and row.version != pointer.version):
            return None if row is None else move_from(row)
        upto = row.restored_generation - 1  # a rollback: go on before the state that it restored


def pointer_from(row: AnyRow, gates: Sequence[Mapping[str, Any]] = ()) -> Pointer:
    """A pointer from its row, with the results of the gates that were evaluated for its last move."""
    return value_of(Pointer, row, **_rollout(row), gates=gates)


def move_from(row: AnyRow) -> Move:
    """A move from its row of the history."""
    return value_of(Move, row, **_rollout(row))


def _rollout(row: AnyRow) -> dict[str, Any]:
    shadow, canary = row.shadow_version, None
    if row.canary_version is not None:
        canary = Canary(VersionId(row.canary_version), row.canary_percent, row.canary_sticky)
    return {"canary": canary, "shadow": None if shadow is None else VersionId(shadow)}
