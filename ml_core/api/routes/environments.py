"""Environments: what each serves, and how that moves."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Header, Path, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from ml_core.api.access import Access, TenantAccess
from ml_core.api.operation import CursorQuery, LimitQuery, operations
from ml_core.api.routes.adding import F, operation
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
from ml_core.domain.api_key import Scope
from ml_core.exceptions import InvalidRequestError
from ml_core.registry.promotion import pointers as registry
from ml_core.registry.promotion.environments import EnvironmentRepository
from ml_core.registry.promotion.gates import GateRepository
from ml_core.registry.promotion.rollouts import RolloutRepository

router = operations("environments", "/tenants/{tenant}")

_MODEL = "/models/{model}"
_ENVIRONMENT = f"{_MODEL}/environments/{{environment}}"
_MAX_WAIT_S = 60.0
_GENERATION = re.compile(r"[0-9]{1,18}")
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 0.25

EnvironmentPath = Annotated[str, Path(examples=["production"])]


class AskedMove:
    """A move of a pointer that a request asks for; its answer is the pointer, whose generation is the ``ETag``."""

    def __init__(self, access: Access, model: str, environment: str, if_match: str | None, response: Response) -> None:
        self.environments = access.of(EnvironmentRepository)
        self.rollouts = access.of(RolloutRepository)
        self._pointer = {"model_id": model, "environment": environment}
        self._if_match = if_match
        self._response = response

    def make(self, move: Callable[..., registry.Pointer], body: MoveRequest) -> Pointer:
        """Make the move: the fields of the body are the keywords of the repository's method.

        Raises:
            InvalidRequestError: The ``If-Match`` header is no generation, or not that of the body.
        """
        asked = body.model_dump()
        if self._if_match is not None:
            text = self._if_match.strip().removeprefix("W/").strip('"')
            if not _GENERATION.fullmatch(text) or body.expected_generation not in (None, int(text)):
                raise InvalidRequestError(
                    "The header If-Match does not name a generation, or another than the body.",
                    remedy='Send the ETag of the pointer, such as "7".',
                    field="if-match",
                )
            asked["expected_generation"] = int(text)
        return _tagged(move(**self._pointer, **asked), self._response)


async def _asked(
    access: TenantAccess,
    model: str,
    environment: EnvironmentPath,
    response: Response,
    if_match: Annotated[str | None, Header(description="The `ETag` of the pointer, as `expected_generation`.")] = None,
) -> AskedMove:
    return AskedMove(access, model, environment, if_match, response)


Asked = Annotated[AskedMove, Depends(_asked)]


def _moves(path: str, operation_id: str) -> Callable[[F], F]:
    return operation(router, "POST", f"{_ENVIRONMENT}/{path}", operation_id, Scope.PROMOTE, moves_pointer=True)


@operation(router, "GET", "/pointers", "environments.list", Scope.READ)
def list_pointers(
    access: TenantAccess,
    model: Annotated[str | None, Query(description="Of this model.")] = None,
    limit: LimitQuery = 100,
    cursor: CursorQuery = None,
) -> Page[Pointer]:
    """List what environments serve, by model and environment."""
    return Page[Pointer].model_validate(access.of(EnvironmentRepository).list(model, limit=limit, cursor=cursor))


@operation(router, "GET", "/rollouts", "rollouts.list", Scope.READ)
def list_rollouts(
    access: TenantAccess,
    model: Annotated[str | None, Query(description="Of this model.")] = None,
    limit: LimitQuery = 100,
    cursor: CursorQuery = None,
) -> Page[Pointer]:
    """List the pointers with a canary or a shadow."""
    return Page[Pointer].model_validate(access.of(RolloutRepository).list(model, limit=limit, cursor=cursor))


@operation(router, "GET", _ENVIRONMENT, "environments.get", Scope.READ)
def get_pointer(access: TenantAccess, model: str, environment: EnvironmentPath, response: Response) -> Pointer:
    """What an environment of a model serves; the `ETag` is its generation."""
    return _tagged(access.of(EnvironmentRepository).get(model, environment), response)


@_moves("promote", "environments.promote")
def promote(asked: Asked, body: Promotion) -> Pointer:
    """Point an environment to a version, so that it is served from now on; its gates are evaluated first."""
    return asked.make(asked.environments.promote, body)


@_moves("rollback", "environments.rollback")
def roll_back(asked: Asked, body: MoveRequest) -> Pointer:
    """Point an environment back to the version that it served before. No gate is evaluated."""
    return asked.make(asked.environments.rollback, body)


@_moves("withdraw", "environments.withdraw")
def withdraw(asked: Asked, body: MoveRequest) -> Pointer:
    """Let an environment serve nothing; a rollback undoes it."""
    return asked.make(asked.environments.withdraw, body)


@operation(router, "GET", f"{_ENVIRONMENT}/moves", "environments.history", Scope.READ)
def list_moves(
    access: TenantAccess,
    model: str,
    environment: EnvironmentPath,
    limit: LimitQuery = 100,
    cursor: CursorQuery = None,
) -> Page[Move]:
    """List the moves of an environment, newest first."""
    found = access.of(EnvironmentRepository).history(model, environment, limit=limit, cursor=cursor)
    return Page[Move].model_validate(found)


@operation(router, "GET", f"{_ENVIRONMENT}/replicas", "environments.replicas", Scope.READ)
async def list_replica_answers(
    access: TenantAccess,
    model: str,
    environment: EnvironmentPath,
    version: Annotated[str | None, Query(description="Of this version of the rollout alone.")] = None,
    wait_s: Annotated[float, Query(ge=0, le=_MAX_WAIT_S, description="Wait until each has loaded it, or can't.")] = 0.0,
) -> list[ReplicaAnswer]:
    """What each running replica has made of a pointer."""
    environments, deadline, pause = access.of(EnvironmentRepository), time.monotonic() + wait_s, _FIRST_PAUSE_S
    while True:
        answers = await run_in_threadpool(environments.replicas, model, environment, version=version)
        if all(answer.state.is_final for answer in answers) or time.monotonic() >= deadline:
            return [ReplicaAnswer.model_validate(answer) for answer in answers]
        await asyncio.sleep(pause)  # no thread waits meanwhile
        pause = min(1.5 * pause, _LONGEST_PAUSE_S)


@operation(router, "GET", f"{_ENVIRONMENT}/approvals", "environments.approvals", Scope.READ)
def list_approvals(
    access: TenantAccess,
    model: str,
    environment: EnvironmentPath,
    version: Annotated[str, Query(description="Of this version.")],
) -> list[Approval]:
    """List the approvals of a version for an environment."""
    return [
        Approval.model_validate(found) for found in access.of(GateRepository).approvals(model, version, environment)
    ]


@operation(router, "POST", f"{_ENVIRONMENT}/approvals", "environments.approve", Scope.APPROVE, creates=True)
def approve(access: TenantAccess, model: str, environment: EnvironmentPath, body: NewApproval) -> Approval:
    """Approve a version that somebody else registered."""
    return Approval.model_validate(
        access.of(GateRepository).approve(model, body.version, environment, reason=body.reason)
    )


@_moves("canary", "rollouts.start")
def start_canary(asked: Asked, body: NewCanary) -> Pointer:
    """Start a canary: let a version answer a share of the requests; the gates are evaluated first."""
    return asked.make(asked.rollouts.start, body)


@_moves("canary/step", "rollouts.step")
def step_canary(asked: Asked, body: CanaryStep) -> Pointer:
    """Change the canary's percent, up or down."""
    return asked.make(asked.rollouts.step, body)


