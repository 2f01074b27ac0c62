"""Requests before Ray Serve sees them: no trailers, nothing that it fails on, none of its own controls."""

from __future__ import annotations

import asyncio
import socket
from contextlib import closing

import orjson
import pytest

from deployments.ingress import MAX_HEAD_BYTES, middlewares
from support.http_server import served

SKIP = (b"x-request-disconnect-disabled", b"?1")


def prepared(*headers, path="/t/acme/models/m/predict", kind="http"):
    """The headers that an application behind the middleware gets."""
    seen = []

    async def app(scope, receive, send):
        seen.extend(scope["headers"])

    (middleware,) = middlewares()
    wrapped = middleware.cls(app, *middleware.args, **middleware.kwargs)
    asyncio.run(wrapped({"type": kind, "path": path, "headers": list(headers)}, None, None))
    return seen


def test_ordinary_headers_pass_in_order():
    """Also those of several values, and values that are no ASCII."""
    headers = [(b"authorization", b"Bearer x"), (b"cookie", b"\xff"), (b"cookie", b"b"), (b"x-request-id", b"abc-1")]
    assert prepared(*headers) == [*headers, SKIP]


@pytest.mark.parametrize("value", [b"\xff", b"a b", b"", b"x" * 129])
def test_an_odd_request_id_is_dropped(value):
    """Serve makes a new one then, and sends that back."""
    assert prepared((b"x-request-id", value)) == [SKIP]


@pytest.mark.parametrize(
    "header",
    [
        (b"x-request-timeout-seconds", b"0.001"),
        (b"x-request-disconnect-disabled", b"\xff"),
        (b"serve_multiplexed_model_id", b"\xff"),
        (b"x-session-id", b"\xff"),
        (b"traceparent", b"\xff"),
    ],
)
def test_what_serve_reads_itself_is_dropped(header):
    """A second deadline, and values on which it fails."""
    assert prepared(header) == [SKIP]


def test_serve_does_not_watch_either_plane():
    """Its watch reads a whole upload into memory."""
    assert prepared((b"accept", b"*/*"), path="/api/v1/tenants") == [(b"accept", b"*/*"), SKIP]


@pytest.fixture(scope="module")
def port():
    """A uvicorn started as Serve starts its own; it answers with the headers that the application gets at its end."""

    async def app(scope, receive, send):
        while (await receive()).get("more_body"):
            pass
        body = orjson.dumps([[name.decode(), value.decode()] for name, value in scope["headers"]])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    with served(app) as its_port:
        yield its_port


def send(port, *segments):
    """Status and body of the answer to raw bytes."""
    with closing(socket.create_connection(("127.0.0.1", port), timeout=10)) as connection:
        for segment in segments:
            connection.sendall(segment)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), head.lower(), body


HEAD = b"POST /t/acme/x HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n"
TRAILERS = b"authorization: Bearer k\r\nx-request-timeout-ms: 1\r\nx-request-id: t\r\n\r\n"


@pytest.mark.parametrize(
    "segments",
    [
        (HEAD + b"\r\n2\r\n{}\r\n0\r\n" + TRAILERS,),
        (HEAD + b"\r\n2\r\n{}\r\n", b"0\r\n" + TRAILERS),
        (HEAD + b"trailer: authorization\r\n\r\n", b"0\r\n" + TRAILERS[:10], TRAILERS[10:]),
    ],
)
def test_trailers_are_no_headers(port, segments):
    """In whatever pieces they arrive."""
    status, _, body = send(port, *segments)
    names = [name for name, _ in orjson.loads(body[body.index(b"[") : body.rindex(b"]") + 1])]
    assert status == 200
    assert not {"authorization", "x-request-timeout-ms", "x-request-id"} & set(names)
    assert names[:3] == ["host", "connection", "transfer-encoding"]


def test_a_second_request_on_the_connection_has_its_own_headers(port):
    """Headers of the first, and its trailers, are gone."""
    first = HEAD.replace(b"connection: close", b"x-first: 1") + b"\r\n0\r\n" + TRAILERS
    _, _, body = send(port, first + b"GET /t/acme/x HTTP/1.1\r\nhost: y\r\nconnection: close\r\n\r\n")
    assert orjson.loads(body[body.rindex(b"[[") : body.rindex(b"]") + 1]) == [["host", "y"], ["connection", "close"]]


