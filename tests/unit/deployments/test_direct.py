"""The direct path: what reaches the cell, what Serve still counts, and how responses look on the wire."""

from __future__ import annotations

import asyncio
import socket
import threading
import warnings
from contextlib import closing
from types import SimpleNamespace

import pytest
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from deployments import ingress
from deployments.direct import JoinedSend, behind_serve
from deployments.ingress import PreparedHeaders, middlewares, serve_directly
from ml_core.inference.edge.http import HttpResponse
from support.http_server import served
from support.waiting import wait_until

with warnings.catch_warnings():  # Ray is imported with warnings of its dependencies
    warnings.simplefilter("ignore")
    from ray.serve._private.http_util import RequestIdMiddleware


class Metrics:
    """What a replica of Serve counts."""

    def __init__(self):
        self.ongoing, self.most = 0, 0

    def _change_num_ongoing_requests(self, request, change):
        assert (request.is_http_request, request.is_direct_ingress) == (True, True)
        self.ongoing += change
        self.most = max(self.most, self.ongoing)


class Replica:
    """A replica of Serve, as its middlewares see it."""

    def __init__(self):
        self._metrics_manager = Metrics()

    async def _direct_ingress_asgi(self, scope, receive, send):
        await HttpResponse(200, b"serve").send(send, b"id-2")


async def cell(scope, receive, send):
    """Answers with the path; closes the connection, raises or waits on request."""
    path = scope["path"]
    if path == "/raise":
        raise ValueError(path)
    if path == "/wait":
        while (await receive())["type"] != "http.disconnect":
            pass
        left.set()
        return
    await receive()
    headers = {b"connection": b"close"} if path == "/close" else {}
    await HttpResponse(200, path.encode(), headers=headers).send(send, b"id-1")


left = threading.Event()


@pytest.fixture(scope="module")
def replica():
    """A replica and the port at which its cell is served directly."""
    replica = Replica()
    serve_directly(cell)
    (middleware,) = middlewares()
    ingress._cells.clear()
    app = middleware.cls(RequestIdMiddleware(replica._direct_ingress_asgi), *middleware.args)
    with served(app) as port:
        replica.port = port
        yield replica


def exchange(port, request, answers=1):
    """The segments that raw bytes are answered with, until so many bodies ended or the connection was closed."""
    with closing(socket.create_connection(("127.0.0.1", port), timeout=10)) as connection:
        connection.sendall(request)
        segments = []
        while b"".join(segments).count(b"\r\n\r\n") < answers and (segment := connection.recv(65536)):
            segments.append(segment)
        return segments


def asked(path, method="GET", headers=""):
    return f"{method} {path} HTTP/1.1\r\nhost: x\r\n{headers}\r\n".encode()


def test_the_cell_answers(replica):
    """With the head of uvicorn and its own, and nothing of Serve."""
    head, _, body = b"".join(exchange(replica.port, asked("/t/acme/x"))).partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert (lines[0], body) == (b"HTTP/1.1 200 OK", b"/t/acme/x")
    assert lines.count(b"x-request-id: id-1") == 1
    assert b"content-length: 9" in lines
    assert b"connection: close" not in lines
    assert any(line.startswith(b"date: ") for line in lines)


def test_head_and_body_are_written_at_once():
    """One system call, and one packet for the ingress."""
    written = []
    cycle = RequestResponseCycle(
        scope={"method": "GET"},
        transport=SimpleNamespace(write=written.append),
        flow=SimpleNamespace(write_paused=False),
        logger=None,
        access_logger=None,
        access_log=False,
        default_headers=[],
        message_event=asyncio.Event(),
        expect_100_continue=False,
        keep_alive=True,
        on_response=lambda: None,
    )
    asyncio.run(HttpResponse(200, b"{}").send(JoinedSend(cycle), b"id-1"))
    assert [each[-6:] for each in written] == [b"\r\n\r\n{}"]


@pytest.mark.parametrize("path", ["/-/healthz", "/-/routes"])
def test_serve_answers_its_own_paths(replica, path):
    """By which it sees that the replica is healthy."""
    assert exchange(replica.port, asked(path, headers="connection: close\r\n"))[0].count(b"HTTP/1.1 200") == 1
    whole = b"".join(exchange(replica.port, asked(path, headers="connection: close\r\n"), answers=2))
    assert whole.endswith(b"serve")


def test_requests_in_a_row_are_answered_in_order(replica):
    """Also when the second arrives with the first."""
    whole = b"".join(exchange(replica.port, asked("/one") + asked("/two") + asked("/close"), answers=4))
    assert [part[:4] for part in whole.split(b"\r\n\r\n")[1:]] == [b"/one", b"/two", b"/clo"]


@pytest.mark.parametrize(
    ("request_", "body"),
    [
        (asked("/close"), b"/close"),
        (asked("/x", headers="connection: close\r\n"), b"/x"),
        (asked("/x", "HEAD", "connection: close\r\n"), b""),
    ],
)
def test_the_connection_is_closed_once_that_is_said(replica, request_, body):
    """By the client or by the response. An answer to HEAD has a head only."""
    whole = b"".join(exchange(replica.port, request_, answers=2))
    head, _, rest = whole.partition(b"\r\n\r\n")
    assert rest == body
    assert head.count(b"connection: close") == 1
    assert head.count(b"content-length: ") == 1


def test_a_client_that_expects_to_be_told_to_go_on_is_told(replica):
    """100 is sent before the answer."""
    request = asked("/close", "POST", "expect: 100-continue\r\ncontent-length: 2\r\n") + b"{}"
    whole = b"".join(exchange(replica.port, request, answers=3))
    assert whole.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")


def test_serve_counts_requests_in_progress(replica):
    """Also those that fail, and those whose client left: Serve drains and scales by the count."""
    metrics = replica._metrics_manager
    assert b"500" in exchange(replica.port, asked("/raise"))[0]
    with closing(socket.create_connection(("127.0.0.1", replica.port), timeout=10)) as connection:
        connection.sendall(asked("/wait"))
        wait_until(lambda: metrics.ongoing == 1)
    assert left.wait(10)
    exchange(replica.port, asked("/x"))
    assert (metrics.ongoing, metrics.most) == (0, 1)


def test_without_a_cell_everything_is_serves():
    """As in the replica of the control API."""
    assert PreparedHeaders(RequestIdMiddleware(Replica()._direct_ingress_asgi)).direct is None


def test_behind_serve_the_request_id_is_not_doubled():
    """Serve adds it to every response."""
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.request"}

    asyncio.run(behind_serve(cell)({"type": "http", "path": "/x", "headers": []}, receive, send))
    assert [name for name, _ in sent[0]["headers"]] == [b"content-type", b"content-length"]
    assert sent[1]["body"] == b"/x"
