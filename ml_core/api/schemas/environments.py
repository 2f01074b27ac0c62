"""Environments: what each serves, how that moves, and what a move has to pass."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from ml_core.api.schemas.base import Input, Schema
from ml_core.domain.replica_report import LoadState


class Canary(Schema):
    """A version that answers a share of the requests."""

    version: str
    percent: int = Field(ge=1, le=99)
    sticky: str | None = Field(default=None, description="The column whose value is a request's key.")


class GateResult(Schema):
    """What the evaluation of a gate found."""

    name: str
    kind: str
    passed: bool
    message: str
    measured: float | None = None
    required: float | None = None


class Pointer(Schema):
    """What an environment of a model serves. The `ETag` of an answer is the generation."""

    model_id: str
    environment: str
    version: str | None = Field(description="The stable version; null once withdrawn.")
    canary: Canary | None = None
    shadow: str | None = None
    generation: int = Field(description="Counts the moves, from 1.")
    updated_at: datetime
    updated_by: str
    gates: list[GateResult] = Field(
        default_factory=list, description="Of the answer to a move: what the gates that were evaluated found."
    )


class Move(Schema):
    """One change of a pointer, and what the environment served afterwards."""

    generation: int
    action: str = Field(examples=["promote"])
    version: str | None
    digest: str | None
    canary: Canary | None = None
    shadow: str | None = None
    actor: str
    reason: str
    at: datetime
    restored_generation: int = Field(description="The generation that a rollback brought back; else its own.")
    gates: list[GateResult] = Field(default_factory=list)
    override_reason: str | None = None


class MoveRequest(Input):
    """What every move takes."""

    expected_generation: int | None = Field(
        default=None,
        description="Refuse unless the pointer has this generation, 0 before its first move. `If-Match` does too.",
    )
    reason: str = Field(default="", description="Why; kept with the move.")


class Promotion(MoveRequest):
    """A version to serve."""

    version: str = Field(examples=["3"])
    override: str | None = Field(default=None, description="Why it is done although a gate fails; needs `admin`.")


class NewCanary(Promotion):
    """A version to try on a share of the requests."""

    percent: int = Field(ge=1, le=99)
    sticky: str | None = Field(default=None, description="The column whose value is a request's key.")


class CanaryStep(MoveRequest):
    """A new share for the canary."""

    percent: int = Field(ge=1, le=99)


class CanaryFinish(MoveRequest):
    """The canary becomes the stable version."""

    override: str | None = Field(default=None, description="Why it is done although a gate fails; needs `admin`.")


class NewShadow(MoveRequest):
    """A version that predicts what the stable one is asked; nobody gets its answers."""

    version: str


class ReplicaAnswer(Schema):
    """What one replica has made of a pointer."""

    replica_id: str
    state: LoadState
    version: str | None = Field(default=None, description="The version that is not loaded.")
    serves: str | None = Field(default=None, description="The version that answers now.")
    code: str | None = None
    reason: str | None = None


class EnvironmentPolicy(Schema):
    """An environment of a tenant: protected ones take `admin` or `promote:<environment>`."""

    environment: str
    is_protected: bool
    updated_at: datetime | None = None
    updated_by: str | None = None


class Gate(Schema):
    """A condition that a version must meet before an environment serves it."""

    model_id: str
    environment: str
    name: str
    kind: str
    settings: dict[str, Any]
    created_at: datetime
    created_by: str


class GateSettings(Input):
    """A gate to set, in place of one of the same name."""

    kind: str = Field(
        description="`min_metric`, `not_worse`, `signature_compatible`, `digest_verified` or `approval`.",
        examples=["min_metric"],
    )
    settings: dict[str, Any] = Field(default_factory=dict, examples=[{"metric": "accuracy", "value": 0.8}])


class Approval(Schema):
    """Somebody's approval of a version for an environment."""

    model_id: str
    version: str
    environment: str
    approver: str
    reason: str
    at: datetime


class NewApproval(Input):
    """An approval to give."""

    version: str
    reason: str = ""


class Hold(Schema):
    """A reason to keep a version."""

    model_id: str
    version: str
    name: str
    reason: str
    created_at: datetime
    created_by: str


class NewHold(Input):
    """A hold to place."""

    reason: str
