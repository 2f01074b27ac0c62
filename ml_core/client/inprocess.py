"""Sends requests to an ASGI application in this process, without a socket; bodies are streamed in both directions."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import httpx

_WAITING_PIECES = 8
"""Pieces of a response that wait for their reader at most; the application waits with the next."""


class InProcessTransport(httpx.BaseTransport):
    """Runs an ASGI application on an event loop in a thread of its own.

    httpx has such a transport for its asynchronous client only, and that one keeps whole responses in memory. Its
    threads keep the process from ending until it is closed.

    Args:
        app: The application.
        root_path: Where the application is, as a server in front of it would say: ``/api``.
    """

    def __init__(self, app: Any, root_path: str = "") -> None:
        self._app = app
        self._root_path = root_path
        self._loop = anyio.from_thread.start_blocking_portal()
        self._portal = self._loop.__enter__()

    def close(self) -> None:
        """End the event loop, and what waits on it; what a thread has begun goes on to its end."""
        with suppress(RuntimeError):  # it has ended
            self._portal.call(self._portal.stop, True)
        self._loop.__exit__(None, None, None)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Called by httpx."""
        exchange = _Exchange(request)
        done = self._portal.start_task_soon(exchange.run, self._app, self._root_path)
        try:
            status, headers = exchange.head()
        except KeyboardInterrupt:
            done.cancel()  # else the client would wait for the answer when it is closed
            raise
        if status is None:
            done.result()
            raise httpx.RemoteProtocolError("The application ended without an answer.", request=request)
        return httpx.Response(status, headers=headers, stream=exchange)


class _Exchange(httpx.SyncByteStream):
    """One request and its response."""

    def __init__(self, request: httpx.Request) -> None:
        self._request = request
        self._messages: queue.Queue[dict[str, Any] | None] = queue.Queue(_WAITING_PIECES)
        self._is_closed = False

    async def run(self, app: Any, root_path: str) -> None:
        """Serve the request; on the event loop."""
        url = self._request.url
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": self._request.method,
            "headers": [(name.lower(), value) for name, value in self._request.headers.raw],
            "scheme": url.scheme,
            "path": url.path,
            "raw_path": url.raw_path.split(b"?")[0],
            "query_string": url.query,
            "server": (url.host, url.port),
            "client": ("127.0.0.1", 0),
            "root_path": root_path,
        }
        assert isinstance(self._request.stream, httpx.SyncByteStream)  # noqa: S101 - a synchronous client's request
        pieces, is_read = iter(self._request.stream), False
        left = anyio.Event()

        async def receive() -> dict[str, Any]:
            nonlocal is_read
            if is_read:
                await left.wait()
                return {"type": "http.disconnect"}
            piece = await anyio.to_thread.run_sync(next, pieces, None)
            is_read = piece is None
            return {"type": "http.request", "body": piece or b"", "more_body": not is_read}

        async def send(message: dict[str, Any] | None) -> None:
            if self._is_closed:
                return
            try:
                self._messages.put_nowait(message)
            except queue.Full:
                await anyio.to_thread.run_sync(self._messages.put, message)

        try:
            await app(scope, receive, send)
        finally:
            left.set()
            await send(None)  # wakes the reader of an application that failed before it answered

    def head(self) -> tuple[int | None, list[tuple[bytes, bytes]]]:
        """Status and headers; no status where the application ended without one."""
        message = self._messages.get()
        return (None, []) if message is None else (message["status"], list(message["headers"]))

    def __iter__(self) -> Iterator[bytes]:
        while (message := self._messages.get()) is not None:
            yield message.get("body", b"")
            if not message.get("more_body", False):
                return
        raise httpx.RemoteProtocolError("The application ended in the middle of its answer.", request=self._request)

    def close(self) -> None:
        """Called by httpx when nobody reads any further."""
        self._is_closed = True
        while not self._messages.empty():
            self._messages.get_nowait()
