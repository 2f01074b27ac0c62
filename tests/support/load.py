"""Clients that ask the same request again and again, each over one connection, and count what came of it.

Unlike ``MLClient`` they never ask twice: a request that fails is a failure. Head and body are one segment.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import orjson

from support.waiting import wait_until


class Reply(NamedTuple):
    """An answer."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes


class Connection:
    """One HTTP/1.1 connection."""

    def __init__(self, port: int, timeout_s: float = 20.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self.socket.makefile("rb")

    def ask(self, request: bytes) -> Reply:
        """Send a request, and read its answer."""
        self.socket.sendall(request)
        return self.read()

    def read(self, *, has_body: bool = True) -> Reply:
        """Read one answer.

        Raises:
            ConnectionError: The server closed the connection first.
        """
        line = self._file.readline()
        if not line:
            raise ConnectionError("closed before an answer")
        headers = {}
        while (header := self._file.readline().rstrip(b"\r\n")) != b"":
            name, _, value = header.partition(b":")
            headers[name.lower()] = value.strip()
        body = self._file.read(int(headers.get(b"content-length", 0))) if has_body else b""
        return Reply(int(line.split()[1]), headers, body)

    def is_closed(self) -> bool:
        """Whether the server closes the connection, within the timeout."""
        try:
            return self._file.read(1) == b""
        except ConnectionError:
            return True

    def close(self) -> None:
        """Close it."""
        self._file.close()
        self.socket.close()


def post(path: str, key: str, body: bytes, *lines: str) -> bytes:
    """A whole request."""
    head = [f"POST {path} HTTP/1.1", "host: cell", f"authorization: Bearer {key}", f"content-length: {len(body)}"]
    return "\r\n".join([*head, *lines, "\r\n"]).encode() + body


def prediction(
    tenant: str, model: str, key: str, *rows: object, lines: tuple[str, ...] = (), **options: object
) -> bytes:
    """A whole request for predictions."""
    return post(f"/t/{tenant}/models/{model}/predict", key, orjson.dumps({"rows": rows, **options}), *lines)


@dataclass
class Load:
    """What came of the requests so far."""

    statuses: Counter[int] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    """Answers other than 200, other than the expected one, and connections that broke."""
    latencies_s: list[float] = field(default_factory=list)
    """Of the answers with 200."""

    @property
    def answered(self) -> int:
        """Requests that were answered with 200."""
        return self.statuses[200]

    def goes_on(self, count: int = 100, timeout_s: float = 30) -> None:
        """Wait for so many answers more."""
        wanted = self.answered + count
        wait_until(lambda: self.answered >= wanted, timeout_s)

    def p99_s(self, since: int = 0) -> float:
        """The 99th percentile of the latencies, from the n-th answer on."""
        times = sorted(self.latencies_s[since:])
        return times[min(len(times) - 1, int(len(times) * 0.99))]


@contextmanager
def load(
    port: int, request: bytes, *, connections: int = 4, expected: object = None, allowed: Collection[int] = ()
) -> Iterator[Load]:
    """Ask until left.

    Args:
        port: The port on the loopback interface.
        request: A whole request.
        connections: How many ask at the same time.
        expected: The ``predictions`` of each answer; None: any.
        allowed: Statuses other than 200 that are no failure. 429 and 503 must name a pause.
    """
    found, stop = Load(), threading.Event()
    arguments = (port, request, expected, allowed, found, stop)
    threads = [threading.Thread(target=_ask, args=arguments) for _ in range(connections)]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _ask(
    port: int, request: bytes, expected: object, allowed: Collection[int], found: Load, stop: threading.Event
) -> None:
    connection: Connection | None = None
    while not stop.is_set():
        started = time.monotonic()
        try:
            connection = connection or Connection(port)
            reply = connection.ask(request)
        except OSError as error:
            found.failures.append(f"{type(error).__name__}: {error}")
            if connection is not None:
                connection.close()
            connection = None
            continue
        if reply.status == 200:
            found.latencies_s.append(time.monotonic() - started)
        if (failure := _failure(reply, expected, allowed)) is not None:
            found.failures.append(failure)
        found.statuses[reply.status] += 1
        if reply.headers.get(b"connection") == b"close":
            connection.close()
            connection = None
    if connection is not None:
        connection.close()


def _failure(reply: Reply, expected: object, allowed: Collection[int]) -> str | None:
    if reply.status in allowed:
        has_pause = reply.status not in (429, 503) or int(reply.headers.get(b"retry-after", 0)) >= 1
        return None if has_pause else f"{reply.status} without a pause"
    if reply.status != 200:
        return f"{reply.status}: {reply.body!r}"
    if expected is not None and orjson.loads(reply.body)["predictions"] != expected:
        return f"a wrong answer: {reply.body!r}"
    return None
