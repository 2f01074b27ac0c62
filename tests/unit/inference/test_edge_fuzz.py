"""Whatever a caller sends, the answer is never 500 and always in the one shape."""

from __future__ import annotations

import contextlib
import gzip
import re
import socket
import struct
import zlib
from contextlib import closing
from urllib.parse import quote

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml_core.domain.api_key import Scope
from ml_core.inference.edge import app as application
from support.http_server import served
from support.inprocess_cell import ACME, MEASURE, TICKET

SETTINGS = settings(
    max_examples=150,
    derandomize=True,  # the same examples in each run; raise max_examples to look for more
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

# What JSON can carry; orjson refuses lone surrogates, which no client library writes as UTF-8 either.
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
    | st.sampled_from(["2026-01-01", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "1e400", "NaN", "\x00"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(
    ["rows", "proba", "environment", "version", "key", "strict", "scores", "interval", "inputs", "outputs", "id"]
)


def sane(answer):
    """Not a server's failure, and JSON that parses (a bare NaN would not)."""
    assert answer.status_code < 500 or answer.status_code in (503, 504), answer.text
    if answer.headers["content-type"] == "application/json":
        body = orjson.loads(answer.content)
        if answer.status_code >= 400 and answer.request.url.path != "/readyz":
            has_one_shape(answer, body)
    return answer


def has_one_shape(answer, body):
    """An object with a code; a text where the Open Inference Protocol is spoken."""
    assert body.keys() == {"error"}
    parts = answer.request.url.path.split("/")[1:]
    if parts[0] == "v2" or (parts[0] == "t" and parts[2:3] == ["v2"]):
        assert isinstance(body["error"], str)
        assert body["error"]
    else:
        assert body["error"].keys() == {"code", "message", "details", "request_id"}
        assert body["error"]["request_id"] == answer.headers["x-request-id"]


@pytest.fixture(params=["predict", "infer"])
def path(request):
    return "/t/acme/models/tickets/predict" if request.param == "predict" else "/t/acme/v2/models/tickets/infer"


@SETTINGS
@given(content=st.binary(max_size=64))
def test_any_bytes(cell, key, path, content):
    """Bodies of random bytes."""
    sane(cell.ask("POST", path, key=key, content=content))


@SETTINGS
@given(body=st.dictionaries(NAMES, VALUES, max_size=4) | VALUES)
def test_any_json(cell, key, path, body):
    """Bodies of random JSON under the known names."""
    sane(cell.ask("POST", path, key=key, content=orjson.dumps(body)))


@SETTINGS
@given(
    row=st.dictionaries(st.sampled_from([*TICKET, "minutes_open", "priority", "other"]), VALUES, max_size=6),
    proba=st.booleans(),
)
def test_any_values_in_a_row(cell, key, row, proba):
    """Rows of random values of every kind, on top of one that fits."""
    answer = sane(cell.predict("tickets", [{**TICKET, **row}], key=key, proba=proba))
    assert answer.status_code in (200, 422)


# A forest computes in single precision: it refuses what overflows there, after NumPy warned.
@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")
@SETTINGS
@given(values=st.dictionaries(st.sampled_from(list(MEASURE)), st.floats(allow_nan=False, allow_infinity=False)))
def test_any_numbers(cell, key, values):
    """Numbers up to the edge of a float are answered, or refused as rows that the model can't answer."""
    assert sane(cell.predict("measures", [{**MEASURE, **values}], key=key)).status_code in (200, 422)


TENSORS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["subject", "opened", "x"]) | VALUES,
        "shape": st.lists(st.integers(-1, 3) | VALUES, max_size=3) | VALUES,
        "datatype": st.sampled_from(["FP64", "BYTES", "BOOL", "INT8", "UINT64"]) | VALUES,
        "data": st.lists(VALUES, max_size=4),
        "parameters": st.fixed_dictionaries({"binary_data_size": st.integers(-1, 40) | VALUES}) | VALUES,
    },
)


@SETTINGS
@given(
    inputs=st.lists(TENSORS, max_size=3),
    rest=st.binary(max_size=40) | st.integers(0, 2**32 - 1).map(lambda n: struct.pack("<I", n)),
    cut=st.integers(-5, 5),
)
def test_any_tensors_with_any_binary_part(cell, key, inputs, rest, cut):
    """Tensors of random fields, random bytes after them, and a header length that may be off."""
    encoded = orjson.dumps({"inputs": inputs})
    headers = {"inference-header-content-length": str(len(encoded) + cut)}
    sane(cell.ask("POST", "/t/acme/v2/models/tickets/infer", key=key, content=encoded + rest, headers=headers))


@SETTINGS
@given(
    name=st.sampled_from(
        [
            "authorization",
            "content-encoding",
            "content-length",
            "inference-header-content-length",
            "x-request-id",
            "x-request-timeout-ms",
        ]
    ),
    value=st.sampled_from([b"gzip", b"br", b"1", b"0", b"-1"])
    | st.binary(max_size=40).filter(lambda value: not {0, 10, 13} & set(value)),
)
def test_any_header(cell, key, path, name, value):
    """Headers of random bytes, as far as a server lets them through."""
    sane(cell.ask("POST", path, key=key, content=b'{"rows": [{}]}', headers={name: value}))


