"""Environments: what each serves, and how that moves."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Annotated, Any

from fastapi import Header, Path, Query, Response, status
from starlette.concurrency import run_in_threadpool

from ml_core.api.access import TenantAccess, needs
from ml_core.api.operation import CursorQuery, LimitQuery, operations
from ml_core.api.schemas.base import Page
from ml_core.api.schemas.environments import (
    Approval,
    CanaryFinish,
    CanaryStep,
    EnvironmentPolicy,
    Gate,
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
_MOVES = needs(Scope.PROMOTE, is_checked_first=False)
_MAX_WAIT_S = 60.0
_GENERATION = re.compile(r"[0-9]{1,18}")
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 0.25

EnvironmentPath = Annotated[str, Path(examples=["production"])]
IfMatch = Annotated[str | None, Header(description="The `ETag` of the pointer, as `expected_generation`.")]


@router.get("/pointers", operation_id="environments.list", openapi_extra=needs(Scope.READ))
def list_pointers(
    access: TenantAccess,
    model: Annotated[str | None, Query(description="Of this model.")] = None,
    limit: LimitQuery = 100,
    cursor: CursorQuery = None,
) -> Page[Pointer]:
    """List what environments serve, by model and environment."""
    return Page[Pointer].model_validate(_environments(access).list(model, limit=limit, cursor=cursor))


@router.get("/rollouts", operation_id="rollouts.list", openapi_extra=needs(Scope.READ))
def list_rollouts(
    access: TenantAccess,
    model: Annotated[str | None, Query(description="Of this model.")] = None,
    limit: LimitQuery = 100,
    cursor: CursorQuery = None,
) -> Page[Pointer]:
    """List the pointers with a canary or a shadow."""
    return Page[Pointer].model_validate(_rollouts(access).list(model, limit=limit, cursor=cursor))


@router.get(_ENVIRONMENT, operation_id="environments.get", openapi_extra=needs(Scope.READ))
def get_pointer(access: TenantAccess, model: str, environment: EnvironmentPath, response: Response) -> Pointer:
    """What an environment of a model serves; the `ETag` is its generation."""
    return _tagged(_environments(access).get(model, environment), response)


@router.post(f"{_ENVIRONMENT}/promote", operation_id="environments.promote", openapi_extra=_MOVES)
def promote(
    access: TenantAccess,
    model: str,
    environment: EnvironmentPath,
    body: Promotion,
    response: Response,
    if_match: IfMatch = None,
) -> Pointer:
    """Point an environment to a version, so that it is served from now on; its gates are evaluated first."""
    moved = _environments(access).promote(
        model, body.version, environment, override=body.override, **_conditions(body, if_match)
    )
    return _tagged(moved, response)


@router.post(f"{_ENVIRONMENT}/rollback", operation_id="environments.rollback", openapi_extra=_MOVES)
def roll_back(
    access: TenantAccess,
    model: str,
    environment: EnvironmentPath,
    body: MoveRequest,
    response: Response,
    if_match: IfMatch = None,
) -> Pointer:
    """Point an environment back to the version that it served before. No gate is evaluated."""
    return _tagged(_environments(access).rollback(model, environment, **_conditions(body, if_match)), response)


@router.post(f"{_ENVIRONMENT}/withdraw", operation_id="environments.withdraw", openapi_extra=_MOVES)
def withdraw(
    access: TenantAccess,
    model: str,
    environment: EnvironmentPath,
    body: MoveRequest,
    response: Response,
    if_match: IfMatch = None,
) -> Pointer:
    """Let an environment serve nothing; a rollback undoes it."""
    return _tagged(_environments(access).withdraw(model, environment, **_conditions(body, if_match)), response)


@router.get(f"{_ENVIRONMENT}/moves", operation_id="environments.history", openapi_extra=needs(Scope.READ))
def list_moves(
    access: TenantAccess,
    model: str,
    environment: EnvironmentPath,
    limit: LimitQuery = 100,
    cursor: CursorQuery = None,
) -> Page[Move]:
    """List the moves of an environment, newest first."""
    found = _environments(access).history(model, environment, limit=limit, cursor=cursor)
    return Page[Move].model_validate(found)


@router.get(f"{_ENVIRONMENT}/replicas", operation_id="environments.replicas", openapi_extra=needs(Scope.READ))
async def list_replica_answers(
    access: TenantAccess,
    model: str,
    environment: EnvironmentPath,
    version: Annotated[str | None, Query(description="Of this version of the rollout alone.")] = None,
    wait_s: Annotated[float, Query(ge=0, le=_MAX_WAIT_S, description="Wait until each has loaded it, or can't.")] = 0.0,
) -> list[ReplicaAnswer]:
    """What each running replica has made of a pointer."""
    environments, deadline, pause = _environments(access), time.monotonic() + wait_s, _FIRST_PAUSE_S
    while True:
        answers = await run_in_threadpool(environments.replicas, model, environment, version=version)
        if all(answer.is_final for answer in answers) or time.monotonic() >= deadline:
            return [ReplicaAnswer.model_validate(answer) for answer in answers]
        await asyncio.sleep(pause)  # no thread waits meanwhile
        pause = min(1.5 * pause, _LONGEST_PAUSE_S)


@router.get(f"{_ENVIRONMENT}/approvals", operation_id="environments.approvals", openapi_extra=needs(Scope.READ))
def list_approvals(
    access: TenantAccess,
    model: str,
    environment: EnvironmentPath,
    version: Annotated[str, Query(description="Of this version.")],
) -> list[Approval]:
    """List the approvals of a version for an environment."""
    return [Approval.model_validate(found) for found in _gates(access).approvals(model, version, environment)]


@router.post(
    f"{_ENVIRONMENT}/approvals",
    operation_id="environments.approve",
    openapi_extra=needs(Scope.APPROVE),
    status_code=status.HTTP_201_CREATED,
)
def approve(access: TenantAccess, model: str, environment: EnvironmentPath, body: NewApproval) -> Approval:
    """Approve a version that somebody else registered."""
    return Approval.model_validate(_gates(access).approve(model, body.version, environment, reason=body.reason))


@router.post(f"{_ENVIRONMENT}/canary", operation_id="rollouts.start", openapi_extra=_MOVES)
def start_canary(
    access: TenantAccess,
    model: str,
    environment: EnvironmentPath,
    body: NewCanary,
    response: Response,
    if_match: IfMatch = None,
) -> Pointer:
    """Start a canary: let a version answer a share of the requests; the gates are evaluated first."""
    moved = _rollouts(access).start(
        model,
        body.version,
        body.percent,
        environment,
        sticky=body.sticky,
        override=body.override,
        **_conditions(body, if_match),
    )
    return _tagged(moved, response)


@router.post(f"{_ENVIRONMENT}/canary/step", operation_id="rollouts.step", openapi_extra=_MOVES)
def step_canary(
    access: TenantAccess,
    model: str,
    environment: EnvironmentPath,
    body: CanaryStep,
    response: Response,
    if_match: IfMatch = None,
) -> Pointer:
    """Change the canary's percent, up or down."""
    moved = _rollouts(access).step(model, body.percent, environment, **_conditions(body, if_match))
    return _tagged(moved, response)


