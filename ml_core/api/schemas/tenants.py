"""Tenants, and what the platform keeps for them."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from ml_core.api.schemas.base import Input, Schema
from ml_core.domain.tenant_policies import SelfTestRows


class Tenant(Schema):
    """A customer whose data and models are isolated."""

    tenant_id: str = Field(examples=["acme"])
    cell: str = Field(description="The cell that serves it.", examples=["shared"])
    created_at: datetime
    deleted_at: datetime | None = None
    self_test_rows: SelfTestRows = Field(description="Which rows its versions keep as their self-test.")


class NewTenant(Input):
    """A tenant to create."""

    tenant_id: str = Field(examples=["acme"])


class TenantChanges(Input):
    """What to change of a tenant; what is left out stays."""

    self_test_rows: SelfTestRows | None = None


class DeletedTenant(Schema):
    """What a deletion removed."""

    tenant_id: str
    rows: int = Field(description="Rows of the registry.")
    artifacts: int = Field(description="Files of the artifact store.")
    size_bytes: int = Field(description="Bytes of them.")
