"""Events: what has changed, told as it happens."""

from __future__ import annotations

from typing import Annotated

from fastapi import Header, Query, Request

from ml_core.api.access import PlatformAccess, TenantAccess, caller, needs, remembered_caller
from ml_core.api.events import EventStream
from ml_core.api.operation import operations
from ml_core.domain.api_key import Scope
from ml_core.ids import TenantId

router = operations("events")

_MAX_POSITION = 2**63 - 1
AfterQuery = Annotated[
    int | None, Query(ge=0, le=_MAX_POSITION, description="As `Last-Event-ID`, which counts if both are sent.")
]
LastEventId = Annotated[
    int | None,
    Header(ge=0, le=_MAX_POSITION, description="The `id` of the last event that was seen: begin with what was missed."),
]


async def listen(
    access: TenantAccess, request: Request, last_event_id: LastEventId = None, after: AfterQuery = None
) -> EventStream:
    """Stream that something of the tenant has changed, as server-sent events.

    The first event is `listening`. Each `changed` has the data `{"topics": […]}`: `audit` for a change that the audit
    has, `jobs` for a job's state, progress or log. It does not say what changed: read again. The stream ends when the
    key is revoked, and when the registry is away; resume with the `id` of the last event.
    """
    return _streamed(request, access.tenant_id, after if last_event_id is None else last_event_id)


async def listen_to_all(
    _: PlatformAccess, request: Request, last_event_id: LastEventId = None, after: AfterQuery = None
) -> EventStream:
    """Stream that something of any tenant has changed, as server-sent events.

    As `events.listen`, with one topic more: `cells` for what replicas serve.
    """
    return _streamed(request, None, after if last_event_id is None else last_event_id)


def _streamed(request: Request, tenant_id: TenantId | None, after: int | None) -> EventStream:
    services = request.app.state.services

    def check() -> None:
        if sealed := request.scope.get("mlcore.session"):
            services.sessions.open(sealed)
        (remembered_caller(request) or caller(request)).principal.require(Scope.READ)

    return EventStream(services.events, tenant_id, after, check)


for _path, _endpoint, _name in (
    ("/tenants/{tenant}/events", listen, "events.listen"),
    ("/platform/events", listen_to_all, "events.listen_to_all"),
):
    router.add_api_route(
        _path,
        _endpoint,
        methods=["GET"],
        operation_id=_name,
        openapi_extra=needs(Scope.READ),
        response_class=EventStream,
        status_code=200,
    )
