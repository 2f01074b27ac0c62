"""Clients that send what no library sends: each gets an answer or is cut, and nobody else notices.

A real HAProxy with the platform's configuration stands before a cell in this process, whose other tenant is asked all
the while. ``MLCORE_TEST_BODY_MB`` is the size of the largest bodies.
"""

from __future__ import annotations

import itertools
import os
import re
import socket
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import orjson
import psutil
import pytest

from deployments.ingress import PreparedHeaders
from ml_core.domain.api_key import Scope
from ml_core.domain.assignment import AssignmentDelta
from ml_core.models.store import LocalStore
from ml_core.settings import ServingSettings
from support.haproxy_node import haproxy_node
from support.http_server import served
from support.inprocess_cell import ACME, GLOBEX, fitted, make_cell, promote, servable
from support.load import Connection, load, post, prediction
from support.tables import measures, split_target
from support.waiting import wait_until

BODY_MB = int(os.environ.get("MLCORE_TEST_BODY_MB", "40"))
SENDERS = 4
PATH = "/t/acme/models/measures/predict"
ROW = measures(1).drop(columns=["outcome"]).iloc[0].to_dict()
BODY = orjson.dumps({"rows": [ROW]})
LIMITS = ServingSettings()


@pytest.fixture(scope="module")
def cell(tmp_path_factory):
    """A cell that serves the same model of two tenants."""
    made = make_cell(LocalStore(tmp_path_factory.mktemp("artifacts")), LIMITS)
    made.assignment.apply(AssignmentDelta(1, True, {ACME: True, GLOBEX: True}, {}, {}))
    model = fitted("measures", split_target(measures(), "outcome"), n_estimators=5)
    for tenant in (ACME, GLOBEX):
        promote(made.table, servable(made.store, model, tenant=tenant))
    yield made
    made.table.close()
    made.service.close()


@pytest.fixture(scope="module")
def port(cell) -> Iterator[int]:
    """The port of HAProxy."""

    async def app(scope, receive, send):
        if scope["path"] == "/-/healthz":  # Serve answers it
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body"})
        else:
            await cell.app(scope, receive, send)

    with served(PreparedHeaders(app), keep_alive_s=60) as replica, haproxy_node() as node:
        node.start(replica)
        yield node.port


@pytest.fixture(scope="module")
def key(cell) -> str:
    return cell.key(ACME, Scope.PREDICT, Scope.READ)


@pytest.fixture(autouse=True)
def nobody_else_notices(cell, port, record_property) -> Iterator[None]:
    """The other tenant is answered all the while, and afterwards no place is taken."""
    asked = prediction("globex", "measures", cell.key(GLOBEX, Scope.PREDICT), ROW)
    with load(port, asked, connections=2) as others:
        others.goes_on(5)
        yield
        others.goes_on(20)
    assert others.failures == []
    record_property("others_p99_ms", others.p99_s() * 1000)
    assert others.p99_s() < 5
    wait_until(lambda: len(cell.app._reading) == len(cell.app._answering._gate) == 0)


@pytest.fixture
def connection(port) -> Iterator[Connection]:
    with closing(Connection(port)) as connection:
        yield connection


@pytest.fixture
def bounded_memory(record_property) -> Iterator[None]:
    """The memory of the replica, and of the clients in this process, never grows by more than the bodies that it may
    hold, each twice: in pieces and as a whole."""
    before = psutil.Process().memory_info().rss
    Path("/proc/self/clear_refs").write_text("5")  # forgets the highest value
    yield
    highest = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    record_property("grew_mb", grew_mb := int(highest[1]) / 1024 - before / 2**20)
    assert grew_mb < SENDERS * 2 * LIMITS.max_body_bytes / 2**20


def head(key, *lines, method="POST", path=PATH):
    return "\r\n".join([f"{method} {path} HTTP/1.1", "host: cell", f"authorization: Bearer {key}", *lines, "\r\n"])


def code_of(reply):
    return orjson.loads(reply.body)["error"]["code"]


def is_sound(connection, key):
    return connection.ask(post(PATH, key, BODY)).status == 200


def test_pipelined_requests_are_answered_in_order(connection, key):
    """Also where one of them is refused."""
    bodies = [BODY, b"{", BODY, b"[]", BODY]
    connection.socket.sendall(
        b"".join(post(PATH, key, body, f"x-request-id: turn-{turn}") for turn, body in enumerate(bodies))
    )
    replies = [connection.read() for _ in bodies]
    assert [reply.status for reply in replies] == [200, 400, 200, 400, 200]
    assert [reply.headers[b"x-request-id"] for reply in replies] == [b"turn-%d" % turn for turn in range(5)]


def test_a_head_that_comes_byte_by_byte_is_read(connection, key):
    for byte in post(PATH, key, BODY):
        connection.socket.sendall(bytes([byte]))
    assert connection.read().status == 200


def test_trailers_are_dropped(connection, key):
    """Whatever they say, and the connection is good for the next request."""
    chunked = b"%x\r\n%b\r\n0\r\nauthorization: Bearer mlk_x\r\nx-request-id: trailer\r\n\r\n" % (len(BODY), BODY)
    reply = connection.ask(head(key, "transfer-encoding: chunked", "trailer: authorization").encode() + chunked)
    assert reply.status == 200
    assert reply.headers[b"x-request-id"] != b"trailer"
    assert is_sound(connection, key)


def test_a_client_may_wait_for_100_continue(connection, key):
    connection.socket.sendall(head(key, f"content-length: {len(BODY)}", "expect: 100-continue").encode())
    assert connection.read().status == 100
    connection.socket.sendall(BODY)
    assert connection.read().status == 200
    assert is_sound(connection, key)


