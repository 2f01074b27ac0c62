"""Error responses.

``{"error": {"code": …, "message": …, "details": {…}, "action": {…}, "request_id": …}}``, except under ``/v2``, where
the Open Inference Protocol requires ``{"error": "text"}``.
"""

from __future__ import annotations

import json
import logging
import re
from typing import Any

import orjson

from ml_core.exceptions import Action, MLFrameworkError, status_of
from ml_core.inference.edge.http import HttpResponse

logger = logging.getLogger(__name__)

_PROTOCOL = re.compile(r"(/t/[^/]*)?/v2(/.*)?", re.DOTALL)
# Retry-After of a 503 whose error has no ``retry_after_s``.
_RETRY_AFTER_S = 1


def error_response(error: Exception, path: str, request_id: str, *, is_operator: bool = False) -> HttpResponse:
    """The response for an error.

    The message of a framework error is sent to the client. Other errors, and those with status 500, are logged with the
    request id, and the client gets no text of them, which may be confidential. The same holds for the internal part of
    an error.

    Args:
        error: The error.
        path: The path of the request.
        request_id: The id of the request.
        is_operator: Whether the client operates the platform; then it gets all of every framework error.
    """
    status = status_of(error) if isinstance(error, MLFrameworkError) else 500
    if not isinstance(error, MLFrameworkError) or (status == 500 and not is_operator):
        logger.error("Request %s failed.", request_id, exc_info=error)
        message = "The server failed to process the request. Report the request id to the operator of the platform."
        return plain_error(500, "internal", message, path, request_id)
    if not is_operator and error.internal is not None:
        logger.error("Request %s failed: %s", request_id, error)
        error = error.public()
    headers = {}
    if status in (429, 503):
        headers[b"retry-after"] = b"%d" % (getattr(error, "retry_after_s", None) or _RETRY_AFTER_S)
    elif status == 401:
        headers[b"www-authenticate"] = b"Bearer"
    elif status == 408:
        headers[b"connection"] = b"close"  # the rest of the body may still arrive on this connection
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
    """An error response in the format of the path."""
    if _PROTOCOL.fullmatch(path):
        return HttpResponse(status, orjson.dumps({"error": message}), headers=headers)
    error = {"code": code, "message": message, "details": details or {}, "request_id": request_id}
    if action is not None:
        error["action"] = action.to_json()
    return HttpResponse(status, _rendered({"error": error}), headers=headers)


def _rendered(document: dict[str, Any]) -> bytes:
    """A document as JSON, whatever a caller's value in it is: the answer to an error must not be another error."""
    try:
        # ``default``: attributes of types that JSON does not have are sent as text.
        return orjson.dumps(document, default=str)
    except TypeError:  # an integer of more than 64 bits, or half of a surrogate pair
        return json.dumps(document, default=str, ensure_ascii=False).encode(errors="replace")
