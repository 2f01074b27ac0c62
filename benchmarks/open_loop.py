"""Latency at a given rate: requests are sent when they are due, whether or not those before them were answered.

A load generator that waits for answers sends less while the server is slow, and so leaves out the requests that would
have waited. Here a latency is measured from the time at which its request was due.
"""

from __future__ import annotations

import asyncio
import math
import statistics
import time
from collections import Counter, deque
from urllib.parse import urlsplit

_LENGTH = b"content-length: "


class _Connection(asyncio.Protocol):
    """One kept HTTP/1.1 connection with one request at a time."""

    def __init__(self, load: OpenLoop) -> None:
        self._load = load
        self._received = b""
        self._due = 0.0
        self._is_asking = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._load.free(self)

    def ask(self, due: float) -> None:
        self._due, self._is_asking = due, True
        self.transport.write(self._load.request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        if not self._is_asking:  # the ingress takes back a connection that is not used
            return
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        start = head.lower().find(_LENGTH)
        if not found or len(body) < int(head[start + len(_LENGTH) :].split(b"\r\n", 1)[0]):
            return
        status = head[9:12].decode()
        self._load.statuses[status] += 1
        if status == "200":
            self._load.latencies.append(time.perf_counter() - self._due)
        self._received, self._is_asking = b"", False
        self._load.free(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if self._is_asking and not self._load.is_over:
            self._load.statuses["lost"] += 1
        elif not self._is_asking:
            self._load.forget(self)


class OpenLoop:
    """Sends one POST again and again at a constant rate over as many connections as it takes, up to a bound.

    Attributes:
        statuses: Requests by the status of their answers; ``lost``: a connection broke, or no answer came in time.
    """

    def __init__(self, url: str, body: str, headers: dict[str, str], *, connections: int = 64) -> None:
        parts = urlsplit(url)
        given = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = (
            f"POST {parts.path} HTTP/1.1\r\nhost: {parts.netloc}\r\n{given}content-length: {len(body.encode())}\r\n\r\n"
        )
        self.request = head.encode() + body.encode()
        self.latencies: list[float] = []
        self.statuses: Counter[str] = Counter()
        self.is_over = False
        self._address = (parts.hostname, parts.port)
        self._connections = connections
        self._free: list[_Connection] = []
        self._waiting: deque[float] = deque()

    def free(self, connection: _Connection) -> None:
        """Take back a connection, and use it for the request that waited longest."""
        if self._waiting:
            connection.ask(self._waiting.popleft())
        else:
            self._free.append(connection)

    def forget(self, connection: _Connection) -> None:
        """Use a connection no more that was closed while it was not used."""
        if connection in self._free:
            self._free.remove(connection)

    def run(self, rate: float, seconds: float) -> dict[str, float]:
        """Milliseconds ``p50_ms`` and ``p99_ms`` of the answers with 200, and how many these and the others are."""
        asyncio.run(self._run(rate, seconds))
        cuts = statistics.quantiles(self.latencies or [math.nan], n=100, method="inclusive")
        return {
            "rate": round(rate),
            "p50_ms": cuts[49] * 1000,
            "p99_ms": cuts[98] * 1000,
            "answered": self.statuses["200"],
            "failed": self.statuses.total() - self.statuses["200"],
        }

    async def _run(self, rate: float, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(self._connections):
            await loop.create_connection(lambda: _Connection(self), *self._address)
        begun = time.perf_counter()
        for number in range(int(rate * seconds)):
            due = begun + number / rate
            if (pause := due - time.perf_counter()) > 0:
                await asyncio.sleep(pause)
            elif number % 16 == 0:
                await asyncio.sleep(0)  # answers are read although the next request is due
            if self._free:
                self._free.pop().ask(due)
            else:
                self._waiting.append(due)
        wanted = int(rate * seconds)
        while self.statuses.total() < wanted and time.perf_counter() < begun + 2 * seconds + 5:
            await asyncio.sleep(0.01)
        if (missing := wanted - self.statuses.total()) > 0:
            self.statuses["lost"] += missing
        self.is_over = True
