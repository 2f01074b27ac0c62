"""The audit."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import Query

from ml_core.api.access import TenantAccess
from ml_core.api.operation import LimitQuery, operations
from ml_core.api.routes.adding import operation
from ml_core.api.schemas.audit import Change
from ml_core.api.schemas.base import Page
from ml_core.domain.api_key import Scope
from ml_core.registry.audit import AuditRepository

router = operations("audit", "/tenants/{tenant}")


@operation(router, "GET", "/audit", "audit.list", Scope.READ)
def list_changes(
    access: TenantAccess,
    action: Annotated[str | None, Query(description="Such as `version.registered`, or `version.` for all.")] = None,
    principal: Annotated[str | None, Query(description="Who did it.")] = None,
    request_id: Annotated[str | None, Query(description="For which request.")] = None,
    model: Annotated[str | None, Query(description="Of this model.")] = None,
    since: Annotated[datetime | None, Query(description="At this moment or later.")] = None,
    until: Annotated[datetime | None, Query(description="Before this moment.")] = None,
    descending: Annotated[bool, Query(description="Newest first, for people.")] = False,
    limit: LimitQuery = 100,
    after: Annotated[str | None, Query(description="The `cursor` of a change, or `next_cursor`.")] = None,
) -> Page[Change]:
    """List what changed, in an order in which nothing is missed.

    A program that follows the changes keeps the `cursor` of the last one that it handled, and asks for what is after
    it; an empty page means that there is nothing new yet.
    """
    found = access.of(AuditRepository).list(
        action=action,
        principal=principal,
        request_id=request_id,
        subject={} if model is None else {"model_id": model},
        since=since,
        until=until,
        descending=descending,
        limit=limit,
        after=after,
    )
    return Page[Change].model_validate(found)
