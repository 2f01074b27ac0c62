"""Moves of a pointer: one order of steps for every trigger, by compare-and-swap, and never without a record.

1. Possible: the principal may move the environment, the pointer has the expected generation, the state machine
   (``ml_core.domain.rollout``) allows the trigger, and a server can load the version.
2. Evaluated: where the trigger lets a version answer requests, every gate of the environment passes, or an admin
   overrides the failed ones.
3. Swapped: the pointer, if it still has the generation that was seen; one more history row, numbered by the new
   generation, so the history has no gap; the journal; and last the feed's clock, so that replicas follow.

Without gates all of it is one transaction. Gates load models and predict, which takes seconds, so they are evaluated
with no transaction open. The swap then requires the generation and the gates that the evaluation saw: whoever changed
either meanwhile wins, and the move is a conflict, since its caller may no longer want it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import Connection

from ml_core.database.connection import DatabaseConnection, acting, sign
from ml_core.database.tables import environment_history, environments, versions
from ml_core.domain.keywords import check_keywords
from ml_core.domain.rollout import (
    EVALUATED,
    TRANSITIONS,
    Change,
    GatedMoving,
    Moving,
    RolloutState,
    Trigger,
    advance,
)
from ml_core.domain.version import RequiredModule
from ml_core.exceptions import (
    Action,
    InvalidRequestError,
    InvalidTransitionError,
    ModelNotFoundError,
    PromotionConflictError,
)
from ml_core.ids import EnvironmentName, ModelId, TenantId, VersionId
from ml_core.models import own_types
from ml_core.models.own_types import Trust
from ml_core.models.store import ArtifactStore
from ml_core.registry import journal
from ml_core.registry.journal import advance_feed
from ml_core.registry.missing import model_not_found, not_shown, require_model_in
from ml_core.registry.promotion.gate_evaluation import evaluate_gates
from ml_core.registry.promotion.pointers import BOUND_KEY, Pointer, bound_key, find_pointer, pointer_from
from ml_core.registry.promotion.rules import Rules, check_environment, read_rules, rollback_target
from ml_core.registry.records import OfTenant
from ml_core.registry.versions.models import lock_model
from ml_core.registry.versions.rows import IS_ARCHIVED, VERSIONS_WITH_MODEL, refusal

if TYPE_CHECKING:
    from ml_core.registry.pages import AnyRow


class MoveOptions(Moving, total=False):
    """The keywords that every move of a pointer takes."""

    actor: str | None
    """For whom an operator moves it, for the history; None: the connection's principal."""


class GatedMoveOptions(GatedMoving, total=False):
    """The keywords of a move that evaluates gates."""

    actor: str | None
    """As of ``MoveOptions``."""


@dataclass(frozen=True, slots=True)
class MoveRequest:
    """A move that somebody asks for: the trigger with what it needs, and the values of ``GatedMoveOptions``."""

    model_id: ModelId
    environment: EnvironmentName
    change: Change
    expected_generation: int | None = None
    actor: str | None = None
    reason: str = ""
    override: str | None = None


@dataclass(frozen=True, slots=True)
class PreparedMove:
    """A move that was found possible, from what was seen: the pointer and its rules.

    Attributes:
        wanted: The request.
        rules: The pointer and its rules.
        state: What the environment serves after the move.
        version: The version that the move exposes to requests; None: none that is not exposed already.
        restored_generation: For a rollback, the generation whose state it restores.
        gates: The results of the gates.
        override_reason: Why failed gates were overridden.
    """

    wanted: MoveRequest
    rules: Rules
    state: RolloutState
    version: VersionId | None
    restored_generation: int | None = None
    gates: Sequence[Mapping[str, Any]] = ()
    override_reason: str | None = None