def test_an_answer_has_trailers():
    """After its chunks, once, and the connection serves the next request."""

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
        await send({"type": "http.response.body", "body": b"ab", "more_body": True})
        await send({"type": "http.response.body", "body": b"c"})
        await send({"type": "http.response.trailers", "headers": [(b"grpc-status", b"0"), (b"x", b"y")]})

    path = b"/t/acme/inference.GRPCInferenceService/ModelInfer"
    with served(app) as its_port:
        first, second = (
            b"POST %b HTTP/1.1\r\nhost: x\r\n%b\r\n" % (path, more) for more in (b"", b"connection: close\r\n")
        )
        status, head, body = send(its_port, first + second)
    end = b"2\r\nab\r\n1\r\nc\r\n0\r\ngrpc-status: 0\r\nx: y\r\n\r\n"
    assert (status, b"transfer-encoding: chunked" in head) == (200, True)
    assert body.startswith(end + b"HTTP/1.1 200 OK")
    assert body.endswith(b"\r\n\r\n" + end)


MALFORMED = [
    b"nonsense\r\n\r\n",
    b"GET /t/acme/x HTTP/1.1\r\nbad header\r\n\r\n",
    b"GET /t/acme/x HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
    b"POST /t/acme/x HTTP/1.1\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /t/acme/x HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
    b"GET /\xff HTTP/9.9\r\n\r\n",
    b"CONNECT x:80 HTTP/1.1\r\nhost: x\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
]


@pytest.mark.parametrize("raw", MALFORMED)
def test_what_is_no_http_is_answered_in_the_one_shape(port, raw):
    """400, with an id, and the connection is closed."""
    status, head, body = send(port, raw)
    assert status == 400
    assert b"content-type: application/json" in head
    error = orjson.loads(body)["error"]
    assert (error["code"], error["message"][:29]) == ("invalid_request", "Invalid HTTP request received")
    assert f"x-request-id: {error['request_id']}".encode() in head


@pytest.mark.parametrize("protocol", ["websocket", "h2c"])
def test_an_upgrade_is_answered_as_the_request_that_it_is(port, protocol):
    """There is no other protocol here, and HTTP lets a server pass over the offer."""
    upgrade = (
        f"connection: close, upgrade\r\nupgrade: {protocol}\r\nsec-websocket-version: 13\r\nsec-websocket-key: eA=="
    )
    status, _, body = send(port, f"GET /t/acme/x HTTP/1.1\r\nhost: x\r\n{upgrade}\r\n\r\n".encode())
    assert status == 200
    assert f'["upgrade","{protocol}"]'.encode() in body


def test_headers_are_bounded(port):
    """In one piece or in many; at the limit they are read. A body counts by its own limit."""
    head = b"GET /t/acme/x HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
    beyond = MAX_HEAD_BYTES + 1 - len(head)
    many = [b"a: %b\r\n" % (b"x" * 1_000)] * (beyond // 1_005)
    for segments in ([b"a" * beyond], [*many, b"a" * (beyond - len(b"".join(many)))]):
        status, _, body = send(port, head, *segments)
        assert status == 413
        assert orjson.loads(body)["error"]["details"] == {"limit": MAX_HEAD_BYTES}
    padding = b"a: %b\r\n\r\n" % (b"x" * (MAX_HEAD_BYTES - len(head) - len(b"a: \r\n\r\n")))
    assert send(port, head, padding)[0] == 200
    body = b"x" * 2**20
    post = b"POST /t/acme/x HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
    assert send(port, post + body + post + body + head + b"\r\n")[0] == 200


def test_under_v2_it_is_answered_as_a_text(port):
    """As the Open Inference Protocol's clients read it."""
    _, _, body = send(port, b"GET /t/acme/v2/health/live?x=1 HTTP/1.1\r\nbad header\r\n\r\n")
    assert isinstance(orjson.loads(body)["error"], str)
