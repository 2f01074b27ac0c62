"""Failures of operations as answers: one shape, whatever failed."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match, Route

from ml_core.api.schemas.base import invalid_fields
from ml_core.exceptions import MLFrameworkError
from ml_core.inference.edge.http import HttpResponse, error_response, plain_error


def handle_errors(app: FastAPI) -> None:
    """Let an application answer failures in the platform's shape."""
    app.add_exception_handler(MLFrameworkError, on_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(Exception, on_error)


def on_error(request: Request, error: Exception) -> Response:
    """The answer to an error. A caller that belongs to no tenant operates the platform."""
    db = getattr(request.state, "db", None)  # absent until the caller is known
    is_operator = request.app.state.services.operator is not None or (db and db.principal.tenant_id is None)
    return _rendered(error_response(error, request.url.path, request.state.request_id, is_operator=bool(is_operator)))


def _on_invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - what this handler is registered for
    found = invalid_fields(error.errors())
    if not request.scope["route"].include_in_schema:  # of MLflow's protocol, which is not in our document
        found.remedy = "MLflow's REST API describes it."
    return on_error(request, found)


def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - what this handler is registered for
    headers = dict(error.headers or {})
    if error.status_code == 405:  # Starlette's names the methods of one route of the path only
        headers["Allow"] = ", ".join(sorted({*headers["Allow"].split(", "), *_methods_of(request)}))
    codes = {
        404: ("not_found", "There is no such path. /api/docs lists the operations."),
        405: ("method_not_allowed", f"The path supports {headers.get('Allow')}."),
    }
    code, message = codes.get(error.status_code, ("invalid_request", str(error.detail)))
    raw = {name.lower().encode(): value.encode() for name, value in headers.items()}
    path, request_id = request.url.path, request.state.request_id
    return _rendered(plain_error(error.status_code, code, message, path, request_id, headers=raw))


def _methods_of(request: Request) -> set[str]:
    routes = [each for each in request.app.routes if isinstance(each, Route)]
    found = [each.methods or set() for each in routes if each.matches(request.scope)[0] is not Match.NONE]
    return set().union(*found)


def _rendered(response: HttpResponse) -> Response:
    headers = {name.decode(): value.decode() for name, value in (response.headers or {}).items()}
    return Response(response.body, response.status, headers, media_type="application/json")
