"""Requests and responses over ASGI, as far as the prediction plane needs them."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Mapping
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from ml_core.exceptions import InvalidRequestError, RequestTooLargeError
from ml_core.settings import ServingSettings

# What a request says about itself. Of two values of one of these no one can tell which is meant.
_OWN_HEADERS = frozenset(
    {
        b"authorization",
        b"content-encoding",
        b"content-length",
        b"inference-header-content-length",
        b"x-request-id",
        b"x-request-timeout-ms",
    }
)
_SANE_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")
# A body over the limit is read on and dropped up to this multiple, so that its sender gets to read the answer.
_DISCARD_FACTOR = 4


def is_sane_request_id(value: bytes) -> bool:
    """Whether a client's ``x-request-id`` may be kept: up to 128 characters that can't disturb a log."""
    return _SANE_REQUEST_ID.fullmatch(value) is not None


def new_request_id() -> str:
    """A request's id: 12 hexadecimal digits of milliseconds, then 20 random ones.

    In the order of time, so that the history's index grows at one end, which costs less than random places.
    """
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"


class ClientLeftError(Exception):
    """The client closed the connection; there is nobody to answer."""


UNMATCHED = "unmatched"
"""The route of a request whose path is none of the platform's: its text is the caller's and names no metric."""


class HttpRequest:
    """One request.

    Attributes:
        path: The URL's path, decoded.
        tenant: From the path; empty where it has none.
        model: Likewise.
        version: Likewise; None where the path has none.
        request_id: The client's ``x-request-id`` if it is sane, else a new one.
        has_client_id: Whether the id is the one that came with the request.
        route: The path of the route, once it is known.
        caller: The tenant that was authenticated, if any.
        body: The whole body once ``read`` has returned, empty before.
        is_read: Whether the body was read to its end.
        arrived: On the event loop's clock, in seconds; set by the application.
        deadline: Likewise, until when the answer has to be there.
        body_deadline: Likewise, until when the body has to be read.
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
        """Refuse headers that contradict each other.

        Raises:
            InvalidRequestError: One that may be there once is there twice.
        """
        if self._repeated is not None:
            name = self._repeated.decode("ascii")
            raise InvalidRequestError(f"The header {name} is there twice.", remedy="Send it once.", field=name)

    def timeout_ms(self, limits: ServingSettings) -> int:
        """How long the client waits, in milliseconds: what it says, up to the longest allowed.

        Raises:
            InvalidRequestError: It says something that is no whole number of at least 1.
        """
        timeout_ms = self._headers.get(b"x-request-timeout-ms")
        if timeout_ms is None:
            return limits.default_timeout_ms
        return min(_whole_number(timeout_ms, "x-request-timeout-ms", least=1), limits.max_timeout_ms)

    def header_length(self) -> int | None:
        """Bytes of JSON before the binary tensors, or None if the whole body is JSON.

        Raises:
            InvalidRequestError: The header is no whole number.
        """
        length = self._headers.get(b"inference-header-content-length")
        return None if length is None else _whole_number(length, "inference-header-content-length", least=0)

    @property
    def encoding(self) -> bytes | None:
        """How the body is compressed, in lower case; None if it is not."""
        encoding = self._headers.get(b"content-encoding")
        return None if encoding is None or encoding.lower() == b"identity" else encoding.lower()

    async def read(self, limit: int) -> None:
        """Read the whole body.

        Raises:
            RequestTooLargeError: It has more than ``limit`` bytes.
            ClientLeftError: The client closed the connection before its end.
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
        """Return when the client has closed the connection. Only once the body was read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass


class HttpResponse:
    """One response, whole."""

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
        """Send it, with an ``x-request-id`` unless that is None."""
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
    # Twelve digits are 31 years in milliseconds; more is no number that anybody means.
    if not (text.isdigit() and len(text) <= 12 and int(text) >= least):
        raise InvalidRequestError(
            f"The header {header} must be a whole number of at least {least}.", remedy="Correct it.", field=header
        )
    return int(text)


def too_large(limit: int, actual: int | None) -> RequestTooLargeError:
    """The error of a body over the limit of bytes; ``actual`` is None where nobody counted to its end."""
    return RequestTooLargeError(
        f"The body is over the limit of {limit:,} bytes.",
        remedy="Send fewer rows at a time.",
        limit=limit,
        actual=actual,
    )
