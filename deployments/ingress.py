"""HTTP parsing in the replicas, before Ray Serve handles a request.

Serve calls ``middlewares`` in each replica before it starts uvicorn, because
``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH`` is ``deployments.ingress:middlewares``. They run before Serve's own
handling (Ray 2.60, ``serve/_private/replica.py``, ``_direct_ingress_asgi``), which

* decodes some headers as UTF-8 and answers 500 if they are not;
* has its own deadline and error format, in addition to ``x-request-timeout-ms``;
* returns any ``x-request-id``, whatever its content;
* starts two tasks per request to detect a disconnect, and buffers the body without limit. The prediction plane detects
  disconnects itself; an operation of the control API runs to its end.

The requests of a cell do not reach that handling, see ``deployments.direct``.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.config import HTTP_PROTOCOLS
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from deployments.direct import OF_SERVE, DirectPath, JoinedSend, counter_of
from ml_core.exceptions import InvalidRequestError, MLFrameworkError, RequestTooLargeError
from ml_core.inference.edge.grpc_headers import GRPC_PATH
from ml_core.inference.edge.http import error_response, is_sane_request_id, new_request_id

MAX_HEAD_BYTES = 64 * 1024
"""Maximum size of the head of a request, including its first line. The limit of HAProxy is lower."""

_DROPPED: Any = deque(maxlen=0)
_NO_DISCONNECT_TASKS = (b"x-request-disconnect-disabled", b"?1")
# Headers that control Serve, in the spellings that it accepts. Clients of the platform must not use them.
_CONTROLS = frozenset(
    {
        b"x-request-timeout-seconds",
        b"x-request-disconnect-disabled",
        b"x-session-id",
        b"x_session_id",
        b"serve_multiplexed_model_id",
        b"serve-multiplexed-model-id",
    }
)
_LOOKED_AT = _CONTROLS | {b"x-request-id", b"traceparent", b"tracestate"}

_cells: list[ASGIApp] = []
"""The application of the cell whose replica this process is, if it is one."""


def serve_directly(app: ASGIApp) -> None:
    """Answer the requests of this process with the application of a cell. Call it before Serve starts the server."""
    _cells[:] = [app]


def middlewares() -> list[Middleware]:
    """Called by Ray Serve."""
    HTTP_PROTOCOLS["auto"] = f"{__name__}:{HttpProtocol.__name__}"  # Serve lets uvicorn choose
    return [Middleware(PreparedHeaders, *_cells)]


class HttpProtocol(HttpToolsProtocol):
    """HTTP/1.1 of uvicorn 0.54, with six differences.

    * Trailers of a chunked body are dropped. uvicorn appends them to the headers, so a key in a trailer would authorize
      a request after a proxy checked its headers (RFC 9110, 6.5.1).
    * The size of the headers is limited. uvicorn has no limit.
    * Errors of the HTTP parser have the platform's format.
    * Upgrades to WebSocket are ignored; the request is answered as HTTP.
    * An answer to a gRPC call may have trailers, as the extension ``http.response.trailers`` of ASGI.
    * The requests of a cell take the direct path.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ws_protocol_class = None
        self._head_bytes = 0
        # Nothing reads the client's address, which the outer middleware sets.
        app = self.app.app if isinstance(self.app, ProxyHeadersMiddleware) else self.app
        self._direct: DirectPath | None = getattr(app, "direct", None)

    def data_received(self, data: bytes) -> None:
        """Called by the event loop. Counts the bytes of the headers until they are complete."""
        if self.headers is not _DROPPED:
            self._head_bytes += len(data)
        super().data_received(data)
        if self.headers is _DROPPED:
            self._head_bytes = 0
        elif self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            message = f"The headers exceed the limit of {MAX_HEAD_BYTES:,} bytes."
            self._refuse(RequestTooLargeError(message, remedy="Send fewer headers.", limit=MAX_HEAD_BYTES))

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        super().on_headers_complete()
        self.headers = _DROPPED  # drops trailers, which the parser would append

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Called by uvicorn when the head of a request is complete, and the response before it was sent."""
        path = cycle.scope["path"]
        is_call = GRPC_PATH.fullmatch(path) is not None
        if self._direct is not None and not path.startswith(OF_SERVE):
            app = self._direct
            if not is_call:
                sending: Any = JoinedSend(cycle)
                cycle.send = sending  # type: ignore[method-assign]  # which the cycle gives the application
        served: Any = SentTrailers(app, cycle) if is_call else app
        super()._start_asgi_task(cycle, served)

    def send_400_response(self, msg: str) -> None:
        """Called by uvicorn for bytes that are not an HTTP request. Answers 400 and closes the connection."""
        self._refuse(InvalidRequestError(msg, remedy="Send an HTTP/1.1 request (RFC 9112)."))

    def _refuse(self, error: MLFrameworkError) -> None:
        request_id = new_request_id()
        # uvicorn sets the URL when it begins to parse a request.
        path = getattr(self, "url", b"").partition(b"?")[0].decode("latin-1")
        response = error_response(error, path, request_id)
        head = [
            STATUS_LINE[response.status],
            b"content-type: %b\r\n" % response.content_type,
            b"content-length: %d\r\n" % len(response.body),
            b"x-request-id: %b\r\n" % request_id.encode(),
            b"connection: close\r\n\r\n",
        ]
        self.transport.write(b"".join([*head, response.body]))
        self.transport.close()


class SentTrailers:
    """ASGI middleware that sends trailers over the connection of uvicorn, which knows none."""

    def __init__(self, app: ASGIApp, cycle: RequestResponseCycle) -> None:
        self._app = app
        self._cycle = cycle
        self._has_trailers = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""

        async def send_all(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._has_trailers = message.get("trailers", False)
            elif message["type"] == "http.response.body" and self._has_trailers:
                message = {**message, "more_body": True}
            elif message["type"] == "http.response.trailers":
                lines = [b"%b: %b\r\n" % header for header in message["headers"]]
                end = b"".join([b"0\r\n", *lines, b"\r\n"])
                # uvicorn must not put the end of the chunks into a chunk.
                self._cycle.chunked_encoding, self._cycle.expected_content_length = False, len(end)
                message = {"type": "http.response.body", "body": end}
            await send(message)

        await self._app(scope, receive, send_all)


class PreparedHeaders:
    """ASGI middleware that removes the headers that Serve can't handle.

    Args:
        app: The application of Serve.
        cell: The application of the cell of this replica, if it is one.

    Attributes:
        direct: The path of the cell's requests, which do not come here.
    """

    def __init__(self, app: ASGIApp, cell: ASGIApp | None = None) -> None:
        self._app = app
        self.direct = None if cell is None else DirectPath(cell, counter_of(app))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] == "http":
            headers = [header for header in scope["headers"] if header[0] not in _LOOKED_AT or _is_kept(*header)]
            scope["headers"] = [*headers, _NO_DISCONNECT_TASKS]
        await self._app(scope, receive, send)


def _is_kept(name: bytes, value: bytes) -> bool:
    if name == b"x-request-id":
        return is_sane_request_id(value)
    return name not in _CONTROLS and value.isascii()
