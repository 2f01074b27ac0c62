"""Pointers, and the one transaction step that moves them: by compare-and-swap, and never without a record.

What may follow what is decided by ``ml_core.domain.rollout``, on the state that the swap then replaces.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import Connection

from ml_core.database.connection import sign
from ml_core.database.tables import environment_history, environments, tenants, versions
from ml_core.domain.rollout import Change, RolloutState, Trigger, advance
from ml_core.exceptions import InvalidRequestError, InvalidTransitionError, PromotionConflictError
from ml_core.ids import ModelId, TenantId, VersionId
from ml_core.registry import journal
from ml_core.registry.clock import advance_feed
from ml_core.registry.missing import model_not_found
from ml_core.registry.promotion.pointer_rows import (
    HistoryEntry,
    Move,
    Pointer,
    entry_from,
    find_pointer,
    pointer_from,
    pointer_key,
    state_before,
)
from ml_core.registry.promotion.promotable import promotable_digest
from ml_core.registry.versions.rows import refusal

__all__ = [
    "HistoryEntry",
    "Move",
    "Pointer",
    "conflict",
    "entry_from",
    "find_pointer",
    "move_pointer",
    "next_state",
    "pointer_from",
    "pointer_key",
    "promotable_digest",
    "state_before",
]


def move_pointer(
    connection: Connection, tenant_id: TenantId, move: Move, expected: int | None, pointer: Pointer | None = None
) -> Pointer:
    """Move a pointer from one generation to the next, with its history row, audit row and feed generation.

    Args:
        connection: In the tenant's transaction.
        tenant_id: The tenant.
        move: The move.
        expected: The generation that the caller saw, 0 before the first move; None: the present one.
        pointer: As it was found in this transaction; None: it is looked up.

    Raises:
        PromotionConflictError: The pointer has another generation.
        InvalidTransitionError: What it serves does not allow the move.
        InvalidRequestError: The move's percent, sticky column or version is not valid.
        ModelNotFoundError: The version was deleted meanwhile.
    """
    move = dataclasses.replace(move, actor=sign(connection, move.actor))
    seen = pointer or find_pointer(connection, tenant_id, move.model_id, move.environment)
    present = 0 if seen is None else seen.generation
    if expected not in (None, present):
        raise conflict(connection, tenant_id, move, expected)
    state = next_state(tenant_id, move, seen)
    try:
        row = connection.execute(_swap(tenant_id, move, state, present)).one_or_none()
    except sa.exc.IntegrityError as error:
        if (refusal(error) or "").startswith("fk_"):
            raise model_not_found(tenant_id, move.model_id, move.version) from error
        raise
    if row is None:
        raise conflict(connection, tenant_id, move, present)
    _record(connection, tenant_id, move, state, present + 1)
    connection.execute(  # last: from here to the commit no other change of the cell can commit
        environments.update()
        .where(*pointer_key(tenant_id, move.model_id, move.environment))
        .values(feed_generation=advance_feed(environments.c.cell))
    )
    return pointer_from(row)


def next_state(tenant_id: TenantId, move: Move, pointer: Pointer | None) -> RolloutState:
    """What an environment serves after a move.

    Raises:
        InvalidTransitionError, InvalidRequestError: What the environment serves does not allow the move.
    """
    state = RolloutState() if pointer is None else pointer.state
    try:
        return advance(state, Change(Trigger(move.action), move.version, move.percent, move.sticky))
    except (InvalidTransitionError, InvalidRequestError) as error:
        error.tenant_id = tenant_id
        error.details |= {"model_id": move.model_id, "environment": move.environment}
        raise


def _swap(tenant_id: TenantId, move: Move, state: RolloutState, present: int) -> sa.Executable:
    values = {**_columns(state), "generation": present + 1, "updated_by": move.actor}
    if present == 0:
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
        .where(*pointer_key(tenant_id, move.model_id, move.environment), environments.c.generation == present)
        .values(**values, updated_at=sa.func.now())
        .returning(environments)
    )


def _columns(state: RolloutState) -> dict[str, Any]:
    """A state as the columns that the pointer and its history share."""
    canary = state.canary
    return {
        "version": state.stable,
        "canary_version": canary and canary.version,
        "canary_percent": canary and canary.percent,
        "canary_sticky": canary and canary.sticky,
        "shadow_version": state.shadow,
    }


# The topics of moves that are no ``environment.moved``.
_TOPICS = {
    Trigger.START_CANARY: "rollout.started",
    Trigger.STEP: "rollout.stepped",
    Trigger.FINISH: "rollout.finished",
    Trigger.ABORT: "rollout.aborted",
    Trigger.START_SHADOW: "shadow.started",
    Trigger.STOP_SHADOW: "shadow.stopped",
}


def _record(connection: Connection, tenant_id: TenantId, move: Move, state: RolloutState, generation: int) -> None:
    subject = {"model_id": move.model_id, "environment": move.environment}
    what = {"generation": generation, "action": move.action, "actor": move.actor, "reason": move.reason}
    served, gates = _columns(state), [dict(outcome) for outcome in move.gates]
    connection.execute(
        environment_history.insert().values(
            tenant_id=tenant_id,
            **subject,
            **what,
            **served,
            digest=move.digest or _digest_of(tenant_id, move.model_id, state.stable),
            restored_generation=move.restored_generation or generation,
            gates=gates,
            override_reason=move.override_reason,
        )
    )
    details = {**what, "version": state.stable}
    details |= {name: value for name, value in served.items() if value is not None}
    if move.override_reason is not None:  # whoever watches must see what was overridden
        details |= {"override_reason": move.override_reason, "gates": gates}
    topic = _TOPICS.get(Trigger(move.action), "environment.moved")
    journal.record(connection, tenant_id, topic, subject, details)


def _digest_of(tenant_id: TenantId, model_id: ModelId, version: VersionId | None) -> sa.ScalarSelect[str] | None:
    if version is None:
        return None
    of = versions.c
    named = (of.tenant_id == tenant_id, of.model_id == model_id, of.version == version)
    return sa.select(of.digest).where(*named).scalar_subquery()


def conflict(connection: Connection, tenant_id: TenantId, move: Move, expected: int | None) -> PromotionConflictError:
    """The error for a pointer of another generation than a move expects; names who moved it."""
    actual = find_pointer(connection, tenant_id, move.model_id, move.environment)
    found = "never moved" if actual is None else f"has generation {actual.generation}, moved by {actual.updated_by}"
    return PromotionConflictError(
        f"{move.environment!s} of {move.model_id!s} was expected to have generation {expected}, but {found}.",
        remedy="Look at its history, then promote again if that is still right: mlcore environments history "
        f"--tenant {tenant_id!s} --model {move.model_id!s} --environment {move.environment!s}",
        tenant_id=tenant_id,
        model_id=move.model_id,
        environment=move.environment,
        expected_generation=expected,
        actual_generation=0 if actual is None else actual.generation,
        moved_by=None if actual is None else actual.updated_by,
    )