class MovesPointers(OfTenant):
    """What moves the pointers of one tenant.

    Args:
        db: The registry; its principal is who acts.
        tenant_id: The tenant.
        store: Where gates find the artifacts; None: the platform's store.
    """

    def __init__(self, db: DatabaseConnection, tenant_id: str, store: ArtifactStore | None = None) -> None:
        super().__init__(db, tenant_id)
        self._store = store

    def _move(self, model_id: str, environment: str, change: Change, options: MoveOptions) -> Pointer:
        """Move a pointer; the result has those of the gates. Only a move that evaluates gates takes an override."""
        known = GatedMoveOptions if change.trigger in EVALUATED else MoveOptions
        check_keywords(change.trigger, options, known.__annotations__)
        wanted = MoveRequest(ModelId(model_id), EnvironmentName(environment), change, **options)
        check_environment(self._db, self._tenant_id, wanted.environment)
        if wanted.override is not None and not wanted.override.strip():
            raise InvalidRequestError(
                "An override needs a reason.", remedy="Say why the gates do not count this time.", field="override"
            )
        trust = own_types.trusted(self._db.settings)
        with self._db.tenant(self._tenant_id) as connection:
            prepared = prepare(connection, self._tenant_id, wanted, trust)
            if prepared.version is None or change.trigger not in EVALUATED or not prepared.rules.documents:
                return swap(connection, prepared)
        evaluation = evaluate_gates(self._db, prepared.rules, prepared.version, self._store)
        override_reason = evaluation.enforce(self._db.principal, wanted.override)
        prepared = dataclasses.replace(prepared, gates=evaluation.to_json(), override_reason=override_reason)
        with self._db.tenant(self._tenant_id) as connection:
            lock_promotable(connection, self._tenant_id, wanted.model_id, evaluation.version, trust)
            _confirm(connection, prepared)
            return swap(connection, prepared)


def prepare(connection: Connection, tenant_id: TenantId, wanted: MoveRequest, trust: Trust) -> PreparedMove:
    """Check that a move is possible. Its version is neither archived nor deleted until the transaction ends.

    ``trust`` is that of the platform's servers.
    """
    rules = read_rules(connection, tenant_id, wanted.model_id, wanted.environment)
    rules.check_permission(acting(connection))
    if wanted.expected_generation not in (None, rules.generation):
        raise _conflict(rules, wanted.expected_generation, rules.pointer)
    change, served, restored = wanted.change, None, None
    if rules.version is None and change.trigger is not Trigger.PROMOTE:
        _check_anything_served(connection, rules, change.trigger)
    # The state machine refuses a rollback during a canary, whether or not there is a version to go back to.
    if change.trigger is Trigger.ROLLBACK and (rules.state.phase, change.trigger) in TRANSITIONS:
        target = rollback_target(connection, rules)
        change, served = dataclasses.replace(change, version=target.version), target.digest
        restored = target.restored_generation
    state = _advance(rules, change)
    version = state.stable if change.trigger is Trigger.FINISH else change.version
    # Either lock keeps the tenant, and comes before any lock on the tenant's rows, see ``journal``.
    if version is None:
        journal.lock_tenant(connection, tenant_id)
    else:
        lock_promotable(connection, tenant_id, wanted.model_id, version, trust, served=served)
    return PreparedMove(wanted, rules, state, version, restored)


def swap(connection: Connection, prepared: PreparedMove) -> Pointer:
    """Move a pointer from the generation that was seen to the next, in the transaction of ``prepare`` or a later one.

    Raises:
        PromotionConflictError: The pointer has another generation by now.
        ModelNotFoundError: The version was deleted meanwhile.
    """
    wanted, rules = prepared.wanted, prepared.rules
    actor = sign(connection, wanted.actor)
    try:
        row = _swap_row(connection, prepared, actor)
    except sa.exc.IntegrityError as error:
        if (refusal(error) or "").startswith("fk_"):
            raise model_not_found(rules.tenant_id, rules.model_id, prepared.version) from error
        raise
    if row is None:
        raise _conflict(rules, rules.generation, find_pointer(connection, **rules.key))
    _record(connection, prepared, actor)
    # Last: until the commit no other change can commit.
    connection.execute(_ADVANCE, bound_key(**rules.key))
    return pointer_from(row, prepared.gates)


def not_promoted(tenant_id: TenantId, model_id: ModelId, environment: EnvironmentName) -> ModelNotFoundError:
    """The error for an environment that serves nothing."""
    return ModelNotFoundError(
        f"Nothing is promoted to {environment!s} of {model_id!s}.",
        remedy="Promote a version to it.",
        action=Action.of("environments.promote", tenant=tenant_id, model=model_id, environment=environment),
        tenant_id=tenant_id,
        model_id=model_id,
    )


