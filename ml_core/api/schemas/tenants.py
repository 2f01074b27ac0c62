"""Tenants, and what the platform keeps for them."""

from __future__ import annotations

from datetime import datetime

from pydantic import ConfigDict, Field

from ml_core.api.schemas.base import Input, Schema
from ml_core.domain.tenant_policies import SelfTestRows


class Tenant(Schema):
    """A customer whose data and models are isolated."""

    tenant_id: str = Field(examples=["acme"])
    cell: str = Field(description="The cell that serves it.", examples=["shared"])
    created_at: datetime
    deleted_at: datetime | None = None
    self_test_rows: SelfTestRows = Field(description="Which rows its versions keep as their self-test.")


class NewTenants(Input):
    """Tenants to create: all of them, or none if a name can't be taken."""

    tenant_ids: list[str] = Field(min_length=1, max_length=1000, examples=[["acme"]])


class TenantChanges(Input):
    """What to change of a tenant."""

    self_test_rows: SelfTestRows


class PredictionQuota(Schema):
    """What a tenant may ask of the cell that serves it: of all replicas together."""

    model_config = ConfigDict(extra="forbid")

    weight: float = Field(
        default=1.0, description="Share of processor time, 0.01 to 100, compared with other tenants that wait for it."
    )
    requests_per_s: float | None = Field(
        default=None, description="Requests per second; more is 429; null: the platform's default."
    )
    rows_per_s: float | None = Field(
        default=None, description="Rows per second; more is 429; null: the platform's default."
    )
    burst_s: float = Field(
        default=1.0,
        description="Seconds of both rates that may be saved up and used at once. A request with more rows is 413.",
    )


class Removed(Schema):
    """Files that were removed."""

    count: int
    bytes: int


class DeletedTenant(Schema):
    """What a deletion removed."""

    tenant_id: str
    deleted_at: datetime
    deleted_by: str
    rows: dict[str, int] = Field(description="Table → rows of the registry.")
    artifacts: Removed = Field(description="Of the artifact store.")
    checkpoints: Removed
    not_reached: list[str] = Field(description="What may still hold something of the tenant.")
