"""The shapes in which an error is sent.

``{"error": {"code": …, "message": …, "details": {…}, "action": {…}, "request_id": …}}``, except under ``/v2``: the Open
Inference Protocol says ``{"error": "text"}`` there, and its clients fail on anything else.
"""

from __future__ import annotations

import logging
import re
from typing import Any

import orjson

from ml_core.exceptions import Action, MLFrameworkError, status_of
from ml_core.inference.edge.http import HttpResponse

logger = logging.getLogger(__name__)

_PROTOCOL = re.compile(r"(/t/[^/]*)?/v2(/.*)?", re.DOTALL)
_RETRY_AFTER_S = 1
"""For a 503 whose error names no pause of its own."""


def error_response(error: Exception, path: str, request_id: str, *, is_operator: bool = False) -> HttpResponse:
    """The answer to a client for an error.

    An error of the framework says what it is. Anything else, and whatever is a 500, is logged with the request's id and
    answered without its text, which may hold what the client must not see.

    Args:
        error: The error.
        path: Of the request.
        request_id: Of the request.
        is_operator: Whether the client is whoever runs this process: then a 500 of the framework says what it is, too.
    """
    status = status_of(error) if isinstance(error, MLFrameworkError) else 500
    if not isinstance(error, MLFrameworkError) or (status == 500 and not is_operator):
        logger.error("Request %s failed.", request_id, exc_info=error)
        message = "The request failed on the server's side. Report its request id to whoever runs this platform."
        return plain_error(500, "internal", message, path, request_id)
    headers = {}
    if status in (429, 503):
        headers[b"retry-after"] = b"%d" % (getattr(error, "retry_after_s", None) or _RETRY_AFTER_S)
    elif status == 401:
        headers[b"www-authenticate"] = b"Bearer"
    elif status == 408:
        headers[b"connection"] = b"close"  # the rest of the body may still be on its way
    elif status == 415:
        headers[b"accept-encoding"] = b"gzip, deflate"
    return plain_error(status, error.code, str(error), path, request_id, error.attributes(), headers, error.action)


def plain_error(
    status: int,
    code: str,
    message: str,
    path: str,
    request_id: str,
    details: dict[str, Any] | None = None,
    headers: dict[bytes, bytes] | None = None,
    action: Action | None = None,
) -> HttpResponse:
    """An error in the shape of its path."""
    if _PROTOCOL.fullmatch(path):
        return HttpResponse(status, orjson.dumps({"error": message}), headers=headers)
    error = {"code": code, "message": message, "details": details or {}, "request_id": request_id}
    if action is not None:
        error["action"] = action.to_json()
    # ``default``: an attribute of a type that JSON lacks is sent as its text rather than not at all.
    return HttpResponse(status, orjson.dumps({"error": error}, default=str), headers=headers)
