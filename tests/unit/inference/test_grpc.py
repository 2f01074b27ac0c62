"""Calls of ``inference.GRPCInferenceService`` as the application gets them: the rules of HTTP, in messages."""

from __future__ import annotations

import contextlib
import gzip
import math
import struct
import threading
import time
from urllib.parse import unquote

import numpy as np
import orjson
import pytest
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import given
from hypothesis import strategies as st

from ml_core.domain.api_key import Scope
from ml_core.exceptions import STATUS, InvalidRequestError
from ml_core.inference.edge.grpc import parse_message, read_message
from ml_core.inference.edge.grpc_headers import CODES, trailers_of
from ml_core.inference.edge.grpc_messages import MESSAGES
from ml_core.inference.edge.http import error_response
from ml_core.inference.edge.oip import parse_infer
from ml_core.inference.edge.tensors import DTYPES, to_binary
from support.inprocess_cell import GLOBEX, TICKET
from support.tables import measures

service_pb2 = pytest.importorskip("tritonclient.grpc.service_pb2", reason="needs grpcio, as Ray Serve does")
model_config_pb2 = pytest.importorskip("tritonclient.grpc.model_config_pb2")

SERVICE = "/t/acme/inference.GRPCInferenceService"
FRAME = measures(4, seed=9).drop(columns=["outcome"])
MATRIX = FRAME.to_numpy()


def framed(message, *, flag=0):
    content = message if isinstance(message, bytes) else message.SerializeToString()
    return struct.pack(">BI", flag, len(content)) + content


def call(cell, key, method, message=b"", *, flag=0, headers=None):
    """The name of the answer's message and its fields, or the code and the text of an error."""
    path = f"{SERVICE}/{method}"
    answer = cell.ask("POST", path, key=key, content=framed(message, flag=flag), headers=headers or {})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/grpc"
    assert answer.headers["x-request-id"]
    if "grpc-status" in answer.headers:
        assert answer.content == b""
        return int(answer.headers["grpc-status"]), unquote(answer.headers["grpc-message"])
    assert answer.content[:5] == struct.pack(">BI", 0, len(answer.content) - 5)
    return MESSAGES[f"{method}Response"].FromString(answer.content[5:])


def request(**changes):
    """All columns in one tensor, typed."""
    tensor = {"name": "x", "datatype": "FP64", "shape": [4, 12], "contents": {"fp64_contents": MATRIX.ravel()}}
    return MESSAGES["ModelInferRequest"](**{"model_name": "measures", "inputs": [tensor], **changes})


def expected(cell, key):
    body = cell.predict("measures", FRAME.to_dict("records"), key=key, proba=True).json()
    return body["predictions"], [list(row.values()) for row in body["probabilities"]]


@pytest.mark.parametrize("name", MESSAGES)
def test_each_field_is_one_of_the_public_protocol(name):
    """The same number, type and cardinality as in Triton's messages, which are the public ones with more fields."""
    nested = {"TensorMetadata": "ModelMetadataResponse", "InferOutputTensor": "ModelInferResponse"}
    nested |= dict.fromkeys(("InferInputTensor", "InferRequestedOutputTensor"), "ModelInferRequest")
    home = model_config_pb2 if hasattr(model_config_pb2, name) else service_pb2
    public = getattr(getattr(home, nested[name]) if name in nested else home, name).DESCRIPTOR
    for field in MESSAGES[name].DESCRIPTOR.fields:
        theirs = public.fields_by_name[field.name]
        kind = FieldDescriptor.TYPE_INT32 if theirs.type == FieldDescriptor.TYPE_ENUM else theirs.type
        assert (field.number, field.type, field.is_repeated) == (theirs.number, kind, theirs.is_repeated)


def test_the_messages_are_beside_those_of_a_client():
    """Both in one process, which has one default pool."""
    theirs = service_pb2.ModelInferRequest.FromString(request(id="a").SerializeToString())
    assert MESSAGES["ModelInferRequest"].FromString(theirs.SerializeToString()) == request(id="a")


def test_health_and_server_metadata(cell, key):
    """What a client asks first."""
    assert call(cell, key, "ServerLive").live
    assert call(cell, key, "ServerReady").ready
    assert list(call(cell, key, "ServerMetadata").extensions) == ["binary_tensor_data", "model_configuration"]
    for version in ("", "1"):
        asked = MESSAGES["ModelReadyRequest"](name="measures", version=version)
        assert call(cell, key, "ModelReady", asked).ready


