"""The application: the operations of every noun, one shape of errors, one id a request."""

from __future__ import annotations

import re
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ml_core.api.access import Services
from ml_core.api.bounds import Bounds
from ml_core.api.docs import add_docs
from ml_core.api.openapi import RESPONSES, describe
from ml_core.api.routes import models, platform
from ml_core.exceptions import InvalidRequestError, MLFrameworkError
from ml_core.inference.edge.errors import error_response, plain_error
from ml_core.inference.edge.http import HttpResponse, is_sane_request_id, new_request_id

PREFIX = "/api"
"""Where the ingress has the application."""

_NOUNS = (platform, models)


def create_app(services: Services, *, host_sends_request_id: bool = False) -> FastAPI:
    """The control API.

    Args:
        services: What the operations work with.
        host_sends_request_id: Whether the server around it adds the request's own ``x-request-id`` to each response, as
            Ray Serve does; then only an id that is not the client's is added here.
    """
    app = FastAPI(title="ML Core", version="1", docs_url=None, redoc_url=None, responses=RESPONSES)
    app.state.services = services
    describe(app)
    add_docs(app)
    for noun in _NOUNS:
        app.include_router(noun.router)
    app.add_exception_handler(MLFrameworkError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_middleware(Bounds)  # also answers what no handler above took
    app.add_middleware(RequestIds, host_sends_request_id=host_sends_request_id)
    return app


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


def _on_error(request: Request, error: Exception) -> Response:
    return _rendered(error_response(error, request.url.path, request.state.request_id))


def _on_invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - what this handler is registered for
    return _on_error(request, _as_invalid_request(error))


def _as_invalid_request(error: RequestValidationError) -> InvalidRequestError:
    """Pydantic's findings as one error: the first in words, all of them in the details."""
    found = [{"field": _path(each["loc"]), "message": each["msg"]} for each in error.errors()]
    first = found[0]
    return InvalidRequestError(
        f"Field {first['field']!r}: {first['message']}.",
        remedy="The operation's description at /api/docs has its fields.",
        field=first["field"],
        details={"fields": found} if len(found) > 1 else None,
    )


def _path(location: tuple[Any, ...]) -> str:
    """``metrics[0].name`` of ``("body", "metrics", 0, "name")``."""
    place, *parts = location
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return re.sub(r"^\.", "", text) or str(place)


def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - what this handler is registered for
    codes = {404: ("not_found", "There is no such path."), 405: ("method_not_allowed", "The path has no such method.")}
    code, message = codes.get(error.status_code, ("invalid_request", str(error.detail)))
    headers = {name.lower().encode(): value.encode() for name, value in (error.headers or {}).items()}
    path, request_id = request.url.path, request.state.request_id
    return _rendered(plain_error(error.status_code, code, message, path, request_id, headers=headers))


def _rendered(response: HttpResponse) -> Response:
    headers = {name.decode(): value.decode() for name, value in (response.headers or {}).items()}
    return Response(response.body, response.status, headers, media_type="application/json")
