"""Rollouts: a canary or a shadow beside what an environment serves.

Each step is a move of the environment's pointer like a promotion: by compare-and-swap on its generation, with a history
row, an audit row and the feed's clock. What may follow what is in ``ml_core.domain.rollout``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.replica_report import ReplicaAnswer
from ml_core.domain.rollout import Change, Trigger
from ml_core.ids import EnvironmentName, ModelId, TenantId, VersionId
from ml_core.models.store import ArtifactStore
from ml_core.registry import journal
from ml_core.registry.missing import require_model
from ml_core.registry.promotion.environment_names import check_environment
from ml_core.registry.promotion.gates.gatekeeper import Gatekeeper
from ml_core.registry.promotion.gates.rules import read_rules
from ml_core.registry.promotion.gates.verdict import check_override
from ml_core.registry.promotion.pointer_reader import PointerReader
from ml_core.registry.promotion.pointers import (
    Move,
    Pointer,
    conflict,
    find_pointer,
    move_pointer,
    next_state,
    promotable_digest,
)
from ml_core.registry.promotion.replica_answers import ask_replicas


class RolloutRepository:
    """The rollouts of one tenant.

    Starting and finishing a canary pass the environment's gates, as a promotion does. A shadow passes none: nobody gets
    its answers. Every step takes the permission to move the environment.

    Args:
        db: The registry; its principal is who acts.
        tenant_id: The tenant.
        store: For gates that predict; None: the platform's.
    """

    def __init__(self, db: DatabaseConnection, tenant_id: TenantId, store: ArtifactStore | None = None) -> None:
        self._db = db
        self._tenant_id = tenant_id
        self._pointers = PointerReader(db, tenant_id)
        self._gatekeeper = Gatekeeper(db, tenant_id, store)

    def get(self, model_id: ModelId, environment: EnvironmentName) -> Pointer:
        """What an environment serves: ``version`` (the stable one), ``canary``, ``shadow`` and the generation.

        Raises:
            ModelNotFoundError: Nothing was ever promoted to it.
        """
        return self._pointers.get(model_id, environment)

    def list(self, model_id: ModelId | None = None) -> Sequence[Pointer]:
        """The pointers with a canary or a shadow, of a model or of all models, by model and environment.

        Raises:
            ModelNotFoundError: There is no such model.
        """
        if model_id is not None:
            require_model(self._db, self._tenant_id, model_id)
        return [each for each in self._pointers.list(model_id) if each.canary is not None or each.shadow is not None]

    def replicas(
        self, model_id: ModelId, environment: EnvironmentName, *, wait_s: float = 0.0
    ) -> Sequence[ReplicaAnswer]:
        """What each live replica answers of an environment, see ``ask_replicas``.

        Raises:
            ModelNotFoundError: Nothing was ever promoted to it.
        """
        self.get(model_id, environment)
        return ask_replicas(self._db, self._tenant_id, model_id, environment, wait_s=wait_s)

    def start_canary(
        self,
        model_id: ModelId,
        version: VersionId,
        environment: EnvironmentName,
        percent: int,
        *,
        sticky: str | None = None,
        expected_generation: int | None = None,
        reason: str = "",
        override: str | None = None,
    ) -> Pointer:
        """Let a version answer a share of the requests.

        Args:
            model_id: The model.
            version: The version on trial.
            environment: Such as ``production``.
            percent: Of the keys, 1 to 99.
            sticky: The column whose value is a request's key where the request names none; None: each request is its
                own.
            expected_generation: The generation that the caller saw; None: the present one.
            reason: Why.
            override: Why a gate that fails may be overridden; takes ``admin``.

        Raises:
            InvalidTransitionError: A canary runs already, or nothing is served.
            InvalidRequestError: The percent can't be one, no server can load the version, or it is served already.
            ModelNotFoundError: There is no such version, or it is archived.
            PermissionDeniedError: The principal may not move the environment.
            PromotionRefusedError: A gate failed.
            PromotionConflictError: Somebody else moved the pointer meanwhile.
        """
        change = Change(Trigger.START_CANARY, version, percent, sticky)
        return self._judged(model_id, environment, change, expected_generation, reason, override)

    def step(
        self,
        model_id: ModelId,
        environment: EnvironmentName,
        percent: int,
        *,
        expected_generation: int | None = None,
        reason: str = "",
    ) -> Pointer:
        """Change the canary's percent, up or down. It asks no gate, whatever was set since the start; ``finish`` does.

        Raises:
            InvalidTransitionError: No canary runs.
            InvalidRequestError: The percent can't be one.
            PermissionDeniedError, PromotionConflictError: As for ``start_canary``.
        """
        return self._permitted(
            model_id, environment, Change(Trigger.STEP, percent=percent), expected_generation, reason
        )

    def finish(
        self,
        model_id: ModelId,
        environment: EnvironmentName,
        *,
        expected_generation: int | None = None,
        reason: str = "",
        override: str | None = None,
    ) -> Pointer:
        """Make the canary the stable version.

        Raises:
            InvalidTransitionError: No canary runs.
            PermissionDeniedError, PromotionRefusedError, PromotionConflictError: As for ``start_canary``.
        """
        return self._judged(model_id, environment, Change(Trigger.FINISH), expected_generation, reason, override)

    def abort(
        self,
        model_id: ModelId,
        environment: EnvironmentName,
        *,
        expected_generation: int | None = None,
        reason: str = "",
    ) -> Pointer:
        """Drop the canary: the stable version answers everything again.

        Raises:
            InvalidTransitionError: No canary runs.
            PermissionDeniedError, PromotionConflictError: As for ``start_canary``.
        """
        return self._permitted(model_id, environment, Change(Trigger.ABORT), expected_generation, reason)

    def start_shadow(
        self,
        model_id: ModelId,
        version: VersionId,
        environment: EnvironmentName,
        *,
        expected_generation: int | None = None,
        reason: str = "",
    ) -> Pointer:
        """Let a version predict what the stable one is asked; its answers are only counted.

        Raises:
            InvalidTransitionError: A shadow runs already, or nothing is served.
            InvalidRequestError: No server can load the version, or it is served already.
            ModelNotFoundError: There is no such version, or it is archived.
            PermissionDeniedError, PromotionConflictError: As for ``start_canary``.
        """
        change = Change(Trigger.START_SHADOW, version)
        return self._permitted(model_id, environment, change, expected_generation, reason)

    def stop_shadow(
        self,
        model_id: ModelId,
        environment: EnvironmentName,
        *,
        expected_generation: int | None = None,
        reason: str = "",
    ) -> Pointer:
        """Drop the shadow.

        Raises:
            InvalidTransitionError: No shadow runs.
            PermissionDeniedError, PromotionConflictError: As for ``start_canary``.
        """
        return self._permitted(model_id, environment, Change(Trigger.STOP_SHADOW), expected_generation, reason)

    def _permitted(
        self, model_id: ModelId, environment: EnvironmentName, change: Change, expected: int | None, reason: str
    ) -> Pointer:
        """Make a move that passes no gate."""
        check_environment(self._db, self._tenant_id, environment)
        move = self._move(model_id, environment, change, reason)
        with journal.writing(self._db, self._tenant_id) as connection:
            read_rules(connection, self._tenant_id, model_id, environment).check_permission(self._db.principal)
            if change.version is not None:
                promotable_digest(connection, self._tenant_id, model_id, change.version)
            return move_pointer(connection, self._tenant_id, move, expected)

    def _judged(
        self,
        model_id: ModelId,
        environment: EnvironmentName,
        change: Change,
        expected: int | None,
        reason: str,
        override: str | None,
    ) -> Pointer:
        """Make a move that passes the gates, which are judged with no transaction open, as for a promotion."""
        check_environment(self._db, self._tenant_id, environment)
        check_override(override)
        move = self._move(model_id, environment, change, reason)
        with journal.writing(self._db, self._tenant_id) as connection:
            rules = read_rules(connection, self._tenant_id, model_id, environment)
            rules.check_permission(self._db.principal)
            pointer = find_pointer(connection, self._tenant_id, model_id, environment)
            if expected not in (None, 0 if pointer is None else pointer.generation):
                raise conflict(connection, self._tenant_id, move, expected)
            after = next_state(self._tenant_id, move, pointer)  # what is not possible need not be judged
            version = change.version or after.stable
            if version is None:
                raise AssertionError("finishing a canary leaves a stable version")
            promotable_digest(connection, self._tenant_id, model_id, version)
            if not rules.gates:
                return move_pointer(connection, self._tenant_id, move, expected, pointer)
        verdict = self._gatekeeper.judge_by(rules, version)
        move = dataclasses.replace(move, override_reason=verdict.enforce(override), gates=verdict.to_json())
        with journal.writing(self._db, self._tenant_id) as connection:
            promotable_digest(connection, self._tenant_id, model_id, version)
            self._gatekeeper.confirm(connection, verdict)
            return move_pointer(connection, self._tenant_id, move, verdict.generation)

    def _move(self, model_id: ModelId, environment: EnvironmentName, change: Change, reason: str) -> Move:
        return Move(
            model_id,
            environment,
            change.trigger,
            change.version,
            None,
            self._db.principal.name,
            reason,
            percent=change.percent,
            sticky=change.sticky,
        )
