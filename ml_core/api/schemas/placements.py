"""Placements: which cell serves a tenant, and the bounds of a cell's autoscaling."""

from __future__ import annotations

from datetime import datetime

from pydantic import ConfigDict, Field

from ml_core.api.schemas.base import Schema


class Bounds(Schema):
    """The bounds of a cell's autoscaling; equal ones switch it off."""

    model_config = ConfigDict(extra="forbid")

    min_replicas: int = Field(
        default=1,
        description="Replicas without load, up to 1,000; 0, of a dedicated cell: after 15 minutes without a "
        "request it ends, and the next one starts it again.",
    )
    max_replicas: int = Field(default=1, description="Replicas under load at most, up to 1,000.")
    target_ongoing: int = Field(
        default=32, description="Concurrent requests per replica that autoscaling aims at, 1 to 256."
    )


class NewPlacement(Bounds):
    """Where a tenant is to be served."""

    is_dedicated: bool = Field(description="Whether it has a cell of its own, with these bounds.")


class Placement(NewPlacement):
    """Where a tenant is served."""

    model_config = ConfigDict(extra="ignore")

    tenant_id: str = Field(examples=["acme"])
    cell: str = Field(
        description="The cell that serves it: during a move, and while a cell that may have no replicas has none, not "
        "the one that was asked for.",
        examples=["t-acme"],
    )
    updated_at: datetime | None = Field(default=None, description="When it was set; null: never.")
    updated_by: str | None = None