def test_metadata_and_configuration_are_those_of_http(cell, key):
    """Names, datatypes and shapes."""
    asked = MESSAGES["ModelMetadataRequest"](name="tickets")
    over_http = cell.ask("GET", "/t/acme/v2/models/tickets", key=key).json()
    found = call(cell, key, "ModelMetadata", asked)
    assert (found.name, list(found.versions), found.platform) == ("tickets", ["1"], over_http["platform"])
    for part in ("inputs", "outputs"):
        tensors = [(each.name, each.datatype, list(each.shape)) for each in getattr(found, part)]
        assert tensors == [(each["name"], each["datatype"], each["shape"]) for each in over_http[part]]
    configured = cell.ask("GET", "/t/acme/v2/models/tickets/config", key=key).json()
    answer = call(cell, key, "ModelConfig", asked).SerializeToString()
    config = service_pb2.ModelConfigResponse.FromString(answer).config
    types = model_config_pb2.DataType
    assert (config.backend, config.max_batch_size) == ("mlcore", configured["max_batch_size"])
    assert [(each.name, types.Name(each.data_type), list(each.dims), each.optional) for each in config.input] == [
        (each["name"], each["data_type"], each["dims"], each["optional"]) for each in configured["input"]
    ]
    assert [types.Name(each.data_type) for each in config.output] == [e["data_type"] for e in configured["output"]]


def test_typed_contents_are_answered_with_typed_contents(cell, key):
    """As the request is, so is the answer; it is the answer to the rows."""
    predictions, probabilities = expected(cell, key)
    answer = call(cell, key, "ModelInfer", request(id="mine"))
    assert (answer.id, answer.model_name, answer.model_version) == ("mine", "measures", "1")
    assert answer.parameters["rollout"].string_param == "stable"
    first, second = answer.outputs
    assert [text.decode() for text in first.contents.bytes_contents] == predictions
    assert list(second.shape) == [4, 2]
    assert np.allclose(np.reshape(second.contents.fp64_contents, (4, 2)), probabilities)
    assert not answer.raw_output_contents


def test_raw_contents_are_answered_with_raw_contents(cell, key):
    """Only the output that is asked for."""
    tensor = {"name": "x", "datatype": "FP32", "shape": [4, 12]}
    raw = [to_binary(MATRIX, "FP32")]
    asked = request(inputs=[tensor], raw_input_contents=raw, outputs=[{"name": "probabilities"}])
    answer = call(cell, key, "ModelInfer", asked)
    assert [each.name for each in answer.outputs] == ["probabilities"]
    assert not answer.outputs[0].HasField("contents")
    (content,) = answer.raw_output_contents
    assert np.allclose(np.frombuffer(content, "<f8").reshape(4, 2), expected(cell, key)[1])


def test_columns_of_every_kind(cell, key):
    """Text, date and boolean; a column that may be missing is left out."""
    tensors = [
        {
            "name": "subject",
            "datatype": "BYTES",
            "shape": [1],
            "contents": {"bytes_contents": [b"I was charged twice"]},
        },
        {
            "name": "opened",
            "datatype": "BYTES",
            "shape": [1],
            "contents": {"bytes_contents": [TICKET["opened"].encode()]},
        },
        {"name": "is_paying", "datatype": "BOOL", "shape": [1, 1], "contents": {"bool_contents": [True]}},
        {"name": "minutes_open", "datatype": "FP64", "shape": [1], "contents": {"fp64_contents": [math.nan]}},
    ]
    answer = call(cell, key, "ModelInfer", request(model_name="tickets", inputs=tensors))
    rows = [{**TICKET, "subject": "I was charged twice"}]
    assert [text.decode() for text in answer.outputs[0].contents.bytes_contents] == (
        cell.predict("tickets", rows, key=key).json()["predictions"]
    )


