"""Whatever a caller sends, the answer is never 500 and always in the one shape."""

from __future__ import annotations

import struct
from urllib.parse import quote

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.inprocess_cell import MEASURE, TICKET

SETTINGS = settings(
    max_examples=150,
    deadline=None,
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
NAMES = st.sampled_from(["rows", "proba", "environment", "version", "key", "strict", "inputs", "outputs", "id"])


def sane(answer):
    """Not a server's failure, and JSON that parses (a bare NaN would not)."""
    assert answer.status_code < 500 or answer.status_code in (503, 504), answer.text
    if answer.headers["content-type"] == "application/json":
        body = orjson.loads(answer.content)
        if answer.status_code >= 400:
            assert body["error"].keys() == {"code", "message", "details", "request_id"}
            assert body["error"]["request_id"] == answer.headers["x-request-id"]
    return answer


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
        ["authorization", "x-request-id", "x-request-timeout-ms", "content-length", "inference-header-content-length"]
    ),
    value=st.binary(max_size=40).filter(lambda value: not {0, 10, 13} & set(value)),
)
def test_any_header(cell, key, path, name, value):
    """Headers of random bytes, as far as a server lets them through."""
    sane(cell.ask("POST", path, key=key, content=b'{"rows": [{}]}', headers={name: value}))


PARTS = st.sampled_from(["t", "acme", "v2", "models", "measures", "versions", "predict", "infer", "health", "ready"])


@SETTINGS
@given(
    parts=st.lists(PARTS | st.text(st.characters(exclude_categories=["Cs"]), max_size=8), max_size=7),
    method=st.sampled_from(["GET", "POST", "PUT"]),
)
def test_any_path(cell, key, parts, method):
    """Paths of random parts, some of them known."""
    sane(cell.ask(method, "/" + "/".join(quote(part, safe="") for part in parts), key=key))
