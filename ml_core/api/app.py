"""The application: the operations of every noun, one shape of errors, one id a request."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable

from fastapi import FastAPI
from starlette._utils import get_route_path
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ml_core.api.access import Services
from ml_core.api.bounds import Bounds
from ml_core.api.console import add_console
from ml_core.api.docs import add_docs
from ml_core.api.errors import handle_errors
from ml_core.api.openapi import describe
from ml_core.inference.edge.http import is_sane_request_id, new_request_id
from ml_core.inference.edge.session import SessionCookie

PREFIX = "/api"
"""Where the ingress has the application."""

_TENANT = "/v1/tenants/[^/]+"
_MODEL = f"{_TENANT}/models/[^/]+"
NOUNS = {
    "versions": f"({_MODEL}/versions|{_TENANT}/versions|{_TENANT}/holds).*",
    "environments": f"({_MODEL}/(environments|gates)|{_TENANT}/(environments|pointers|rollouts)).*",
    "quality": f"{_MODEL}/(quality|drift)|{_TENANT}/verdicts",
    "models": f"{_TENANT}/models.*",
    "runs": f"{_TENANT}/run.*",
    "mlflow": f"{_TENANT}/mlflow/.*",
    "jobs": f"{_TENANT}/job.*",
    "schedules": f"{_TENANT}/schedules.*",
    "job_batches": "/v1/job-batches.*",
    "datasets": f"{_TENANT}/datasets.*",
    "predictions": f"{_TENANT}/prediction.*",
    "audit": f"{_TENANT}/audit.*",
    "keys": f"({_TENANT}|/v1/platform)/keys.*",
    "events": f"({_TENANT}|/v1/platform)/events",
    "placements": f"(/v1/placements|{_TENANT}/placement|/v1/platform/shared-cell)",
    "tenants": f"/v1/tenants|{_TENANT}(/quota)?",
    "platform": "/(healthz|v1/platform(?!/keys|/shared-cell|/events).*)",
}
"""Module of ``routes`` → the paths of its operations; where several match, the first.

Routes are tried in this order, so what is requested most comes first.
"""


def create_app(
    services: Services | None, *, nouns: Iterable[str] = NOUNS, host_sends_request_id: bool = False
) -> FastAPI:
    """The control API.

    Args:
        services: What the operations work with; None: the application is only asked for its OpenAPI document.
        nouns: Whose operations it has; those of ``NOUNS`` by default.
        host_sends_request_id: Whether the server around it adds the request's own ``x-request-id`` to each response, as
            Ray Serve does; then only an id that is not the client's is added here.
    """
    app = FastAPI(title="ML Core", version="1", docs_url=None, redoc_url=None)
    app.state.services = services
    describe(app)
    add_docs(app)
    add_console(app)
    for noun in nouns:
        module = importlib.import_module(f"ml_core.api.routes.{noun}")
        app.router.routes.extend(module.router.routes)  # include_router would build each of them once more
    handle_errors(app)
    if services is not None:
        app.add_middleware(SessionCookie, sessions=services.sessions)
    app.add_middleware(Bounds)  # also answers what no handler above took
    app.add_middleware(RequestIds, host_sends_request_id=host_sends_request_id)
    return app


class LazyApp:
    """The control API for a command: the operations of a noun are loaded with the first request for one of them.

    All of them take half a second of a processor, which a server spends once, and each command would.

    Args:
        services: What the operations work with.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._apps: dict[str, FastAPI] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        noun = noun_of(get_route_path(scope))
        if noun not in self._apps:
            self._apps[noun] = create_app(self._services, nouns=[noun])
        await self._apps[noun](scope, receive, send)


def noun_of(path: str) -> str:
    """The noun whose operations have a path; any of them for a path that no operation has."""
    return next((noun for noun, paths in NOUNS.items() if re.fullmatch(paths, path, re.DOTALL)), "platform")


class RequestIds:
    """ASGI middleware: gives each request its id, the client's own if it is sane, and each response the same."""

    def __init__(self, app: ASGIApp, *, host_sends_request_id: bool) -> None:
        self._app = app
        self._host_sends_request_id = host_sends_request_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent = Headers(scope=scope).get("x-request-id", "").encode("latin-1")
        is_kept = is_sane_request_id(sent)
        request_id = sent.decode() if is_kept else new_request_id()
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start" and not (is_kept and self._host_sends_request_id):
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        await self._app(scope, receive, send_with_id)