@pytest.mark.parametrize(
    ("asked", "code", "text"),
    [
        (b"\xff", 3, "'body' is not a ModelInferRequest"),
        (request(inputs=[]), 3, "'inputs' must be a list of at least one tensor"),
        (request(model_name="nothing"), 5, "'nothing'"),
        (request(model_name=""), 5, "model"),
        (request(model_version="9"), 5, "9"),
        (request(inputs=[{"name": "x", "datatype": "FP64", "shape": [4, 11]}]), 3, "has 0 values instead of the 44"),
        (request(inputs=[{"name": "x", "datatype": "FP65", "shape": [4]}]), 3, "'inputs[0].datatype' is not known"),
        (request(inputs=[{"name": "x", "datatype": "FP16", "shape": [4]}]), 3, "has no typed contents"),
        (request(inputs=[{"name": "x", "datatype": "FP64", "shape": [-1]}]), 3, "'inputs[0].shape'"),
        (request(inputs=[{"name": "x", "datatype": "FP64", "shape": [101, 12]}]), 8, "101 rows; the limit is 100"),
        (request(raw_input_contents=[b"", b""]), 3, "'raw_input_contents' has 2 tensors instead of 1"),
        (request(raw_input_contents=[b"abc"]), 3, "has 3 bytes instead of the 384 of its shape"),
        (request(outputs=[{"name": "logits"}]), 3, "'outputs[0].name' is not an output"),
        (request(parameters={"key": {"int64_param": 3}}), 3, "'parameters.key' must be a string"),
        (
            request(inputs=[{"name": "m0", "datatype": "FP64", "shape": [1], "contents": {"fp64_contents": [1]}}]),
            3,
            "'m1'",
        ),
        (
            request(
                inputs=[{"name": "m0", "datatype": "BYTES", "shape": [1], "contents": {"bytes_contents": [b"\xff"]}}]
            ),
            3,
            "is not UTF-8",
        ),
        (
            request(inputs=[{"name": "m0", "datatype": "INT8", "shape": [1], "contents": {"int_contents": [300]}}]),
            3,
            "out of the range of INT8",
        ),
    ],
)
def test_what_is_wrong_has_its_code_and_says_what_to_do(cell, key, asked, code, text):
    """INVALID_ARGUMENT, NOT_FOUND, RESOURCE_EXHAUSTED."""
    found, message = call(cell, key, "ModelInfer", asked)
    assert (found, text in message) == (code, True), message


def test_who_may_not_is_refused(cell, key):
    """No key, another tenant's key, a scope that is missing; a method that there is not."""
    assert call(cell, None, "ServerLive")[0] == 16
    assert call(cell, "mlk_0000000000000000_" + "a" * 32, "ServerLive")[0] == 16
    assert call(cell, cell.key(GLOBEX, Scope.PREDICT), "ModelInfer", request())[0] == 5
    assert call(cell, cell.key("acme", Scope.READ), "ModelInfer", request())[0] == 7
    assert call(cell, key, "RepositoryIndex") == (12, "The service does not have the method.")


@pytest.mark.parametrize("timeout", ["5S", "100m", "99999999H", "1u"])
def test_a_deadline_of_grpc_is_understood(cell, key, timeout):
    """In each unit, and bounded; a microsecond is the least that a request may have."""
    found = call(cell, key, "ServerLive", headers={"grpc-timeout": timeout})
    assert found == MESSAGES["ServerLiveResponse"](live=True) or found[0] == 4


@pytest.mark.parametrize("timeout", ["", "5", "S", "-5S", "5s", "123456789S"])
def test_no_deadline_of_grpc(cell, key, timeout):
    """It is refused rather than ignored."""
    assert call(cell, key, "ServerLive", headers={"grpc-timeout": timeout})[0] == 3


def test_compressed_messages(cell, key):
    """In the encoding that the call names, within the limit of bytes."""
    content = request().SerializeToString()
    answer = call(cell, key, "ModelInfer", gzip.compress(content), flag=1, headers={"grpc-encoding": "gzip"})
    assert answer.model_name == "measures"
    bomb = gzip.compress(bytes(65 * 1024))
    assert call(cell, key, "ModelInfer", bomb, flag=1, headers={"grpc-encoding": "gzip"})[0] == 8
    assert call(cell, key, "ModelInfer", content, flag=1, headers={"grpc-encoding": "snappy"})[0] == 12
    assert call(cell, key, "ModelInfer", content, flag=1)[0] == 12
    assert call(cell, key, "ModelInfer", content, flag=2)[0] == 3


@given(st.binary(max_size=50))
def test_no_bytes_are_more_than_refused(content):
    """A message, or the error that names the body."""
    with contextlib.suppress(InvalidRequestError):
        read_message(content, b"gzip", "ModelInferRequest", 100)


TENSORS = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["a", "b", ""]),
        "datatype": st.sampled_from(["FP64", "BOOL", "BYTES", "INT8", "FP16", "", "x"]),
        "shape": st.lists(st.integers(-1, 3), max_size=3),
        "contents": st.fixed_dictionaries(
            {},
            optional={
                "fp64_contents": st.lists(st.floats(), max_size=4),
                "bool_contents": st.lists(st.booleans(), max_size=4),
                "bytes_contents": st.lists(st.binary(max_size=2), max_size=4),
                "int_contents": st.lists(st.integers(-200, 200), max_size=4),
            },
        ),
    }
)


