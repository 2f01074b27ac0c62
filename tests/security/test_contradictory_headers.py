"""Headers that only some of the parts on the way see: through the ingress and on a replica's own port."""

from __future__ import annotations

import socket
from contextlib import closing
from urllib.parse import urlsplit

import orjson
import psutil
import pytest

from support.tables import measures

ROW = measures(1).drop(columns=["outcome"]).iloc[0].to_dict()
PATH = "/t/globex/models/measures/predict"


def ask(port, *headers, trailers=()):
    """The status of a prediction that is sent in one chunk, header by header as they are given."""
    body = orjson.dumps({"rows": [ROW]})
    head = [f"POST {PATH} HTTP/1.1", "host: x", "connection: close", "transfer-encoding: chunked", *headers]
    raw = "\r\n".join(head).encode() + b"\r\n\r\n%x\r\n%b\r\n0\r\n" % (len(body), body)
    raw += b"".join(trailer.encode() + b"\r\n" for trailer in trailers) + b"\r\n"
    with closing(socket.create_connection(("127.0.0.1", port), timeout=20)) as connection:
        connection.sendall(raw)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    return int(answer.split()[1])


def listening_ports(process):
    return {c.laddr.port for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN}


@pytest.fixture(scope="module")
def ports(platform, globex):
    """The ingress, and each listener of a replica that answers the prediction plane."""
    found = [urlsplit(platform.url).port]
    for process, words in platform.processes():
        if "ServeReplica" not in " ".join(words):
            continue
        found += [port for port in listening_ports(process) if answers(port, globex.key)]
    assert len(found) == 3
    return found


def answers(port, key):
    try:
        return ask(port, f"authorization: Bearer {key}") == 200
    except (OSError, IndexError, ValueError):
        return False  # a listener of Ray's own, which speaks no HTTP


def test_a_key_in_a_trailer_does_not_authorize(ports, globex):
    """Alone, and beside one that is refused."""
    key = f"authorization: Bearer {globex.key}"
    for port in ports:
        assert ask(port, key) == 200
        assert ask(port, trailers=[key]) == 401
        assert ask(port, "trailer: authorization", trailers=[key]) == 401
        assert ask(port, "authorization: Bearer mlk_x", trailers=[key]) == 401


def test_a_trailer_changes_nothing(ports, globex):
    """A deadline in a trailer is none, and a second key is not read."""
    key = f"authorization: Bearer {globex.key}"
    trailers = ["x-request-timeout-ms: x", "authorization: Bearer mlk_x", "content-encoding: br"]
    assert [ask(port, key, trailers=trailers) for port in ports] == [200] * 3


@pytest.mark.parametrize(
    "second", ["authorization: Bearer mlk_x", "authorization: ", "x-request-timeout-ms: 5000", "content-encoding: gzip"]
)
def test_a_header_that_is_there_twice_is_refused(ports, globex, second):
    """In either order, on the way and at its end."""
    key = f"authorization: Bearer {globex.key}"
    first = key if second.startswith("authorization") else second
    for port in ports:
        assert ask(port, first, second, *([] if first == key else [key])) == 400
        assert ask(port, second, first, *([] if first == key else [key])) == 400
