"""What uvicorn and Ray Serve do with a request before an application sees it, made safe and short.

Serve calls ``middlewares`` in each replica, before it starts uvicorn there, when
``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH`` is ``deployments.ingress:middlewares``. They run
in front of Serve's own handling (Ray 2.60, ``serve/_private/replica.py``, ``_direct_ingress_asgi``), which

* decodes some headers as UTF-8 and answers 500 when they are not;
* has a deadline of its own, answered in its own shape, beside the platform's ``x-request-timeout-ms``;
* sends any ``x-request-id`` back, whatever it holds;
* starts two tasks a request to notice that the client has left, and reads the whole body into memory meanwhile,
  however slowly the application takes it. The prediction plane notices by itself, and only for a request that waits;
  an operation of the control API that has begun goes on to its end.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.config import HTTP_PROTOCOLS
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from ml_core.exceptions import InvalidRequestError, MLFrameworkError, RequestTooLargeError
from ml_core.inference.edge.errors import error_response
from ml_core.inference.edge.http import is_sane_request_id, new_request_id

MAX_HEAD_BYTES = 64 * 1024
"""Of one request, its first line included; the ingress refuses less than that already."""

_DROPPED: Any = deque(maxlen=0)
_NO_DISCONNECT_TASKS = (b"x-request-disconnect-disabled", b"?1")
# Serve's own controls, in the spellings that it accepts; no caller of this platform has a use for them.
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


def middlewares() -> list[Middleware]:
    """Called by Ray Serve."""
    HTTP_PROTOCOLS["auto"] = f"{__name__}:{HttpProtocol.__name__}"  # Serve lets uvicorn choose
    return [Middleware(PreparedHeaders)]


class HttpProtocol(HttpToolsProtocol):
    """HTTP/1.1 as uvicorn 0.54 reads it, with four differences.

    * Trailers of a chunked body are dropped. uvicorn appends them to the headers, where a key in a trailer would
      authorize a request whose headers were checked on the way (RFC 9110, 6.5.1).
    * Headers are bounded: uvicorn would keep any number of bytes of them.
    * What can't be parsed as HTTP is answered in the platform's shape.
    * An offer to upgrade to a WebSocket is passed over: the request is answered as the one that it is.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ws_protocol_class = None
        self._head_bytes = 0

    def data_received(self, data: bytes) -> None:
        """Called by the event loop. What begins inside the headers of a request counts, until they are complete."""
        if self.headers is not _DROPPED:
            self._head_bytes += len(data)
        super().data_received(data)
        if self.headers is _DROPPED:
            self._head_bytes = 0
        elif self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            message = f"The headers are over the limit of {MAX_HEAD_BYTES:,} bytes."
            self._refuse(RequestTooLargeError(message, remedy="Send fewer.", limit=MAX_HEAD_BYTES))

    def on_headers_complete(self) -> None:
        """Called by the parser; what it appends to ``self.headers`` afterwards is no part of the request any more."""
        super().on_headers_complete()
        self.headers = _DROPPED

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP request, and close the connection."""
        self._refuse(InvalidRequestError(msg, remedy="Send a request of HTTP/1.1 (RFC 9112)."))

    def _refuse(self, error: MLFrameworkError) -> None:
        request_id = new_request_id()
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


class PreparedHeaders:
    """ASGI middleware: hands on only headers that Serve can take."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

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
