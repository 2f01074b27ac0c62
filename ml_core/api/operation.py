"""What every operation does before and after its own work: authenticate, check the scope, remember repeated writes."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool

from ml_core.api.access import acting_for
from ml_core.api.bodies import read_body
from ml_core.database.connection import DatabaseConnection
from ml_core.domain.api_key import Scope
from ml_core.registry.limits import MAX_PAGE_SIZE

LimitQuery = Annotated[int, Query(ge=1, le=MAX_PAGE_SIZE, description="At most so many items.")]
CursorQuery = Annotated[str | None, Query(description="`next_cursor` of the page before.")]
ArchivedQuery = Annotated[bool, Query(description="Archived ones too.")]
_WITH_BODY = ("POST", "PUT", "PATCH")
Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class Operation(APIRoute):
    """A route that names the scope it needs; see ``access.needs``.

    The caller is authenticated, and its scope checked, before the body is read.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        described = self.openapi_extra or {}
        if not self.operation_id or "x-scope" not in described:
            raise TypeError(f"The operation at {path} names no operation_id, or no scope: give openapi_extra=needs(…).")
        self._scope = Scope(described["x-scope"])
        self._is_checked_first: bool = described["x-scope-is-checked-first"]
        self._receives_file = "requestBody" in described

    def get_route_handler(self) -> Handler:
        """Called by FastAPI once a route."""
        handle = super().get_route_handler()

        async def serve(request: Request) -> Response:
            request.state.db = db = await run_in_threadpool(self._open, request)
            if self._is_checked_first:
                db.principal.require(self._scope)
            if request.method in _WITH_BODY and not self._receives_file:
                await read_body(request)
            return await handle(request)

        return serve

    def _open(self, request: Request) -> DatabaseConnection:
        return acting_for(
            request.app.state.services,
            request.path_params.get("tenant", ""),
            request.headers.get("authorization"),
            request.state.request_id,
        )


def operations(noun: str, prefix: str = "") -> APIRouter:
    """A router of one noun's operations."""
    return APIRouter(prefix=f"/v1{prefix}", tags=[noun], route_class=Operation)
