"""The Open Inference Protocol v2 over ASGI: metadata, JSON tensors, one matrix, binary tensors."""

from __future__ import annotations

import struct

import numpy as np
import orjson
import pytest

from support.inprocess_cell import MEASURE, TICKET, renamed, servable
from support.tables import measures

BASE = "/t/acme/v2"
INFER = f"{BASE}/models/measures/infer"
FRAME = measures(4, seed=9).drop(columns=["outcome"])


def expected(cell, key):
    body = cell.predict("measures", FRAME.to_dict("records"), key=key, proba=True).json()
    return body["predictions"], [list(row.values()) for row in body["probabilities"]]


def infer(cell, key, inputs, path=INFER, **body):
    return cell.ask("POST", path, key=key, json={"inputs": inputs, **body})


def by_column(**changes):
    return [
        {"name": name, "shape": [4], "datatype": "FP64", "data": FRAME[name].tolist(), **changes}
        for name in FRAME.columns
    ]


def matrix(**changes):
    tensor = {"name": "x", "shape": [4, 12], "datatype": "FP64", "data": FRAME.to_numpy().ravel().tolist()}
    return [{**tensor, **changes}]


def message(answer):
    """The text of an error, which is all that the protocol has."""
    (text,) = answer.json().values()
    assert answer.json() == {"error": text}
    return text


def outputs(answer):
    assert answer.status_code == 200, answer.text
    return {output["name"]: output for output in answer.json()["outputs"]}


def test_server_metadata_and_health(cell, key):
    """What a client asks first."""
    assert cell.ask("GET", BASE, key=key).json()["extensions"] == ["binary_tensor_data", "model_configuration"]
    assert cell.ask("GET", f"{BASE}/health/live", key=key).json() == {"live": True}
    assert cell.ask("GET", f"{BASE}/health/ready", key=key).json() == {"ready": True}


def test_model_metadata_is_the_signature(cell, key):
    """Inputs with datatype and kind, outputs with their shapes."""
    answer = cell.ask("GET", f"{BASE}/models/tickets", key=key).json()
    inputs = {tensor["name"]: (tensor["datatype"], tensor["parameters"]["kind"]) for tensor in answer["inputs"]}
    assert inputs["subject"] == ("BYTES", "text")
    assert inputs["opened"] == ("BYTES", "datetime")
    assert inputs["is_paying"] == ("BOOL", "boolean")
    assert inputs["minutes_open"] == ("FP64", "number")
    assert answer["versions"] == ["1"]
    assert [(o["name"], o["datatype"], o["shape"]) for o in answer["outputs"]] == [
        ("predictions", "BYTES", [-1]),
        ("probabilities", "FP64", [-1, 3]),
    ]
    assert answer["outputs"][1]["parameters"]["classes"] == ["account", "billing", "bug"]


def test_model_configuration_agrees_with_the_metadata(cell, key):
    """Rows are the batch; the other dimensions, types and names are the same; what may be missing is optional."""
    metadata = cell.ask("GET", f"{BASE}/models/tickets", key=key).json()
    config = cell.ask("GET", f"{BASE}/models/tickets/config", key=key).json()
    assert (config["name"], config["backend"], config["max_batch_size"]) == ("tickets", "mlcore", 100)
    for part, tensors in (("input", metadata["inputs"]), ("output", metadata["outputs"])):
        assert [(t["name"], [-1, *t["dims"]]) for t in config[part]] == [(t["name"], t["shape"]) for t in tensors]
        types = [t["data_type"].removeprefix("TYPE_").replace("STRING", "BYTES") for t in config[part]]
        assert types == [t["datatype"] for t in tensors]
    optional = {t["name"]: t["optional"] for t in config["input"]}
    assert optional == {t["name"]: t["parameters"]["nullable"] for t in metadata["inputs"]}


def test_readiness_loads_the_model(cell, key):
    """And is 404 for one that is not there."""
    assert cell.ask("GET", f"{BASE}/models/measures/ready", key=key).json()["ready"] is True
    assert cell.ask("GET", f"{BASE}/models/nothing/ready", key=key).status_code == 404


