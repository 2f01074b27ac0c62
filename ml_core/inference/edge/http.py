"""HTTP: requests as ASGI delivers them, responses, and error responses.

``{"error": {"code": …, "message": …, "details": {…}, "action": {…}, "request_id": …}}`` is the form of an error, except
under ``/v2``, where the Open Inference Protocol requires ``{"error": "text"}``, and under a tenant's ``/mlflow``, where
MLflow's clients expect ``{"error_code": …, "message": …}``. A gRPC call has it in its trailers.
"""

from __future__ import annotations

import json
import logging
import math
import random
import re
import time
import zlib
from collections.abc import Mapping
from typing import Any

import orjson
from starlette.types import Message, Receive, Scope, Send

from ml_core.exceptions import (
    Action,
    InvalidRequestError,
    MLFrameworkError,
    RequestTooLargeError,
    UnsupportedEncodingError,
    shown,
    status_of,
)
from ml_core.inference.edge.grpc_headers import GRPC_PATH, milliseconds, trailers_of
from ml_core.settings import ServingSettings

logger = logging.getLogger(__name__)

# The headers that the platform reads. A request that repeats one is refused, because its meaning is ambiguous.
_OWN_HEADERS = frozenset(
    {
        b"authorization",
        b"content-encoding",
        b"content-length",
        b"grpc-encoding",
        b"grpc-timeout",
        b"idempotency-key",
        b"inference-header-content-length",
        b"mlcore-tenant",
        b"x-request-id",
        b"x-request-timeout-ms",
    }
)
_SANE_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")
# A body over the limit is read and dropped up to this multiple of it, because many clients read the response only after
# they have sent the body.
_DISCARD_FACTOR = 4
_PROTOCOL = re.compile(r"(/t/[^/]*)?/v2(/.*)?", re.DOTALL)
_MLFLOW = re.compile(r"(/api)?/v1/tenants/[^/]*/mlflow(/.*)?", re.DOTALL)
_MLFLOW_CODES: Mapping[str | int, str] = {
    "experiment_exists": "RESOURCE_ALREADY_EXISTS",
    "run_state": "INVALID_PARAMETER_VALUE",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "RESOURCE_DOES_NOT_EXIST",
    405: "ENDPOINT_NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    409: "RESOURCE_CONFLICT",
    429: "REQUEST_LIMIT_EXCEEDED",
    500: "INTERNAL_ERROR",
    503: "TEMPORARILY_UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
    507: "RESOURCE_EXHAUSTED",
}
"""Code of an error, else its status → what MLflow calls it; any other is ``INVALID_PARAMETER_VALUE``."""
# Retry-After of a 503 whose error has no ``retry_after_s``.
_RETRY_AFTER_S = 1
_EITHER_HEADER = 32 + zlib.MAX_WBITS
"""Makes zlib accept a gzip header and its own; the latter is ``deflate`` in HTTP (RFC 9110, 8.4.1.2)."""
_ENCODINGS = (b"gzip", b"x-gzip", b"deflate")


def is_sane_request_id(value: bytes) -> bool:
    """Whether a client's ``x-request-id`` is accepted: up to 128 characters that are safe in logs."""
    return _SANE_REQUEST_ID.fullmatch(value) is not None


def new_request_id() -> str:
    """Generate a request id: 12 hexadecimal digits of milliseconds, then 20 random ones."""
    # Ordered by time, so that the index of the prediction log grows at one end, which is cheaper than random inserts.
    return f"{time.time_ns() // 1_000_000:012x}{random.getrandbits(80):020x}"


class ClientLeftError(Exception):
    """The client closed the connection."""


UNMATCHED = "unmatched"
"""The route of a request with an unknown path, whose text must not become a label of a metric."""