@_moves("canary/finish", "rollouts.finish")
def finish_canary(asked: Asked, body: CanaryFinish) -> Pointer:
    """Make the canary the stable version; the gates are evaluated first."""
    return asked.make(asked.rollouts.finish, body)


@_moves("canary/abort", "rollouts.abort")
def abort_canary(asked: Asked, body: MoveRequest) -> Pointer:
    """Drop the canary: the stable version answers everything again."""
    return asked.make(asked.rollouts.abort, body)


@_moves("shadow", "rollouts.shadow")
def start_shadow(asked: Asked, body: NewShadow) -> Pointer:
    """Start a shadow: let a version predict what the stable one is asked; nobody gets its answers."""
    return asked.make(asked.rollouts.shadow, body)


@_moves("shadow/stop", "rollouts.unshadow")
def stop_shadow(asked: Asked, body: MoveRequest) -> Pointer:
    """Drop the shadow."""
    return asked.make(asked.rollouts.unshadow, body)


@operation(router, "GET", f"{_MODEL}/gates", "gates.list", Scope.READ)
def list_gates(
    access: TenantAccess,
    model: str,
    environment: Annotated[str | None, Query(description="Of this environment.")] = None,
) -> list[Gate]:
    """List the gates of a model."""
    return [Gate.model_validate(found) for found in access.of(GateRepository).list(model, environment)]