@pytest.mark.parametrize(
    "inputs",
    [
        by_column(),
        by_column(shape=[4, 1]),
        matrix(),
        matrix(data=FRAME.to_numpy().tolist()),
    ],
)
def test_columns_and_matrix_give_what_rows_give(cell, key, inputs):
    """Flat or nested, one tensor a column or one for all."""
    predictions, probabilities = expected(cell, key)
    found = outputs(infer(cell, key, inputs, id="mine"))
    assert found["predictions"]["data"] == predictions
    assert found["predictions"]["datatype"] == "BYTES"
    assert found["probabilities"]["shape"] == [4, 2]
    assert np.allclose(np.reshape(found["probabilities"]["data"], (4, 2)), probabilities)


def test_raw_columns_of_every_kind(cell, key):
    """Strings, booleans, numbers and null in tensors are what they are in rows."""
    tensors = [
        {"name": "subject", "shape": [1], "datatype": "BYTES", "data": [TICKET["subject"]]},
        {"name": "opened", "shape": [1], "datatype": "BYTES", "data": [TICKET["opened"]]},
        {"name": "is_paying", "shape": [1], "datatype": "BOOL", "data": [True]},
        {"name": "minutes_open", "shape": [1], "datatype": "FP64", "data": [None]},
    ]
    path = f"{BASE}/models/tickets/infer"
    found = outputs(infer(cell, key, tensors, path, outputs=[{"name": "predictions"}]))
    assert found["predictions"]["data"] == ["billing"]
    assert "probabilities" not in found


def test_a_version_in_the_path(cell, key, fitted_measures):
    """Metadata, readiness and infer of a version that no environment names."""
    version = renamed(servable(cell.store, fitted_measures), "2")
    cell.registered[version.ref] = version
    path = f"{BASE}/models/measures/versions/2"
    assert cell.ask("GET", path, key=key).json()["versions"] == ["2"]
    assert cell.ask("GET", f"{path}/config", key=key).json()["name"] == "measures"
    assert cell.ask("GET", f"{path}/ready", key=key).status_code == 200
    assert infer(cell, key, matrix(), f"{path}/infer").json()["model_version"] == "2"
    assert cell.ask("GET", f"{BASE}/models/measures/versions/a%20b", key=key).status_code == 404


def binary_request(cell, key, header, *tensors, length=None):
    encoded = orjson.dumps(header)
    headers = {"inference-header-content-length": str(len(encoded) if length is None else length)}
    return cell.ask("POST", INFER, key=key, content=b"".join([encoded, *tensors]), headers=headers)


def read_binary(answer):
    """Output name → its bytes."""
    length = int(answer.headers["inference-header-content-length"])
    header, rest = orjson.loads(answer.content[:length]), answer.content[length:]
    found = {}
    for output in header["outputs"]:
        size = output["parameters"]["binary_data_size"]
        found[output["name"]], rest = rest[:size], rest[size:]
    assert rest == b""
    return found


@pytest.mark.parametrize("dtype", ["<f8", "<f4"])
def test_binary_tensors_in_and_out(cell, key, dtype):
    """The numbers as they lie in memory; strings with their lengths."""
    predictions, probabilities = expected(cell, key)
    data = FRAME.to_numpy().astype(dtype).tobytes()
    header = {
        "inputs": [
            {
                "name": "x",
                "shape": [4, 12],
                "datatype": "FP64" if dtype == "<f8" else "FP32",
                "parameters": {"binary_data_size": len(data)},
            }
        ],
        "parameters": {"binary_data_output": True},
    }
    answer = binary_request(cell, key, header, data)
    assert answer.status_code == 200, answer.text
    found = read_binary(answer)
    assert found["predictions"] == b"".join(struct.pack("<I", len(p)) + p.encode() for p in predictions)
    assert np.allclose(np.frombuffer(found["probabilities"], "<f8").reshape(4, 2), probabilities, atol=1e-3)