def _check_anything_served(connection: Connection, rules: Rules, trigger: Trigger) -> None:
    """Refuse a move of what never served anything, or was withdrawn, in terms of what does not exist.

    Raises:
        TenantNotFoundError, ModelNotFoundError: There is no such tenant or model, or there is nothing to withdraw.
    """
    if rules.pointer is None or trigger is Trigger.WITHDRAW:
        journal.lock_tenant(connection, rules.tenant_id)
        require_model_in(connection, rules.tenant_id, rules.model_id)
    if trigger is Trigger.WITHDRAW:
        error = not_promoted(**rules.key)
        error.remedy, error.action = "It serves nothing already.", None
        raise error


def _advance(rules: Rules, change: Change) -> RolloutState:
    """``advance``, with an error that names the pointer."""
    try:
        return advance(rules.state, change)
    except (InvalidTransitionError, InvalidRequestError) as error:
        error.tenant_id = rules.tenant_id
        error.details |= {"model_id": rules.model_id, "environment": rules.environment}
        raise


def _confirm(connection: Connection, prepared: PreparedMove) -> None:
    """Refuse a move whose pointer, gates or permission changed while the gates were evaluated.

    Raises:
        PermissionDeniedError: The environment was protected meanwhile.
        PromotionConflictError: The pointer moved, or the gates were changed.
    """
    seen = prepared.rules
    now = read_rules(connection, **seen.key)
    now.check_permission(acting(connection))
    if now.generation != seen.generation:
        raise _conflict(seen, seen.generation, now.pointer)
    if now.documents != seen.documents:
        raise PromotionConflictError(
            f"The gates of {seen.environment!s} of {seen.model_id!s} were changed while they were evaluated.",
            remedy="Promote again: the present gates are then evaluated.",
            **seen.key,
            expected_generation=seen.generation,
            actual_generation=now.generation,
        )


# Made once: making them takes longer than executing them.
_FIRST = insert(environments).values(feed_generation=0).on_conflict_do_nothing().returning(environments)
_NEXT = (
    environments.update()
    .where(*BOUND_KEY, environments.c.generation == sa.bindparam("present"))
    .values(updated_at=sa.func.now())
    .returning(environments)
)
_ADVANCE = environments.update().where(*BOUND_KEY).values(feed_generation=advance_feed())
_APPEND = environment_history.insert()


def _swap_row(connection: Connection, prepared: PreparedMove, actor: str) -> AnyRow | None:
    """The pointer's row after the swap; None if it has another generation by now."""
    rules, present = prepared.rules, prepared.rules.generation
    key = bound_key(**rules.key)
    values = {**_columns(prepared.state), "generation": present + 1, "updated_by": actor}
    if present:
        return connection.execute(_NEXT, {**key, "present": present, **values}).one_or_none()
    return connection.execute(_FIRST, {**key, **rules.key, **values}).one_or_none()


def _columns(state: RolloutState) -> dict[str, Any]:
    """A state as the columns of the pointer."""
    canary = state.canary
    return {
        "version": state.stable,
        "canary_version": canary and canary.version,
        "canary_percent": canary and canary.percent,
        "canary_sticky": canary and canary.sticky,
        "shadow_version": state.shadow,
    }


_TOPICS = {
    Trigger.START_CANARY: "rollout.started",
    Trigger.STEP: "rollout.stepped",
    Trigger.FINISH: "rollout.finished",
    Trigger.ABORT: "rollout.aborted",
    Trigger.START_SHADOW: "shadow.started",
    Trigger.STOP_SHADOW: "shadow.stopped",
}
"""The journal's action for each trigger; of the others it is ``environment.moved``."""