@operation(router, "GET", f"{_ENVIRONMENT}/evaluation", "gates.evaluate", Scope.READ)
async def evaluate_gates(
    access: TenantAccess,
    request: Request,
    model: str,
    environment: EnvironmentPath,
    version: Annotated[str, Query(description="The version that would be promoted.")],
) -> list[GateResult]:
    """What the gates of an environment find of a version now, as a promotion would; nothing is moved."""
    environments = access.of(EnvironmentRepository)
    # A gate may predict thousands of rows, and whoever only reads must not take every thread for that.
    async with request.app.state.services.report_work.of(access.tenant_id):
        results = await run_in_threadpool(environments.evaluate, model, version, environment)
    return [GateResult.model_validate(result) for result in results]


@operation(router, "PUT", f"{_ENVIRONMENT}/gates/{{gate}}", "gates.set", Scope.ADMIN)
def set_gate(access: TenantAccess, model: str, environment: EnvironmentPath, gate: str, body: GateSettings) -> Gate:
    """Set a gate, in place of one of the same name."""
    return Gate.model_validate(access.of(GateRepository).set(model, environment, gate, body.kind, body.settings))


@operation(router, "DELETE", f"{_ENVIRONMENT}/gates/{{gate}}", "gates.remove", Scope.ADMIN)
def remove_gate(access: TenantAccess, model: str, environment: EnvironmentPath, gate: str) -> None:
    """Remove a gate."""
    access.of(GateRepository).remove(model, environment, gate)


@operation(router, "GET", "/environments", "environments.policies", Scope.READ)
def list_policies(access: TenantAccess) -> list[EnvironmentPolicy]:
    """List the environments that there are, and which are protected."""
    return [EnvironmentPolicy.model_validate(found) for found in access.of(EnvironmentRepository).policies()]


@operation(router, "PUT", "/environments/{environment}/protection", "environments.protect", Scope.ADMIN)
def protect(access: TenantAccess, environment: EnvironmentPath) -> EnvironmentPolicy:
    """Let only `admin` and `promote:<environment>` move the environment's pointers."""
    return EnvironmentPolicy.model_validate(access.of(EnvironmentRepository).protect(environment))


@operation(router, "DELETE", "/environments/{environment}/protection", "environments.unprotect", Scope.ADMIN)
def unprotect(access: TenantAccess, environment: EnvironmentPath) -> EnvironmentPolicy:
    """Let whoever may promote move the environment's pointers."""
    return EnvironmentPolicy.model_validate(access.of(EnvironmentRepository).unprotect(environment))


def _tagged(pointer: registry.Pointer, response: Response) -> Pointer:
    response.headers["etag"] = f'"{pointer.generation}"'
    return Pointer.model_validate(pointer)