class HttpRequest:
    """A request. Times are on the event loop's clock, in seconds, and are set by the application.

    Attributes:
        path: The decoded path of the URL.
        tenant: The tenant in the path, or empty.
        model: The model in the path, or empty.
        version: The version in the path, or None.
        request_id: The client's ``x-request-id`` if it is accepted, else a generated id.
        route: The path template of the route, or ``UNMATCHED``.
        caller: The authenticated tenant, or None.
        body: The complete body after ``read``, empty before.
        is_read: Whether the body was read completely.
        is_only: Whether no other request of the tenant was in progress when this one had its turn.
        arrived: When the request was authorized.
        deadline: The deadline of the answer.
        body_deadline: The deadline of the body.
    """

    __slots__ = (
        "_headers",
        "_receive",
        "_repeated",
        "arrived",
        "authorization",
        "body",
        "body_deadline",
        "caller",
        "deadline",
        "is_only",
        "is_read",
        "model",
        "path",
        "request_id",
        "route",
        "tenant",
        "version",
    )

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._receive = receive
        self.path: str = scope["path"]
        self.tenant = self.model = ""
        self.route = UNMATCHED
        self.caller: str | None = None
        self.version: str | None = None
        self.arrived = self.deadline = self.body_deadline = 0.0
        self.body = b""
        self.is_read = self.is_only = False
        headers: dict[bytes, bytes] = {}
        self._repeated: bytes | None = None
        for name, value in scope["headers"]:
            if name in _OWN_HEADERS:
                if name in headers:
                    self._repeated = name
                else:
                    headers[name] = value
        self._headers = headers
        self.authorization = headers.get(b"authorization")
        request_id = headers.get(b"x-request-id")
        is_kept = request_id is not None and is_sane_request_id(request_id)
        self.request_id = request_id.decode("ascii") if is_kept and request_id else new_request_id()

    def check_headers(self) -> None:
        """Check the headers.

        Raises:
            InvalidRequestError: A header that the platform reads is repeated.
        """
        if self._repeated is not None:
            name = self._repeated.decode("ascii")
            raise InvalidRequestError(f"The header {name} is repeated.", remedy="Send it once.", field=name)

    def timeout_ms(self, limits: ServingSettings) -> int:
        """The timeout of the request in milliseconds, at most the longest permitted.

        Raises:
            InvalidRequestError: The header is not a whole number of at least 1, or no timeout of gRPC.
        """
        if b"grpc-timeout" in self._headers:
            return min(milliseconds(self._headers[b"grpc-timeout"]), limits.max_timeout_ms)
        timeout_ms = self._headers.get(b"x-request-timeout-ms")
        if timeout_ms is None:
            return limits.default_timeout_ms
        return min(_whole_number(timeout_ms, "x-request-timeout-ms", least=1), limits.max_timeout_ms)

    def header_length(self) -> int | None:
        """Bytes of JSON before the binary tensors; None if the entire body is JSON.

        Raises:
            InvalidRequestError: The header is not a whole number.
        """
        length = self._headers.get(b"inference-header-content-length")
        return None if length is None else _whole_number(length, "inference-header-content-length", least=0)

    @property
    def encoding(self) -> bytes | None:
        """The encoding of the body in lower case; None if it is not compressed."""
        encoding = self._headers.get(b"content-encoding")
        return None if encoding is None or encoding.lower() == b"identity" else encoding.lower()

    @property
    def grpc_encoding(self) -> bytes:
        """The encoding of compressed gRPC messages."""
        return self._headers.get(b"grpc-encoding", b"identity")

    async def read(self, limit: int) -> None:
        """Read the body.

        Raises:
            RequestTooLargeError: The body exceeds ``limit`` bytes.
            ClientLeftError: The client closed the connection before the end of the body.
        """
        message = await self._receive()
        if not message.get("more_body", False) and message["type"] == "http.request":
            self.body = message.get("body", b"")
            self.is_read = True
            if len(self.body) > limit:
                raise too_large(limit, len(self.body))
        else:
            self.body = await self._rest_of_body(message, limit)

    async def _rest_of_body(self, message: Message, limit: int) -> bytes:
        declared = self._headers.get(b"content-length")
        chunks: list[bytes] = []
        size = 0
        while True:
            if message["type"] != "http.request":
                raise ClientLeftError
            chunk = message.get("body", b"")
            size += len(chunk)
            if size <= limit:
                chunks.append(chunk)
            else:
                chunks.clear()
            is_last = self.is_read = not message.get("more_body", False)
            if size > limit and (is_last or size > _DISCARD_FACTOR * limit):
                raise too_large(limit, int(declared) if declared and declared.isdigit() else size)
            if is_last:
                return b"".join(chunks)
            message = await self._receive()

    async def client_left(self) -> None:
        """Wait until the client closes the connection. Call it only after ``read``."""
        while (await self._receive())["type"] != "http.disconnect":
            pass