@router.post(f"{_ENVIRONMENT}/canary/finish", operation_id="rollouts.finish", openapi_extra=_MOVES)
def finish_canary(
    access: TenantAccess,
    model: str,
    environment: EnvironmentPath,
    body: CanaryFinish,
    response: Response,
    if_match: IfMatch = None,
) -> Pointer:
    """Make the canary the stable version; the gates are evaluated first."""
    moved = _rollouts(access).finish(model, environment, override=body.override, **_conditions(body, if_match))
    return _tagged(moved, response)


@router.post(f"{_ENVIRONMENT}/canary/abort", operation_id="rollouts.abort", openapi_extra=_MOVES)
def abort_canary(
    access: TenantAccess,
    model: str,
    environment: EnvironmentPath,
    body: MoveRequest,
    response: Response,
    if_match: IfMatch = None,
) -> Pointer:
    """Drop the canary: the stable version answers everything again."""
    return _tagged(_rollouts(access).abort(model, environment, **_conditions(body, if_match)), response)


@router.post(f"{_ENVIRONMENT}/shadow", operation_id="rollouts.shadow", openapi_extra=_MOVES)
def start_shadow(
    access: TenantAccess,
    model: str,
    environment: EnvironmentPath,
    body: NewShadow,
    response: Response,
    if_match: IfMatch = None,
) -> Pointer:
    """Start a shadow: let a version predict what the stable one is asked; nobody gets its answers."""
    moved = _rollouts(access).shadow(model, body.version, environment, **_conditions(body, if_match))
    return _tagged(moved, response)


