"""The platform itself: its cells, their replicas, and what these serve."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from ml_core.api.schemas.base import Schema
from ml_core.domain.job import JobKind, JobState


class Alive(Schema):
    """The process of the control API answers; whether the registry does is another question."""

    status: Literal["ok"] = "ok"


class PendingVersion(Schema):
    """A version that a pointer names and a replica has not loaded."""

    tenant_id: str
    model_id: str
    environment: str
    version: str
    state: str = Field(description="`deferred`, `loading` or `failed`.")
    serves: str | None = Field(description="The version that answers meanwhile; null: requests are refused.")
    code: str | None = Field(description="Of the error, for a failed load.")
    reason: str | None = Field(description="Its message.")


class Replica(Schema):
    """What a live replica last reported."""

    replica_id: str
    started_at: datetime
    reported_at: datetime
    generation: int = Field(description="Of the assignment that it has applied.")
    is_behind: bool = Field(description="Whether the registry is at a later generation.")
    pointers: int = Field(description="Pointers that it follows.")
    resident: int = Field(description="Models in memory.")
    deferred: int = Field(description="Versions that are loaded with the first request, since its memory is full.")
    loading: int = Field(description="Versions that are being loaded.")
    failed: int = Field(description="Versions that it could not load.")
    pending: list[PendingVersion] = Field(description="The last three, as far as the report lists them.")


class Cell(Schema):
    """Replicas that serve the same tenants."""

    name: str = Field(examples=["shared"])
    replicas: list[Replica] = Field(description="Those that are alive, the longest running first.")


class TrafficPoint(Schema):
    """The requests that ended in an interval of ten seconds."""

    at: datetime = Field(description="Its beginning.")
    requests_per_s: float
    refused_per_s: float | None = Field(description="Answered with a status of 400 to 499. Null: not known.")
    errors_per_s: float | None = Field(description="Answered with a status of 500 or above. Null: not known.")
    p50_ms: float | None = Field(description="The median latency of the answered ones. Null: there were none.")
    p99_ms: float | None = Field(description="The 99th percentile.")


class CellTraffic(Schema):
    """The requests of a cell in the last 15 minutes."""

    cell: str = Field(examples=["shared"])
    points: list[TrafficPoint] = Field(description="Oldest first; an interval without requests has zeros.")


class TenantAlerts(Schema):
    """How many environments of a tenant have an alert."""

    tenant_id: str = Field(examples=["acme"])
    quality: int = Field(description="Alerts of quality.")
    drift: int = Field(description="Alerts of drift.")


class ActiveJob(Schema):
    """A job that runs or waits."""

    tenant_id: str = Field(examples=["acme"])
    job_id: str = Field(examples=["job_0123456789abcdef"])
    kind: JobKind
    state: JobState
    cpus: float
    progress: dict[str, Any] = Field(description="What its process said last.")
    submitted_at: datetime
    started_at: datetime | None


class PlatformHealth(Schema):
    """How the platform is."""

    status: Literal["running", "degraded"] = Field(
        description="`degraded`: the store is away, the schema is another, or a cell has no replica, or one that is"
        " behind or could not load a version."
    )
    schema_revision: str | None = Field(description="Of the registry.")
    wanted_schema_revision: str = Field(description="The one that this release needs.")
    is_store_reachable: bool = Field(description="Whether the artifact store can be listed.")
    store_problem: str | None = Field(default=None, description="Why not.")
    cells: list[Cell]
