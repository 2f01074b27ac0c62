"""``RolloutRepository``: a canary or a shadow beside what an environment serves."""

from __future__ import annotations

from typing import Unpack

import sqlalchemy as sa

from ml_core.database.tables import environments
from ml_core.domain.rollout import Change, Trigger
from ml_core.ids import ModelId, VersionId
from ml_core.registry.missing import require_model_in
from ml_core.registry.pages import Page
from ml_core.registry.promotion.moving import GatedMoveOptions, MoveOptions, MovesPointers
from ml_core.registry.promotion.pointers import Pointer, list_pointers
from ml_core.registry.promotion.rules import PRODUCTION


class RolloutRepository(MovesPointers):
    """The canaries and shadows of one tenant.

    A canary answers a share of the requests; finish it to make it the stable version, or abort it. A shadow predicts
    the rows of the stable version's requests, and its answers are only counted. Starting and finishing a canary pass
    the environment's gates, as a promotion does; a shadow and a change of percent pass none.

    Each method but ``list`` is a move of the environment's pointer: its keywords, its result and the errors of any move
    are those of ``EnvironmentRepository``.
    """

    def list(self, model_id: str | None = None, *, limit: int = 100, cursor: str | None = None) -> Page[Pointer]:
        """The pointers with a canary or a shadow, of one model or of all, by model and environment."""
        model, of = None if model_id is None else ModelId(model_id), environments.c
        is_running = sa.or_(of.canary_version.is_not(None), of.shadow_version.is_not(None))
        with self._db.tenant(self._tenant_id) as connection:
            if model is not None:
                require_model_in(connection, self._tenant_id, model)
            return list_pointers(connection, self._tenant_id, model, limit, cursor, is_running)

    def start(
        self,
        model_id: str,
        version: str,
        percent: int,
        environment: str = PRODUCTION,
        *,
        sticky: str | None = None,
        **options: Unpack[GatedMoveOptions],
    ) -> Pointer:
        """Start a canary: let a version answer a share of the requests.

        Args:
            model_id: The model.
            version: The version on trial.
            percent: Share of the keys, 1 to 99.
            environment: The environment.
            sticky: The column whose value is a request's key, so that one customer always gets the same version; None:
                each request is its own.
            **options: As for ``EnvironmentRepository.promote``.

        Raises:
            InvalidTransitionError: A canary runs already, or nothing is served.
            InvalidRequestError: The percent is not 1 to 99, no server can load the version, or it is served already.
            ModelNotFoundError: There is no such version, or it is archived.
            PromotionRefusedError: A gate failed; names each failed gate and by how much.
        """
        change = Change(Trigger.START_CANARY, VersionId(version), percent, sticky)
        return self._move(model_id, environment, change, options)

    def step(
        self, model_id: str, percent: int, environment: str = PRODUCTION, **options: Unpack[MoveOptions]
    ) -> Pointer:
        """Change the canary's percent, up or down. No gate is evaluated until ``finish``.

        Raises:
            InvalidTransitionError: No canary runs.
            InvalidRequestError: The percent is not 1 to 99, or the present one.
        """
        return self._move(model_id, environment, Change(Trigger.STEP, percent=percent), options)

    def finish(self, model_id: str, environment: str = PRODUCTION, **options: Unpack[GatedMoveOptions]) -> Pointer:
        """Make the canary the stable version; ``override`` says why although a gate fails, which only an admin may.

        Raises:
            InvalidTransitionError: No canary runs.
            PromotionRefusedError: A gate failed; names each failed gate and by how much.
        """
        return self._move(model_id, environment, Change(Trigger.FINISH), options)

    def abort(self, model_id: str, environment: str = PRODUCTION, **options: Unpack[MoveOptions]) -> Pointer:
        """Remove the canary: the stable version answers every request again.

        Raises:
            InvalidTransitionError: No canary runs.
        """
        return self._move(model_id, environment, Change(Trigger.ABORT), options)

    def shadow(
        self, model_id: str, version: str, environment: str = PRODUCTION, **options: Unpack[MoveOptions]
    ) -> Pointer:
        """Start a shadow: let a version predict the rows of the stable version's requests; its answers are counted.

        Raises:
            InvalidTransitionError: A shadow runs already, or nothing is served.
            InvalidRequestError: No server can load the version, or it is served already.
            ModelNotFoundError: There is no such version, or it is archived.
        """
        return self._move(model_id, environment, Change(Trigger.START_SHADOW, VersionId(version)), options)

    def unshadow(self, model_id: str, environment: str = PRODUCTION, **options: Unpack[MoveOptions]) -> Pointer:
        """Remove the shadow.

        Raises:
            InvalidTransitionError: No shadow runs.
        """
        return self._move(model_id, environment, Change(Trigger.STOP_SHADOW), options)
