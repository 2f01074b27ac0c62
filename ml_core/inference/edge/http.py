"""ASGI requests of the prediction plane, their cancellation, and responses."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Mapping
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from ml_core.exceptions import InvalidRequestError, RequestTooLargeError
from ml_core.settings import ServingSettings

# The headers that the platform reads. A request that repeats one is refused, because its meaning is ambiguous.
_OWN_HEADERS = frozenset(
    {
        b"authorization",
        b"content-encoding",
        b"content-length",
        b"idempotency-key",
        b"inference-header-content-length",
        b"x-request-id",
        b"x-request-timeout-ms",
    }
)
_SANE_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")
# A body over the limit is read and dropped up to this multiple of it, because many clients read the response only after
# they have sent the body.
_DISCARD_FACTOR = 4
LOOK_AFTER_S = 0.05
"""Time after which the connection of a request is watched. A request that is answered sooner costs one timer only."""


def is_sane_request_id(value: bytes) -> bool:
    """Whether a client's ``x-request-id`` is accepted: up to 128 characters that are safe in logs."""
    return _SANE_REQUEST_ID.fullmatch(value) is not None


def new_request_id() -> str:
    """Generate a request id: 12 hexadecimal digits of milliseconds, then 20 random ones."""
    # Ordered by time, so that the index of the prediction log grows at one end, which is cheaper than random inserts.
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"


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
        has_client_id: Whether the id is the client's.
        route: The path template of the route, or ``UNMATCHED``.
        caller: The authenticated tenant, or None.
        body: The complete body after ``read``, empty before.
        is_read: Whether the body was read completely.
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
        "has_client_id",
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
        self.is_read = False
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
        self.has_client_id = request_id is not None and is_sane_request_id(request_id)
        self.request_id = request_id.decode("ascii") if self.has_client_id and request_id else new_request_id()

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
            InvalidRequestError: The header is not a whole number of at least 1.
        """
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
    """A complete response."""

    __slots__ = ("body", "content_type", "headers", "status")

    def __init__(
        self,
        status: int,
        body: bytes,
        *,
        content_type: bytes = b"application/json",
        headers: Mapping[bytes, bytes] | None = None,
    ) -> None:
        self.status = status
        self.body = body
        self.content_type = content_type
        self.headers = headers

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
        start: dict[str, Any] = {"type": "http.response.start", "status": self.status, "headers": headers}
        await send(start)
        await send({"type": "http.response.body", "body": self.body})


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


class RequestWatch:
    """Cancels the current task at the deadline of the request or its body, or when the client disconnects."""

    # asyncio.timeout_at, for the deadline alone, costs several times as much per request.

    __slots__ = ("_loop", "_request", "_task", "_timer", "_waiting_to_leave", "is_client_gone", "is_over")

    def __init__(self, request: HttpRequest) -> None:
        self._loop = asyncio.get_running_loop()
        self._request = request
        self._task = asyncio.current_task()
        self._waiting_to_leave: asyncio.Task[None] | None = None
        self.is_client_gone = False
        self.is_over = False
        self._timer = self._loop.call_at(min(request.deadline, self._loop.time() + LOOK_AFTER_S), self._look)

    def ended_it(self) -> bool:
        """Whether this watch, and not the server, cancelled the task."""
        return self.is_over and self._task is not None and self._task.uncancel() == 0

    def stop(self) -> None:
        """Stop watching; call it when the request was answered."""
        self._timer.cancel()
        if self._waiting_to_leave is not None:
            self._waiting_to_leave.cancel()

    def _look(self) -> None:
        now = self._loop.time()
        if now >= self._request.deadline or (now >= self._request.body_deadline and not self._request.is_read):
            self._end()
            return
        # Only after the body was read: its reader notices a disconnect, and two readers would take each other's data.
        if self._waiting_to_leave is None and self._request.is_read:
            self._waiting_to_leave = self._loop.create_task(self._request.client_left())
            self._waiting_to_leave.add_done_callback(self._client_left)
        is_watched = self._waiting_to_leave is not None
        self._timer = self._loop.call_at(
            self._request.deadline if is_watched else min(self._request.deadline, now + LOOK_AFTER_S), self._look
        )

    def _client_left(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is None and not self.is_over:
            self.is_client_gone = True
            self._end()

    def _end(self) -> None:
        self.is_over = True
        if self._task is not None:
            self._task.cancel()
