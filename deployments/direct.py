"""The direct path of predictions: a cell's replica answers them without Ray Serve's handling of each request.

That handling takes about 95 µs of the replica's processor (Ray 2.60), more than a prediction: contexts, a log record, a
copy of the headers, and two latencies of which Serve's agent records each again. Serve keeps what it needs to know, the
number of ongoing requests, by which it scales and drains replicas. It no longer has

* counts and latencies of requests in its own metrics, for which the platform has ``mlcore_requests_total`` and others;
* limits of ongoing and queued requests; those of the edge apply, which are lower.

Serve's health checks, and requests that its fallback proxy forwards to the replica, still take Serve's path.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

OF_SERVE = "/-/"
"""The prefix of Serve's own requests to a replica."""

_CLOSE = (b"connection", b"close")


class DirectPath:
    """Answers the requests of one replica with the application of its cell.

    Args:
        app: The application. Its responses are complete: one message for the head and one for the body.
        count: Called with 1 and -1 when a request begins and ends.
    """

    def __init__(self, app: ASGIApp, count: Callable[[int], None]) -> None:
        self._app = app
        self._count = count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        self._count(1)
        try:
            await self._app(scope, receive, send)
        finally:
            self._count(-1)


def behind_serve(app: ASGIApp) -> ASGIApp:
    """An application for Serve's own path: without ``x-request-id``, which Serve adds to each response."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_without_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [header for header in message["headers"] if header[0] != b"x-request-id"]
                message = {**message, "headers": headers}
            await send(message)

        await app(scope, receive, send_without_id if scope["type"] == "http" else send)

    return serve


def counter_of(serve_app: Any) -> Callable[[int], None]:
    """The function that counts the ongoing requests of this replica.

    Args:
        serve_app: What Serve gives its middlewares to wrap: ``RequestIdMiddleware`` around a method of the replica.
    """
    from ray.serve._private.common import RequestMetadata, RequestProtocol

    metrics = serve_app._app.__self__._metrics_manager
    request = RequestMetadata("", "", _request_protocol=RequestProtocol.HTTP, is_direct_ingress=True)
    return lambda change: metrics._change_num_ongoing_requests(request, change)


class JoinedSend:
    """``send`` of ASGI that writes the head of a complete response together with its body.

    uvicorn 0.54 writes them one by one, which are two system calls here and two packets for the ingress.
    """

    __slots__ = ("_cycle", "_head")

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._head: Message = {}

    async def __call__(self, message: Message) -> None:
        """Keep the head, or write it and the body."""
        if message["type"] == "http.response.start":
            self._head = message
            return
        cycle = self._cycle
        if cycle.flow.write_paused and not cycle.disconnected:
            await cycle.flow.drain()
        if cycle.disconnected:
            return
        headers = self._head["headers"]
        parts = [STATUS_LINE[self._head["status"]]]
        for name, value in (*cycle.default_headers, *headers):
            parts += (name, b": ", value, b"\r\n")
        if _CLOSE in headers:
            cycle.keep_alive = False
        elif not cycle.keep_alive:
            parts.append(b"connection: close\r\n")
        parts.append(b"\r\n")
        if cycle.scope["method"] != "HEAD":
            parts.append(message["body"])
        cycle.transport.write(b"".join(parts))
        self._end()

    def _end(self) -> None:
        """What uvicorn does after the last byte."""
        cycle = self._cycle
        cycle.response_started = cycle.response_complete = True
        cycle.waiting_for_100_continue = False
        cycle.message_event.set()
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()