def test_one_output_in_binary_and_one_in_json(cell, key):
    """As each asks for."""
    wanted = [{"name": "probabilities", "parameters": {"binary_data": True}}, {"name": "predictions"}]
    answer = infer(cell, key, matrix(), outputs=wanted)
    length = int(answer.headers["inference-header-content-length"])
    header = orjson.loads(answer.content[:length])
    assert len(answer.content) - length == 4 * 2 * 8
    assert ["data" in output for output in header["outputs"]] == [True, False]


def test_binary_strings(cell, key):
    """A BYTES column in binary reaches the model as its text."""
    text = TICKET["subject"].encode()
    data = struct.pack("<I", len(text)) + text
    header = {
        "inputs": [
            {"name": "subject", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(data)}},
            {"name": "opened", "shape": [1], "datatype": "BYTES", "data": ["2026-02-01"]},
            {"name": "is_paying", "shape": [1], "datatype": "BOOL", "parameters": {"binary_data_size": 1}},
        ]
    }
    encoded = orjson.dumps(header)
    answer = cell.ask(
        "POST",
        f"{BASE}/models/tickets/infer",
        key=key,
        content=encoded + data + b"\x01",
        headers={"inference-header-content-length": str(len(encoded))},
    )
    assert outputs(answer)["predictions"]["data"] == ["billing"]


@pytest.mark.parametrize(
    ("inputs", "field"),
    [
        (None, "inputs"),
        ([], "inputs"),
        ([7], "inputs[0]"),
        (matrix(name=7), "inputs[0].name"),
        (matrix(datatype="FP128"), "inputs[0].datatype"),
        (matrix(datatype=["FP64"]), "inputs[0].datatype"),
        (matrix(shape=[4]), "inputs[0].data"),
        (matrix(shape=[4, 11], data=[0.0] * 44), "inputs[0].shape"),
        (matrix(shape=[0, 12], data=[]), "inputs[0].shape"),
        (matrix(shape="4"), "inputs[0].shape"),
        (matrix(shape=[4, -12]), "inputs[0].shape"),
        (matrix(shape=[4, True]), "inputs[0].shape"),
        (matrix(data="x"), "inputs[0].data"),
        (matrix(data=[[1.0], 2.0]), "inputs[0].data"),
        (matrix(data=["x"] * 48), "inputs[0].data[0]"),
        (matrix(datatype="BYTES", data=["x"] * 48), "inputs[0].datatype"),
        (matrix(datatype="UINT8", data=[1] * 47 + [256]), "inputs[0].data[47]"),
        (matrix(datatype="INT64", data=[1] * 47 + [1.5]), "inputs[0].data[47]"),
        (matrix(parameters=[]), "inputs[0].parameters"),
        (matrix(parameters={"binary_data_size": 8}), "inputs[0].parameters.binary_data_size"),
        (by_column()[:1] * 2, "inputs[1].name"),
        ([*by_column()[:1], {**by_column()[1], "shape": [3], "data": [1.0] * 3}], "inputs[1].shape"),
        ([*by_column()[:1], {**by_column()[1], "name": "colour"}], "inputs[1].name"),
        ([*by_column()[:1], {**by_column()[1], "shape": [4, 2], "data": [1.0] * 8}], "inputs[1].shape"),
    ],
)
def test_a_malformed_tensor_names_its_field(cell, key, inputs, field):
    """400 with the path of what is wrong."""
    answer = infer(cell, key, inputs)
    assert answer.status_code == 400
    assert message(answer).startswith(f"Field '{field}' ")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"id": 7}, "id"),
        ({"parameters": 7}, "parameters"),
        ({"parameters": {"binary_data_output": 1}}, "parameters.binary_data_output"),
        ({"outputs": {}}, "outputs"),
        ({"outputs": [{"name": "secrets"}]}, "outputs[0].name"),
        ({"outputs": [{"name": "predictions", "parameters": {"binary_data": 1}}]}, "outputs[0].parameters.binary_data"),
    ],
)
def test_malformed_options_name_their_field(cell, key, body, field):
    """400 with the path of what is wrong."""
    answer = infer(cell, key, matrix(), **body)
    assert answer.status_code == 400
    assert message(answer).startswith(f"Field '{field}' ")


