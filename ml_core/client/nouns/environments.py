"""Environments, rollouts and gates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from ml_core.api.schemas.base import Page
from ml_core.api.schemas.environments import (
    Approval,
    CanaryFinish,
    CanaryStep,
    EnvironmentPolicy,
    Gate,
    GateResult,
    GateSettings,
    Move,
    MoveRequest,
    NewApproval,
    NewCanary,
    NewShadow,
    Pointer,
    Promotion,
    ReplicaAnswer,
)
from ml_core.client.calls import Call, Mode, Noun, list_of, listing, operation
from ml_core.domain.keywords import check_keywords
from ml_core.domain.rollout import GatedMoving, Moving
from ml_core.ids import EnvironmentName, GateName, ModelId

_GATES_S = 120.0
"""Gates may predict thousands of held-out rows with two versions."""


class _OfEnvironment(Noun[Mode]):
    def _environment(self, model_id: str, environment: str) -> str:
        return f"{self._model(model_id)}/environments/{EnvironmentName(environment)}"

    def _move(
        self, model_id: str, environment: str, move: str, body: type[MoveRequest], **fields: Any
    ) -> Call[Pointer]:
        check_keywords(move, fields, body.model_fields)
        path = f"{self._environment(model_id, environment)}/{move}"
        timeout_s = _GATES_S if "override" in body.model_fields else None
        return Call("POST", path, Pointer, body=body(**fields), timeout_s=timeout_s)


class Environments(_OfEnvironment[Mode]):
    """What each environment of a model serves. Each move takes the keywords of ``Moving`` or ``GatedMoving``."""

    @operation
    def get(self, model_id: str, environment: str = "production") -> Call[Pointer]:
        """What an environment serves."""
        return Call("GET", self._environment(model_id, environment), Pointer)

    @listing
    def list(self, model_id: str | None = None) -> Call[Page[Pointer]]:
        """The pointers of one model or of all."""
        return Call("GET", f"{self._root}/pointers", Page[Pointer], {"model": model_id and ModelId(model_id)})

    @operation
    def promote(
        self, model_id: str, version: str, environment: str = "production", **moving: Unpack[GatedMoving]
    ) -> Call[Pointer]:
        """Point an environment to a version, so that it is served from now on.

        Args:
            model_id: The model.
            version: The version to serve.
            environment: The pointer to move.
            **moving: ``expected_generation``, ``reason`` and ``override``, see ``GatedMoving``.
        """
        return self._move(model_id, environment, "promote", Promotion, version=version, **moving)

    @operation
    def rollback(self, model_id: str, environment: str = "production", **moving: Unpack[Moving]) -> Call[Pointer]:
        """Point an environment back to the version that it served before. No gate is evaluated."""
        return self._move(model_id, environment, "rollback", MoveRequest, **moving)

    @operation
    def withdraw(self, model_id: str, environment: str = "production", **moving: Unpack[Moving]) -> Call[Pointer]:
        """Let an environment serve nothing; ``rollback`` undoes it."""
        return self._move(model_id, environment, "withdraw", MoveRequest, **moving)

    @listing
    def history(self, model_id: str, environment: str = "production") -> Call[Page[Move]]:
        """The moves of an environment, newest first."""
        return Call("GET", f"{self._environment(model_id, environment)}/moves", Page[Move])

    @operation
    def replicas(
        self, model_id: str, environment: str = "production", *, version: str | None = None, wait_s: float = 0.0
    ) -> Call[list_of[ReplicaAnswer]]:
        """What each running replica has made of a pointer.

        Args:
            model_id: The model.
            environment: The pointer.
            version: Of this version of the rollout alone; None: of all that the pointer names.
            wait_s: Seconds to wait at most until each replica has loaded what the pointer names, or failed to.
        """
        path = f"{self._environment(model_id, environment)}/replicas"
        return Call("GET", path, list_of[ReplicaAnswer], {"version": version, "wait_s": wait_s}, timeout_s=wait_s + 10)

    @operation
    def approve(
        self, model_id: str, version: str, environment: str = "production", *, reason: str = ""
    ) -> Call[Approval]:
        """Approve a version that somebody else registered."""
        body = NewApproval(version=version, reason=reason)
        return Call("POST", f"{self._environment(model_id, environment)}/approvals", Approval, body=body)

    @operation
    def approvals(self, model_id: str, version: str, environment: str = "production") -> Call[list_of[Approval]]:
        """The approvals of a version for an environment."""
        path = f"{self._environment(model_id, environment)}/approvals"
        return Call("GET", path, list_of[Approval], {"version": version})

    @operation
    def policies(self) -> Call[list_of[EnvironmentPolicy]]:
        """The environments that there are, and which are protected."""
        return Call("GET", f"{self._root}/environments", list_of[EnvironmentPolicy])

    @operation
    def protect(self, environment: str) -> Call[EnvironmentPolicy]:
        """Let only ``admin`` and ``promote:<environment>`` move the environment's pointers."""
        return Call("PUT", f"{self._root}/environments/{EnvironmentName(environment)}/protection", EnvironmentPolicy)

    @operation
    def unprotect(self, environment: str) -> Call[EnvironmentPolicy]:
        """Let whoever may promote move the environment's pointers."""
        path = f"{self._root}/environments/{EnvironmentName(environment)}/protection"
        return Call("DELETE", path, EnvironmentPolicy)