@pytest.mark.parametrize(("path", "status"), [("/t/acme/v2/models/measures", 200), (PATH, 405), ("/x", 404)])
def test_head_has_no_body(connection, key, path, status):
    connection.socket.sendall(head(key, method="HEAD", path=path).encode())
    assert connection.read(has_body=False).status == status
    assert is_sound(connection, key)


def test_a_content_length_that_is_too_short_is_two_requests(connection, key):
    """The first has a body that ends early; the rest is no request, so the connection is closed."""
    connection.socket.sendall(head(key, f"content-length: {len(BODY) - 10}").encode() + BODY)
    assert [connection.read().status for _ in range(2)] == [400, 400]
    assert connection.is_closed()


@pytest.mark.parametrize(
    "lines",
    [
        ("content-length: 10", "content-length: 20"),
        ("content-length: -1",),
        ("content-length: 1e3",),
        ("content-length: 99999999999999999999999",),
        ("content-length: 10", "transfer-encoding: gzip"),
        ("transfer-encoding: chunked, identity",),
    ],
)
def test_an_ambiguous_length_is_refused(connection, key, lines):
    """Before the body; the connection is closed."""
    assert connection.ask(head(key, *lines).encode()).status in (400, 413, 422, 501)
    assert connection.is_closed()


@pytest.mark.parametrize("name", ["authorization", "content-encoding", "x-request-id", "x-request-timeout-ms"])
def test_a_header_that_is_there_twice_is_refused(connection, key, name):
    given = {"authorization": f"Bearer {key}", "content-encoding": "gzip", "x-request-id": "a"}.get(name, "5")
    twice = [f"{name}: {given}"] * (1 if name == "authorization" else 2)
    reply = connection.ask(post(PATH, key, BODY, *twice))
    assert (reply.status, code_of(reply)) == (400, "invalid_request")
    assert is_sound(connection, key)


def test_a_path_of_any_bytes_is_not_found(port, key):
    """Bytes that are not UTF-8, as they are or escaped, and paths that are too long."""
    names = [b"\xff\xfe", b"%ff%fe", b"%00", b"%C0%AF..", b"\xc3", b"%", b"a" * 5_000]
    paths = [b"/t/%b/models/m/predict", b"/t/acme/models/%b/predict", b"/t/acme/v2/models/%b/infer"]
    for name, path in itertools.product(names, paths):
        with closing(Connection(port)) as connection:
            request = head(key, "content-length: 2").encode().replace(PATH.encode(), path % name) + b"{}"
            assert connection.ask(request).status in (400, 404, 414), (name, path)


def test_bodies_that_end_in_the_middle_are_forgotten(port, key):
    """Half is sent, then the connection is closed, or reset."""
    for turn in range(20):
        with closing(Connection(port)) as connection:
            connection.socket.sendall(head(key, f"content-length: {len(BODY)}").encode() + BODY[: len(BODY) // 2])
            if turn % 2:
                connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def answer_of(port, request):
    """What a client reads that sends a request as far as it is let."""
    with closing(Connection(port)) as connection:
        with suppress(ConnectionError):
            for piece in request:
                connection.socket.sendall(piece)
        with suppress(ConnectionError):
            return connection.read()
    return None


def send_together(port, requests):
    with ThreadPoolExecutor(SENDERS) as pool:
        return list(pool.map(lambda request: answer_of(port, request), requests))


def test_huge_bodies_are_refused(port, key, bounded_memory):
    """413, or the connection is cut before the client has read it; with and without a length."""
    zeros, megabytes = bytes(2**20), BODY_MB
    plain = [head(key, f"content-length: {megabytes * 2**20}").encode(), *[zeros] * megabytes]
    chunk = b"100000\r\n" + zeros + b"\r\n"
    chunked = [head(key, "transfer-encoding: chunked").encode(), *[chunk] * megabytes, b"0\r\n\r\n"]
    replies = send_together(port, [plain, chunked] * (SENDERS // 2))
    assert {(reply.status, code_of(reply)) for reply in replies if reply is not None} == {(413, "too_large")}


def test_bombs_are_refused(port, key, bounded_memory):
    """Compressed bodies of a thousand times their size."""
    packer = zlib.compressobj(wbits=31)
    bomb = b"".join([*(packer.compress(bytes(2**20)) for _ in range(BODY_MB)), packer.flush()])
    replies = send_together(port, [[post(PATH, key, bomb, "content-encoding: gzip")]] * SENDERS)
    assert {(reply.status, code_of(reply)) for reply in replies} == {(413, "too_large")}


def test_a_body_in_chunks_of_one_byte_is_read(port, key, bounded_memory):
    """As long as the limit allows."""
    count = min(BODY_MB * 2**20 // 100, LIMITS.max_body_bytes - len(BODY)) // 1000
    first, rest = b"".join(b"1\r\n%c\r\n" % byte for byte in BODY), b"1\r\n \r\n" * 1000
    pieces = [head(key, "transfer-encoding: chunked").encode(), first, *[rest] * count, b"0\r\n\r\n"]
    replies = send_together(port, [pieces] * 2)
    assert [reply.status for reply in replies] == [200, 200]


def test_answers_that_nobody_reads_are_not_kept(port, key, bounded_memory):
    """More than buffers hold; the clients send the next request instead."""
    request = prediction("acme", "measures", key, *[ROW] * 4_000, proba=True)
    clients = [Connection(port) for _ in range(SENDERS)]
    for client in clients:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.socket.sendall(request)
    for client in clients:
        started = client.socket.recv(2048)
        assert started.startswith(b"HTTP/1.1 200"), started
        client.socket.settimeout(0.2)
        with suppress(TimeoutError):
            client.socket.sendall(request)
    for client in clients:
        client.close()