@given(st.lists(TENSORS, max_size=3), st.lists(st.binary(max_size=9), max_size=3))
def test_no_message_is_more_than_refused(inputs, raw):
    """Tensors that are read, or an error that says what is wrong."""
    message = MESSAGES["ModelInferRequest"](inputs=inputs, raw_input_contents=raw)
    with contextlib.suppress(InvalidRequestError):
        parsed = parse_message(message, 100, 1)
        assert all(len(each.as_list()) == math.prod(each.shape) for each in parsed.tensors)


@pytest.mark.parametrize("part", [b"\x2a\x00", b"\x32\x00"])
def test_a_call_of_many_empty_parts_costs_little(part):
    """Inputs or outputs of two bytes each: refused before any becomes an object, of which each takes a kilobyte."""
    message = read_message(framed(part * 300_000), b"identity", "ModelInferRequest", 10**6)
    before = time.thread_time()
    with pytest.raises(InvalidRequestError, match="more than 10,000 tensors"):
        parse_message(message, 100, 1)
    assert time.thread_time() - before < 0.02


@pytest.mark.parametrize(("count", "is_on_loop"), [(1_000, True), (1_001, False)])
def test_many_tensors_are_read_on_a_thread(cell, key, monkeypatch, count, is_on_loop):
    """Though they are few bytes."""
    seen = []

    def parse(*arguments):
        seen.append(threading.current_thread().name.startswith("mlcore-predict"))
        return parse_message(*arguments)

    monkeypatch.setattr("ml_core.inference.edge.grpc.parse_message", parse)
    code, text = call(cell, key, "ModelInfer", request(inputs=[{"name": f"{n}"} for n in range(count)]))
    assert (code, "'inputs[0].datatype'" in text, seen) == (3, True, [not is_on_loop])


KINDS = {
    "BOOL": ("bool_contents", st.booleans()),
    "INT8": ("int_contents", st.integers(-128, 127)),
    "UINT16": ("uint_contents", st.integers(0, 2**16 - 1)),
    "INT64": ("int64_contents", st.integers(-(2**63), 2**63 - 1)),
    "UINT64": ("uint64_contents", st.integers(0, 2**64 - 1)),
    "FP32": ("fp32_contents", st.floats(width=32, allow_nan=False, allow_infinity=False)),
    "FP64": ("fp64_contents", st.floats(allow_nan=False, allow_infinity=False)),
    "BYTES": ("bytes_contents", st.text(st.characters(exclude_categories=["Cs"]), max_size=5)),
}


@given(st.data())
def test_both_encodings_mean_what_json_means(data):
    """The same tensor in JSON, typed and raw has the same values."""
    datatype = data.draw(st.sampled_from(list(KINDS)))
    field, values = KINDS[datatype]
    drawn = data.draw(st.lists(values, min_size=1, max_size=4))
    item = {"name": "c", "datatype": datatype, "shape": [len(drawn)]}
    body = orjson.dumps({"inputs": [{**item, "data": drawn}], "parameters": {"key": "k"}})
    encoded = [text.encode() for text in drawn] if datatype == "BYTES" else drawn
    array = np.array(drawn, DTYPES.get(datatype, object))
    message = MESSAGES["ModelInferRequest"]
    parameters = {"key": {"string_param": "k"}}
    parsed = [
        parse_infer(body, None, 100),
        parse_message(message(inputs=[{**item, "contents": {field: encoded}}], parameters=parameters), 100, 1),
        parse_message(
            message(inputs=[item], raw_input_contents=[to_binary(array, datatype)], parameters=parameters), 100, 1
        ),
    ]
    assert [each.tensors[0].as_list() for each in parsed] == [parsed[0].tensors[0].as_list()] * 3
    assert [(each.key, each.rows, each.outputs) for each in parsed] == [("k", len(drawn), {})] * 3


def test_each_status_has_a_code():
    """So no error of the table becomes another error on its way."""
    assert {*STATUS.values(), 405} <= CODES.keys()


@pytest.mark.parametrize("text", ["ä\n%", "a" * 5000, "😀" * 5000, "\ud800", "'x' is \"y\""])
def test_a_text_is_a_trailer(text):
    """Printable ASCII, of bounded length, and the text when it is decoded."""
    trailer = trailers_of(400, text)[b"grpc-message"]
    assert trailer.isascii()
    assert trailer.decode().isprintable()
    assert len(trailer) < 8000
    assert unquote(trailer.decode()) == text[:600].encode(errors="replace").decode()


def test_no_internal_text_is_sent():
    """The error of a program says nothing, as over HTTP."""
    trailers = error_response(ValueError("secret"), f"{SERVICE}/ModelInfer", "id").trailers
    assert trailers[b"grpc-status"] == b"13"
    assert b"secret" not in trailers[b"grpc-message"]
