"""Environments: pointers from (model, environment) to a version, moved by compare-and-swap and never without a record.

A move is one transaction: the pointer, if it has the expected generation; one more history row, numbered by
the new generation, so the history has no gaps; an audit row; and last the feed's clock, so that replicas follow.

Where an environment has gates, a promotion is judged before that transaction, against the pointer's generation of that
moment, and moves it from exactly that. Who moved it meanwhile wins: the promotion is a conflict rather than judged
again, since the caller may no longer want it. Going back and withdrawing pass no gate: they must stay possible in an
incident. Only what an admin's override let pass takes an admin again to come back.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.rollout import Trigger
from ml_core.exceptions import ModelNotFoundError
from ml_core.ids import EnvironmentName, ModelId, TenantId, VersionId
from ml_core.models.store import ArtifactStore
from ml_core.registry import journal
from ml_core.registry.missing import require_model_in
from ml_core.registry.promotion.environment_names import PRODUCTION
from ml_core.registry.promotion.gates.gatekeeper import Gatekeeper
from ml_core.registry.promotion.gates.overrides import check_restorable
from ml_core.registry.promotion.gates.rules import Rules, read_rules
from ml_core.registry.promotion.gates.verdict import check_override
from ml_core.registry.promotion.pointer_reader import PointerReader
from ml_core.registry.promotion.pointers import (
    HistoryEntry,
    Move,
    Pointer,
    conflict,
    move_pointer,
    next_state,
    promotable_digest,
    state_before,
)

__all__ = ["PRODUCTION", "EnvironmentRepository", "HistoryEntry", "Pointer"]


class EnvironmentRepository(PointerReader):
    """The pointers of one tenant.

    Args:
        db: The registry; what its principal may do decides what may be moved.
        tenant_id: The tenant.
        allowed: The environments that exist; None: those of the settings. A typo must not make another.
        store: Where gates find the artifacts; None: the platform's store.
    """

    def __init__(
        self,
        db: DatabaseConnection,
        tenant_id: TenantId,
        *,
        allowed: Sequence[EnvironmentName] | None = None,
        store: ArtifactStore | None = None,
    ) -> None:
        super().__init__(db, tenant_id, allowed=allowed)
        self._gatekeeper = Gatekeeper(db, tenant_id, store)

    def promote(
        self,
        model_id: ModelId,
        version: VersionId,
        environment: EnvironmentName,
        *,
        expected_generation: int | None = None,
        actor: str | None = None,
        reason: str = "",
        override: str | None = None,
    ) -> Pointer:
        """Point an environment to a version.

        Args:
            model_id: The model.
            version: The version to serve.
            environment: Such as ``production``.
            expected_generation: The generation that the caller saw, 0 before the first move; None: the present one.
            actor: Who does it; None: the connection's principal.
            reason: Why.
            override: Why it is done although a gate refuses; only an admin may. Without effect where none refuses.

        Raises:
            PromotionRefusedError: A gate refuses the version. Names each such gate and by how much.
            PromotionConflictError: Somebody else moved the pointer, or changed its gates, meanwhile.
            PermissionDeniedError: The principal may not move the environment, or not override a gate.
            ModelNotFoundError: There is no such version, or it is archived.
            InvalidTransitionError: A canary runs.
            InvalidRequestError: There is no such environment, the override gives no reason, or no server can load the
                version: it has no signature, or its artifact holds types of the caller's own.
        """
        self._check_environment(environment)
        check_override(override)
        with self._db.tenant(self._tenant_id) as connection:
            rules = read_rules(connection, self._tenant_id, model_id, environment)
            rules.check_permission(self._db.principal)
            digest = promotable_digest(connection, self._tenant_id, model_id, version)
            move = Move(model_id, environment, Trigger.PROMOTE, version, digest, self._actor(actor), reason)
            if not rules.documents:
                return move_pointer(connection, self._tenant_id, move, expected_generation, rules.pointer)
            if expected_generation not in (None, rules.generation):
                raise conflict(connection, self._tenant_id, move, expected_generation)
            next_state(self._tenant_id, move, rules.pointer)  # what is not possible need not be judged
        return self._promote_judged(move, version, rules, override)

    def _promote_judged(self, move: Move, version: VersionId, rules: Rules, override: str | None) -> Pointer:
        """Ask the gates, with no transaction open, then move the pointer from where it stood when they were asked."""
        verdict = self._gatekeeper.judge_by(rules, version)
        move = dataclasses.replace(move, override_reason=verdict.enforce(override), gates=verdict.to_json())
        with self._db.tenant(self._tenant_id) as connection:
            promotable_digest(connection, self._tenant_id, move.model_id, version)
            self._gatekeeper.confirm(connection, verdict)
            return move_pointer(connection, self._tenant_id, move, verdict.generation)

    def rollback(
        self,
        model_id: ModelId,
        environment: EnvironmentName,
        *,
        expected_generation: int | None = None,
        actor: str | None = None,
        reason: str = "",
    ) -> Pointer:
        """Point an environment back to the version that it served before; again, to the one before that. No gate asks.

        But what is there by an admin's override comes back by an admin only, as long as the environment has gates:
        others promote it anew, through the gates.

        Raises:
            PromotionConflictError: Somebody else moved the pointer meanwhile.
            PermissionDeniedError: The principal may not move the environment, or is no admin and the version to go
                back to was let pass by an override.
            InvalidTransitionError: A canary runs.
            ModelNotFoundError: There was no other version before, or it was deleted or archived since. It is not
                skipped: what is served next is for people to decide.
        """
        self._check_environment(environment)
        with journal.writing(self._db, self._tenant_id) as connection:
            rules = read_rules(connection, self._tenant_id, model_id, environment)
            rules.check_permission(self._db.principal)
            pointer = rules.pointer
            if pointer is None:
                require_model_in(connection, self._tenant_id, model_id)
            elif pointer.canary is not None:
                self._refuse_during_canary(pointer, actor)
            target = None if pointer is None else state_before(connection, pointer)
            if pointer is None or target is None or target.version is None:
                raise ModelNotFoundError(
                    f"{environment!s} of {model_id!s} has no version to go back to: "
                    + ("nothing was promoted to it." if pointer is None else "it is at the first one that it served."),
                    remedy="Promote the version that it should serve.",
                    tenant_id=self._tenant_id,
                    model_id=model_id,
                )
            check_restorable(connection, self._db.principal, rules, target)
            promotable_digest(connection, self._tenant_id, model_id, target.version, served=target.digest)
            move = Move(
                model_id,
                environment,
                Trigger.ROLLBACK,
                target.version,
                target.digest,
                self._actor(actor),
                reason,
                target.restored_generation,
            )
            return move_pointer(connection, self._tenant_id, move, expected_generation, pointer)

    def withdraw(
        self,
        model_id: ModelId,
        environment: EnvironmentName,
        *,
        expected_generation: int | None = None,
        actor: str | None = None,
        reason: str = "",
    ) -> Pointer:
        """Let an environment serve nothing. No gate asks.

        Raises:
            PromotionConflictError: Somebody else moved the pointer meanwhile.
            PermissionDeniedError: The principal may not move the environment.
            ModelNotFoundError: It serves nothing already.
        """
        self._check_environment(environment)
        with journal.writing(self._db, self._tenant_id) as connection:
            rules = read_rules(connection, self._tenant_id, model_id, environment)
            rules.check_permission(self._db.principal)
            pointer = rules.pointer
            if pointer is None or pointer.version is None:
                require_model_in(connection, self._tenant_id, model_id)
                raise self._not_promoted(model_id, environment, remedy="It serves nothing already.")
            move = Move(model_id, environment, Trigger.WITHDRAW, None, None, self._actor(actor), reason)
            return move_pointer(connection, self._tenant_id, move, expected_generation, pointer)

    def _refuse_during_canary(self, pointer: Pointer, actor: str | None) -> None:
        """Say that a canary runs, also where there is no version to go back to: to abort it is what is meant then.

        Raises:
            InvalidTransitionError: Always.
        """
        back = Move(
            pointer.model_id, pointer.environment, Trigger.ROLLBACK, pointer.version, None, self._actor(actor), ""
        )
        next_state(self._tenant_id, back, pointer)

    def _actor(self, actor: str | None) -> str:
        return self._db.principal.name if actor is None else actor