class HttpResponse:
    """A complete response. ``trailers``: of the answer to a gRPC call, whose status they have."""

    __slots__ = ("body", "content_type", "headers", "status", "trailers")

    def __init__(
        self,
        status: int,
        body: bytes,
        *,
        content_type: bytes = b"application/json",
        headers: Mapping[bytes, bytes] | None = None,
        trailers: Mapping[bytes, bytes] | None = None,
    ) -> None:
        self.status = status
        self.body = body
        self.content_type = content_type
        self.headers = headers
        self.trailers = trailers

    async def send(self, send: Send, request_id: bytes | None) -> None:
        """Send the response, with ``x-request-id`` unless it is None."""
        headers: list[tuple[bytes, bytes]] = [
            (b"content-type", self.content_type),
            (b"content-length", b"%d" % len(self.body)),
        ]
        if request_id is not None:
            headers.append((b"x-request-id", request_id))
        if self.headers:
            headers.extend(self.headers.items())
        if self.trailers is not None:
            await self._send_grpc(send, headers, self.trailers)
            return
        start: dict[str, Any] = {"type": "http.response.start", "status": self.status, "headers": headers}
        await send(start)
        await send({"type": "http.response.body", "body": self.body})

    async def _send_grpc(self, send: Send, headers: list[tuple[bytes, bytes]], trailers: Mapping[bytes, bytes]) -> None:
        # An answer without a message has its trailers in the head.
        if self.body:
            headers = [header for header in headers if header[0] != b"content-length"]
        else:
            headers.extend(trailers.items())
        await send({"type": "http.response.start", "status": 200, "headers": headers, "trailers": bool(self.body)})
        await send({"type": "http.response.body", "body": self.body})
        if self.body:
            await send({"type": "http.response.trailers", "headers": list(trailers.items())})


def _whole_number(text: bytes, header: str, *, least: int) -> int:
    # Twelve digits are 31 years in milliseconds. The limit also bounds the cost of int().
    if not (text.isdigit() and len(text) <= 12 and int(text) >= least):
        raise InvalidRequestError(
            f"The header {header} must be a whole number of at least {least}.", remedy="Correct it.", field=header
        )
    return int(text)


def too_large(limit: int, actual: int | None) -> RequestTooLargeError:
    """The error for a body over the limit of bytes; ``actual`` is None if its size is unknown."""
    return RequestTooLargeError(
        f"The body exceeds the limit of {limit:,} bytes.",
        remedy="Send fewer rows per request.",
        limit=limit,
        actual=actual,
    )


def decompress(body: bytes, encoding: bytes, limit: int) -> bytes:
    """Decompress a body.

    Args:
        body: The compressed bytes.
        encoding: ``gzip`` or ``deflate``.
        limit: Limit of decompressed bytes, which also bounds the memory.

    Raises:
        UnsupportedEncodingError: The encoding is another one, or there are several.
        InvalidRequestError: The bytes are damaged or truncated, or other bytes follow.
        RequestTooLargeError: The body exceeds ``limit`` bytes.
    """
    if encoding not in _ENCODINGS:
        raise UnsupportedEncodingError(
            f"The Content-Encoding {shown(encoding.decode('latin-1'))} is not supported.",
            remedy="Send the body as gzip, deflate or uncompressed.",
            field="content-encoding",
        )
    unpacker = zlib.decompressobj(_EITHER_HEADER)
    try:
        plain = unpacker.decompress(body, limit + 1)
    except zlib.error:
        raise _damaged(encoding) from None
    if len(plain) > limit:
        raise too_large(limit, None)
    if not unpacker.eof or unpacker.unused_data:
        raise _damaged(encoding)
    return plain


def _damaged(encoding: bytes) -> Exception:
    return invalid(
        "body", f"is not one complete {encoding.decode()} stream", "Compress the body as one stream, or send it plain."
    )


def invalid(field: str, what: str, remedy: str) -> InvalidRequestError:
    """The error for an invalid field."""
    return InvalidRequestError(f"Field {field!r} {what}.", remedy=remedy, field=field)


def json_response(data: Any, status: int = 200) -> HttpResponse:
    """A JSON response. The data may contain NumPy arrays; orjson writes values that are not finite as null."""
    return HttpResponse(status, orjson.dumps(data, option=orjson.OPT_SERIALIZE_NUMPY))


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
        headers[b"retry-after"] = b"%d" % math.ceil(getattr(error, "retry_after_s", None) or _RETRY_AFTER_S)
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
    if GRPC_PATH.fullmatch(path):
        trailers = trailers_of(status, message)
        return HttpResponse(status, b"", content_type=b"application/grpc", headers=headers, trailers=trailers)
    if _PROTOCOL.fullmatch(path):
        return HttpResponse(status, orjson.dumps({"error": message}), headers=headers)
    if _MLFLOW.fullmatch(path):
        name = _MLFLOW_CODES.get(code, _MLFLOW_CODES.get(status, "INVALID_PARAMETER_VALUE"))
        return HttpResponse(status, _rendered({"error_code": name, "message": message}), headers=headers)
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