def _record(connection: Connection, prepared: PreparedMove, actor: str) -> None:
    wanted, rules = prepared.wanted, prepared.rules
    trigger, generation = wanted.change.trigger, rules.generation + 1
    what = {"generation": generation, "action": trigger.value, "actor": actor, "reason": wanted.reason}
    served, gates = _columns(prepared.state), [dict(result) for result in prepared.gates]
    entry = {
        **rules.key,
        **what,
        "restored_generation": prepared.restored_generation or generation,
        "gates": gates,
        "override_reason": prepared.override_reason,
    }
    connection.execute(_APPEND, entry)  # the trigger ``fill_move`` adds what is served
    details: dict[str, Any] = {**what, "version": prepared.state.stable}
    details |= {name: value for name, value in served.items() if value is not None}
    if prepared.override_reason is not None:  # whoever reads the audit must see what was overridden
        details |= {"override_reason": prepared.override_reason, "gates": gates}
    subject = {"model_id": rules.model_id, "environment": rules.environment}
    journal.record(connection, rules.tenant_id, _TOPICS.get(trigger, "environment.moved"), subject, details)


def _conflict(rules: Rules, expected: int | None, actual: Pointer | None) -> PromotionConflictError:
    """The error for a pointer of another generation than a move expects; names who moved it."""
    found = "never moved" if actual is None else f"has generation {actual.generation}, moved by {actual.updated_by}"
    return PromotionConflictError(
        f"{rules.environment!s} of {rules.model_id!s} was expected to have generation {expected}, but {found}.",
        remedy="Look at its history, then promote again if that is still right.",
        action=rules.action("environments.history"),
        **rules.key,
        expected_generation=expected,
        actual_generation=0 if actual is None else actual.generation,
        moved_by=None if actual is None else actual.updated_by,
    )


_INPUTS = sa.func.jsonb_array_length(versions.c.signature["inputs"]).label("inputs")
_PROMOTABLE = (
    sa.select(*(versions.c[each] for each in ("digest", "outside_types", "modules")), IS_ARCHIVED.label("is_archived"))
    .add_columns(_INPUTS)
    .select_from(VERSIONS_WITH_MODEL)
    .where(
        versions.c.tenant_id == sa.bindparam("tenant"),
        versions.c.model_id == sa.bindparam("model"),
        versions.c.version == sa.bindparam("version"),
    )
)


def lock_promotable(
    connection: Connection,
    tenant_id: TenantId,
    model_id: ModelId,
    version: VersionId,
    trust: Trust,
    *,
    served: str | None = None,
) -> None:
    """Refuse a version that cannot be served; keep one that can from being archived or deleted meanwhile.

    The lock is shared: promotions of a model do not wait for each other. ``trust`` is that of the platform's servers;
    ``served`` is the digest that the version had when it was served before, if it was.

    Raises:
        ModelNotFoundError: There is no such version, it is archived, or its digest is not the one that was served.
        InvalidRequestError: No server can load it: it has no signature, or its artifact holds types that are neither on
            the platform's list nor of a trusted module.
    """
    lock_model(connection, tenant_id, model_id, shared=True)
    row = connection.execute(_PROMOTABLE, {"tenant": tenant_id, "model": model_id, "version": version}).one_or_none()
    if served is not None and (row is None or row.digest != served):
        why, remedy = "was deleted since it was served", "Promote another version."
        raise model_not_found(tenant_id, model_id, version, why=why, remedy=remedy)
    if row is None or row.is_archived:
        raise not_shown(row, tenant_id, model_id, version, connection=connection)
    if not row.inputs:
        remedy = (
            "Register it as a new version with sample=, some rows of the table that it was fitted on, or train it with "
            "MLSystem or Trainer."
        )
        raise _unservable(tenant_id, model_id, version, "has no signature, so it can't be served", remedy)
    if refused := [name for name in row.outside_types if name not in trust]:
        why = "; ".join(trust.refusals(map(RequiredModule.from_json, row.modules)))
        what = f"holds {', '.join(refused)}, which no server loads{why and f': {why}'}"
        raise _unservable(tenant_id, model_id, version, what, own_types.REMEDY)


def _unservable(
    tenant_id: TenantId, model_id: ModelId, version: VersionId, what: str, remedy: str
) -> InvalidRequestError:
    return InvalidRequestError(
        f"Version {version!s} of {model_id!s} {what}.", remedy=remedy, tenant_id=tenant_id, field="version"
    )