class Rollouts(_OfEnvironment[Mode]):
    """Canaries and shadows beside what an environment serves."""

    @listing
    def list(self, model_id: str | None = None) -> Call[Page[Pointer]]:
        """The pointers with a canary or a shadow, of one model or of all."""
        return Call("GET", f"{self._root}/rollouts", Page[Pointer], {"model": model_id and ModelId(model_id)})

    @operation
    def start(
        self,
        model_id: str,
        version: str,
        percent: int,
        environment: str = "production",
        *,
        sticky: str | None = None,
        **moving: Unpack[GatedMoving],
    ) -> Call[Pointer]:
        """Start a canary: let a version answer a share of the requests.

        Args:
            model_id: The model.
            version: The version to try.
            percent: Share of the keys, 1 to 99.
            environment: The pointer.
            sticky: The column whose value is a request's key, so that one customer always gets the same version.
            **moving: ``expected_generation``, ``reason`` and ``override``, see ``GatedMoving``.
        """
        given = {"version": version, "percent": percent, "sticky": sticky}
        return self._move(model_id, environment, "canary", NewCanary, **given, **moving)

    @operation
    def step(
        self, model_id: str, percent: int, environment: str = "production", **moving: Unpack[Moving]
    ) -> Call[Pointer]:
        """Change the canary's percent, up or down."""
        return self._move(model_id, environment, "canary/step", CanaryStep, percent=percent, **moving)

    @operation
    def finish(self, model_id: str, environment: str = "production", **moving: Unpack[GatedMoving]) -> Call[Pointer]:
        """Make the canary the stable version."""
        return self._move(model_id, environment, "canary/finish", CanaryFinish, **moving)

    @operation
    def abort(self, model_id: str, environment: str = "production", **moving: Unpack[Moving]) -> Call[Pointer]:
        """Drop the canary: the stable version answers everything again."""
        return self._move(model_id, environment, "canary/abort", MoveRequest, **moving)

    @operation
    def shadow(
        self, model_id: str, version: str, environment: str = "production", **moving: Unpack[Moving]
    ) -> Call[Pointer]:
        """Start a shadow: let a version predict what the stable one is asked; nobody gets its answers."""
        return self._move(model_id, environment, "shadow", NewShadow, version=version, **moving)

    @operation
    def unshadow(self, model_id: str, environment: str = "production", **moving: Unpack[Moving]) -> Call[Pointer]:
        """Drop the shadow."""
        return self._move(model_id, environment, "shadow/stop", MoveRequest, **moving)


class Gates(_OfEnvironment[Mode]):
    """What a version must meet before an environment serves it."""

    @operation
    def set(
        self, model_id: str, environment: str, name: str, kind: str, settings: Mapping[str, Any] | None = None
    ) -> Call[Gate]:
        """Set a gate, in place of one of the same name.

        Args:
            model_id: The model.
            environment: The environment.
            name: The gate's name.
            kind: ``min_metric``, ``not_worse``, ``signature_compatible``, ``digest_verified`` or ``approval``.
            settings: Those of the kind.
        """
        body = GateSettings(kind=kind, settings=dict(settings or {}))
        return Call("PUT", f"{self._environment(model_id, environment)}/gates/{GateName(name)}", Gate, body=body)

    @operation
    def list(self, model_id: str, environment: str | None = None) -> Call[list_of[Gate]]:
        """The gates of a model, of one environment or of all."""
        params = {"environment": environment and EnvironmentName(environment)}
        return Call("GET", f"{self._model(model_id)}/gates", list_of[Gate], params)

    @operation
    def evaluate(self, model_id: str, version: str, environment: str = "production") -> Call[list_of[GateResult]]:
        """What the gates of an environment find of a version now, as a promotion would; nothing is moved."""
        path = f"{self._environment(model_id, environment)}/evaluation"
        return Call("GET", path, list_of[GateResult], {"version": version}, timeout_s=_GATES_S)

    @operation
    def remove(self, model_id: str, environment: str, name: str) -> Call[None]:
        """Remove a gate."""
        return Call("DELETE", f"{self._environment(model_id, environment)}/gates/{GateName(name)}", type(None))
