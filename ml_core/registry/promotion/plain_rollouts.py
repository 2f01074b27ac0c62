"""``MLSystem.rollouts`` and ``ModelRegistry.rollouts``: canaries and shadows of one tenant, in plain names."""

from __future__ import annotations

from collections.abc import Sequence

from ml_core.domain.replica_report import ReplicaAnswer
from ml_core.ids import EnvironmentName, ModelId, VersionId
from ml_core.registry.promotion.pointers import Pointer
from ml_core.registry.promotion.rollouts import RolloutRepository

_PRODUCTION = "production"


class Rollouts:
    """Canaries and shadows beside what an environment serves.

    A canary answers a share of the requests; finish it to make it the stable version, or abort it. A shadow predicts
    what the stable version is asked, and nobody gets its answers. Starting and finishing a canary pass the
    environment's gates, as a promotion does.

    Each method returns the pointer after the move: ``version`` (the stable one), ``canary``, ``shadow`` and
    ``generation``. Each that moves it takes ``reason``, for the history, and ``expected_generation``: the move is
    refused unless the pointer has that generation. Each may raise:

    * ``PermissionDeniedError``: the connection's principal may not move the environment;
    * ``PromotionConflictError``: somebody else moved the pointer meanwhile;
    * ``InvalidRequestError``: there is no such environment.
    """

    def __init__(self, repository: RolloutRepository) -> None:
        self._repository = repository

    def get(self, model_id: str, environment: str = _PRODUCTION) -> Pointer:
        """What an environment serves.

        Raises:
            ModelNotFoundError: Nothing was ever promoted to it.
        """
        return self._repository.get(ModelId(model_id), EnvironmentName(environment))

    def list(self, model_id: str | None = None) -> Sequence[Pointer]:
        """The pointers beside whose version a canary or a shadow runs, of one model or of all.

        Raises:
            ModelNotFoundError: There is no such model.
        """
        return self._repository.list(None if model_id is None else ModelId(model_id))

    def replicas(
        self, model_id: str, environment: str = _PRODUCTION, *, wait_s: float = 0.0
    ) -> Sequence[ReplicaAnswer]:
        """What each running replica has made of what an environment names.

        A promotion returns when the pointer has moved. Replicas follow within a moment; this waits for them::

            system.promote("tickets", "2")
            for answer in system.rollouts.replicas("tickets", wait_s=10):
                print(answer.replica_id, answer.state, answer.reason)

        Args:
            model_id: The model.
            environment: The pointer.
            wait_s: Seconds to wait at most until each replica has loaded what the pointer names, or failed to.

        Returns:
            One answer a replica; none where no replica runs. ``replica_id``; ``state``: ``loaded``, ``deferred`` (its
            memory is full: the first request loads it), ``loading``, ``behind`` (it has not read the move yet) or
            ``failed``; ``version``: the one that is not loaded; ``serves``: the one that answers now; ``code`` and
            ``reason`` of a failure.

        Raises:
            ModelNotFoundError: Nothing was ever promoted to it.
        """
        return self._repository.replicas(ModelId(model_id), EnvironmentName(environment), wait_s=wait_s)

    def start(
        self,
        model_id: str,
        version: str,
        percent: int,
        environment: str = _PRODUCTION,
        *,
        sticky: str | None = None,
        expected_generation: int | None = None,
        reason: str = "",
        override: str | None = None,
    ) -> Pointer:
        """Start a canary: let a version answer a share of the requests.

        Args:
            model_id: The model.
            version: The version on trial.
            percent: Share of the keys, 1 to 99.
            environment: The pointer.
            sticky: The column whose value is a request's key, so that one customer always gets the same version; None:
                each request is its own.
            expected_generation: Refuse unless the pointer has this generation.
            reason: Why, for the history.
            override: Why it is done although a gate refuses; only an admin may.

        Raises:
            InvalidTransitionError: A canary runs already, or nothing is served.
            InvalidRequestError: The percent can't be one, no server can load the version, or it is served already.
            ModelNotFoundError: There is no such version, or it is archived.
            PromotionRefusedError: A gate refuses the version; names each such gate and by how much.
        """
        return self._repository.start_canary(
            ModelId(model_id),
            VersionId(version),
            EnvironmentName(environment),
            percent,
            sticky=sticky,
            expected_generation=expected_generation,
            reason=reason,
            override=override,
        )

    def step(
        self,
        model_id: str,
        percent: int,
        environment: str = _PRODUCTION,
        *,
        expected_generation: int | None = None,
        reason: str = "",
    ) -> Pointer:
        """Change the canary's percent, up or down.

        Raises:
            InvalidTransitionError: No canary runs.
            InvalidRequestError: The percent can't be one.
        """
        return self._repository.step(
            ModelId(model_id),
            EnvironmentName(environment),
            percent,
            expected_generation=expected_generation,
            reason=reason,
        )

    def finish(
        self,
        model_id: str,
        environment: str = _PRODUCTION,
        *,
        expected_generation: int | None = None,
        reason: str = "",
        override: str | None = None,
    ) -> Pointer:
        """Make the canary the stable version; ``override`` says why although a gate refuses, which only an admin may.

        Raises:
            InvalidTransitionError: No canary runs.
            PromotionRefusedError: A gate refuses the version; names each such gate and by how much.
        """
        return self._repository.finish(
            ModelId(model_id),
            EnvironmentName(environment),
            expected_generation=expected_generation,
            reason=reason,
            override=override,
        )

    def abort(
        self,
        model_id: str,
        environment: str = _PRODUCTION,
        *,
        expected_generation: int | None = None,
        reason: str = "",
    ) -> Pointer:
        """Drop the canary: the stable version answers everything again.

        Raises:
            InvalidTransitionError: No canary runs.
        """
        return self._repository.abort(
            ModelId(model_id), EnvironmentName(environment), expected_generation=expected_generation, reason=reason
        )

    def shadow(
        self,
        model_id: str,
        version: str,
        environment: str = _PRODUCTION,
        *,
        expected_generation: int | None = None,
        reason: str = "",
    ) -> Pointer:
        """Start a shadow: let a version predict what the stable one is asked, without anybody getting its answers.

        Raises:
            InvalidTransitionError: A shadow runs already, or nothing is served.
            InvalidRequestError: No server can load the version, or it is served already.
            ModelNotFoundError: There is no such version, or it is archived.
        """
        return self._repository.start_shadow(
            ModelId(model_id),
            VersionId(version),
            EnvironmentName(environment),
            expected_generation=expected_generation,
            reason=reason,
        )

    def unshadow(
        self,
        model_id: str,
        environment: str = _PRODUCTION,
        *,
        expected_generation: int | None = None,
        reason: str = "",
    ) -> Pointer:
        """Drop the shadow.

        Raises:
            InvalidTransitionError: No shadow runs.
        """
        return self._repository.stop_shadow(
            ModelId(model_id), EnvironmentName(environment), expected_generation=expected_generation, reason=reason
        )