@router.post(f"{_ENVIRONMENT}/shadow/stop", operation_id="rollouts.unshadow", openapi_extra=_MOVES)
def stop_shadow(
    access: TenantAccess,
    model: str,
    environment: EnvironmentPath,
    body: MoveRequest,
    response: Response,
    if_match: IfMatch = None,
) -> Pointer:
    """Drop the shadow."""
    return _tagged(_rollouts(access).unshadow(model, environment, **_conditions(body, if_match)), response)


@router.get(f"{_MODEL}/gates", operation_id="gates.list", openapi_extra=needs(Scope.READ))
def list_gates(
    access: TenantAccess,
    model: str,
    environment: Annotated[str | None, Query(description="Of this environment.")] = None,
) -> list[Gate]:
    """List the gates of a model."""
    return [Gate.model_validate(found) for found in _gates(access).list(model, environment)]


@router.put(f"{_ENVIRONMENT}/gates/{{gate}}", operation_id="gates.set", openapi_extra=needs(Scope.ADMIN))
def set_gate(access: TenantAccess, model: str, environment: EnvironmentPath, gate: str, body: GateSettings) -> Gate:
    """Set a gate, in place of one of the same name."""
    return Gate.model_validate(_gates(access).set(model, environment, gate, body.kind, body.settings))


@router.delete(
    f"{_ENVIRONMENT}/gates/{{gate}}",
    operation_id="gates.remove",
    openapi_extra=needs(Scope.ADMIN),
    status_code=status.HTTP_204_NO_CONTENT,
)
def remove_gate(access: TenantAccess, model: str, environment: EnvironmentPath, gate: str) -> None:
    """Remove a gate."""
    _gates(access).remove(model, environment, gate)


@router.get("/environments", operation_id="environments.policies", openapi_extra=needs(Scope.READ))
def list_policies(access: TenantAccess) -> list[EnvironmentPolicy]:
    """List the environments that there are, and which are protected."""
    return [EnvironmentPolicy.model_validate(found) for found in _environments(access).policies()]


@router.put(
    "/environments/{environment}/protection",
    operation_id="environments.protect",
    openapi_extra=needs(Scope.ADMIN),
)
def protect(access: TenantAccess, environment: EnvironmentPath) -> EnvironmentPolicy:
    """Let only `admin` and `promote:<environment>` move the environment's pointers."""
    return EnvironmentPolicy.model_validate(_environments(access).protect(environment))


@router.delete(
    "/environments/{environment}/protection",
    operation_id="environments.unprotect",
    openapi_extra=needs(Scope.ADMIN),
)
def unprotect(access: TenantAccess, environment: EnvironmentPath) -> EnvironmentPolicy:
    """Let whoever may promote move the environment's pointers."""
    return EnvironmentPolicy.model_validate(_environments(access).unprotect(environment))


def _environments(access: TenantAccess) -> EnvironmentRepository:
    return EnvironmentRepository(access.db, access.tenant_id)


def _rollouts(access: TenantAccess) -> RolloutRepository:
    return RolloutRepository(access.db, access.tenant_id)


def _gates(access: TenantAccess) -> GateRepository:
    return GateRepository(access.db, access.tenant_id)


def _conditions(body: MoveRequest, if_match: str | None) -> dict[str, Any]:
    """The arguments that every move has: reason, and the generation of the body or of the ``If-Match`` header."""
    expected = body.expected_generation
    if if_match is not None:
        text = if_match.strip().removeprefix("W/").strip('"')
        if not _GENERATION.fullmatch(text) or expected not in (None, int(text)):
            raise InvalidRequestError(
                "The header If-Match does not name a generation, or another than the body.",
                remedy='Send the ETag of the pointer, such as "7".',
                field="if-match",
            )
        expected = int(text)
    return {"expected_generation": expected, "reason": body.reason}


def _tagged(pointer: registry.Pointer, response: Response) -> Pointer:
    response.headers["etag"] = f'"{pointer.generation}"'
    return Pointer.model_validate(pointer)