def test_malformed_binary_parts_are_refused(cell, key):
    """Too short, too long, a header beyond the body, a header that is no number."""
    tensor = {"name": "x", "shape": [4, 12], "datatype": "FP64", "parameters": {"binary_data_size": 384}}
    short = {**tensor, "parameters": {"binary_data_size": 380}}
    data = FRAME.to_numpy().tobytes()
    assert binary_request(cell, key, {"inputs": [tensor]}, data).status_code == 200
    for answer in (
        binary_request(cell, key, {"inputs": [tensor]}, data[:-1]),
        binary_request(cell, key, {"inputs": [tensor]}, data + b"x"),
        binary_request(cell, key, {"inputs": [short]}, data[:380]),
        binary_request(cell, key, {"inputs": [tensor]}, data, length=10**9),
        binary_request(cell, key, {"inputs": [tensor]}, data, length="x"),
    ):
        assert answer.status_code == 400
        assert message(answer).startswith(("Field ", "The header inference-header-content-length "))


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_number_that_is_none_is_refused_with_its_row(cell, key, value):
    """422: JSON can't carry it, a binary tensor can."""
    data = FRAME.to_numpy().copy()
    data[2, 3] = value
    tensor = {"name": "x", "shape": [4, 12], "datatype": "FP64", "parameters": {"binary_data_size": data.nbytes}}
    answer = binary_request(cell, key, {"inputs": [tensor]}, data.tobytes())
    assert answer.status_code == 422
    assert message(answer).startswith("Row 2: column 'm3' is ")


def test_a_missing_column_is_null(cell, key):
    """Which this model does not take: 422, not a guess."""
    answer = infer(cell, key, by_column()[:-1])
    assert answer.status_code == 422
    assert message(answer).startswith("Row 0: column 'm11' is missing")


def test_too_many_rows(cell, key):
    """413 before the data is looked at."""
    assert infer(cell, key, matrix(shape=[101, 12])).status_code == 413


def test_rows_and_tensors_are_the_same_model(cell, key):
    """One row, both ways."""
    tensors = [{"name": name, "shape": [1], "datatype": "FP32", "data": [value]} for name, value in MEASURE.items()]
    by_rows = cell.predict("measures", [MEASURE], key=key).json()["predictions"]
    assert outputs(infer(cell, key, tensors))["predictions"]["data"] == by_rows


@pytest.mark.parametrize(("seconds", "status"), [(-62135596800.0, 200), (253402300799.0, 200), (-62135596801.0, 422)])
@pytest.mark.parametrize("as_binary", [False, True])
def test_a_datetime_in_seconds_is_of_the_years_1_to_9999(cell, key, seconds, status, as_binary):
    """As one that is sent as a string is."""
    answer = infer_opened(cell, key, seconds, as_binary)
    assert answer.status_code == status, answer.text


@pytest.mark.parametrize("seconds", [253402300800.0, 1e300, -1e300])
def test_a_datetime_in_seconds_beyond_these_years_names_its_column(cell, key, seconds):
    """Instead of some other date."""
    answer = infer_opened(cell, key, seconds, False)
    assert answer.status_code == 422
    assert message(answer).startswith("Row 0: column 'opened' is ")


def infer_opened(cell, key, seconds, as_binary):
    tensors = [
        {"name": "subject", "shape": [1], "datatype": "BYTES", "data": [TICKET["subject"]]},
        {"name": "is_paying", "shape": [1], "datatype": "BOOL", "data": [True]},
    ]
    opened = {"name": "opened", "shape": [1], "datatype": "FP64"}
    if not as_binary:
        return infer(cell, key, [*tensors, {**opened, "data": [seconds]}], f"{BASE}/models/tickets/infer")
    head = orjson.dumps({"inputs": [*tensors, {**opened, "parameters": {"binary_data_size": 8}}]})
    return cell.ask(
        "POST",
        f"{BASE}/models/tickets/infer",
        key=key,
        content=head + np.float64(seconds).tobytes(),
        headers={"inference-header-content-length": str(len(head))},
    )