@SETTINGS
@given(
    pack=st.sampled_from([gzip.compress, zlib.compress, bytes]),
    encoding=st.sampled_from(["gzip", "x-gzip", "deflate", "GZIP", "identity", "br", "gzip, gzip", ""]),
    body=st.dictionaries(NAMES, VALUES, max_size=3).map(orjson.dumps) | st.binary(max_size=30),
    cut=st.integers(0, 30),
    rest=st.binary(max_size=4),
)
def test_any_encoding(cell, key, path, pack, encoding, body, cut, rest):
    """Compressed bodies that are whole, cut off, followed by others, or of another encoding than they say."""
    packed = pack(body)
    content = packed[: len(packed) - cut if cut < 20 else None] + rest
    answer = sane(cell.ask("POST", path, key=key, content=content, headers={"content-encoding": encoding}))
    if encoding in ("br", "gzip, gzip", ""):
        assert answer.status_code == 415


def nested(depth, kind):
    """JSON text of a value in so many lists or objects."""
    return b"[" * depth + b"]" * depth if kind is list else b'{"a":' * depth + b"1" + b"}" * depth


BODIES = [
    b"%s",
    b'{"rows": %s}',
    b'{"rows": [%s]}',
    *(b'{"rows": [{"%s": %%s}]}' % name.encode() for name in [*TICKET, "priority", "minutes_open", "other"]),
    *(b'{"rows": [{}], "%s": %%s}' % name
      for name in (b"proba", b"environment", b"version", b"key", b"strict", b"scores", b"interval", b"x")),
    *(b'{"inputs": [{"name": "subject", "shape": [1], "datatype": "BYTES", "data": ["x"], "%s": %%s}]}' % name
      for name in (b"name", b"shape", b"datatype", b"data", b"parameters")),
    *(b'{"inputs": [{"name": "subject", "shape": [1], "datatype": "BYTES", "data": ["x"]}], "%s": %%s}' % name
      for name in (b"id", b"parameters", b"outputs")),
    *(b'{"request_id": "a", "label": 1, "%s": %%s}' % name for name in (b"request_id", b"row", b"label", b"y")),
]  # fmt: skip


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("kind", [list, dict])
def test_values_nested_to_any_depth(cell, body, kind):
    """Wherever a value may be, one that is nested too deeply to be shown whole is refused like any other."""
    key = cell.key(ACME, Scope.ADMIN)
    for route in (
        "models/tickets/predict",
        "models/tickets/explain",
        "models/tickets/feedback",
        "v2/models/tickets/infer",
    ):
        for depth in (500, 1000, 5000):
            answer = cell.ask("POST", f"/t/acme/{route}", key=key, content=body % nested(depth, kind))
            assert sane(answer).status_code in (200, 400, 404, 422, 503)
            assert len(answer.content) < 2_000


PARTS = st.sampled_from(["t", "acme", "v2", "models", "measures", "versions", "predict", "explain", "infer", "health"])


@SETTINGS
@given(
    parts=st.lists(PARTS | st.text(st.characters(exclude_categories=["Cs"]), max_size=8), max_size=7),
    method=st.sampled_from(["GET", "POST", "PUT"]),
)
def test_any_path(cell, key, parts, method):
    """Paths of random parts, some of them known."""
    sane(cell.ask(method, "/" + "/".join(quote(part, safe="") for part in parts), key=key))


LINES = [b"POST /t/acme/models/tickets/predict HTTP/1.1", b"GET /t/acme/v2/models/tickets HTTP/1.1", b"GET / HTTP/1.0"]
FIELDS = [
    b"host: x",
    b"authorization: Bearer KEY",
    b"authorization: Bearer mlk_x",
    b"content-length: 15",
    b"content-encoding: gzip",
    b"transfer-encoding: chunked",
    b"connection: upgrade\r\nupgrade: websocket",
    b"expect: 100-continue",
    b"x-request-timeout-ms: 50",
]
CONTENTS = [
    b"",
    b'{"rows": [{}]}\n',
    b'f\r\n{"rows": [{}]}\n\r\n0\r\n\r\n',
    b'f\r\n{"rows": [{}]}\n\r\n0\r\nhost: y\r\n\r\n',
]
REQUESTS = st.builds(
    lambda line, fields, content: b"\r\n".join([line, *fields, b"", content]),
    st.sampled_from(LINES),
    st.lists(st.sampled_from(FIELDS), max_size=4),
    st.sampled_from(CONTENTS),
)
# Ends whatever came before it: headers that are not complete, a chunk, or the connection itself.
LAST = b"\r\n\r\nGET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


@pytest.fixture
def port(cell, monkeypatch):
    monkeypatch.setattr(application, "BODY_WITHIN_S", 0.2)
    with served(cell.app) as its_port:
        yield its_port


@SETTINGS
@given(pieces=st.lists(st.one_of(REQUESTS, REQUESTS, st.binary(max_size=12)), max_size=3))
def test_any_bytes_on_the_wire(port, key, pieces):
    """Whatever arrives instead of HTTP or as some of it: each answer is in the one shape, and the connection ends."""
    with closing(socket.create_connection(("127.0.0.1", port), timeout=10)) as connection:
        connection.sendall(b"".join([*pieces, LAST]).replace(b"KEY", key.encode()))
        raw = b""
        with contextlib.suppress(ConnectionResetError):  # it closed with bytes on their way
            while chunk := connection.recv(65536):
                raw += chunk
    for answer in re.split(rb"(?=HTTP/1\.1 \d)", raw.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b""))[1:]:
        head, _, body = answer.partition(b"\r\n\r\n")
        status = int(head.split()[1])
        assert status < 500 or status in (503, 504), answer
        assert b"x-request-id: " in head.lower()
        if status >= 400 and body:
            error = orjson.loads(body)["error"]
            assert isinstance(error, str) or error.keys() == {"code", "message", "details", "request_id"}
