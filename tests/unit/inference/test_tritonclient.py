"""The Open Inference Protocol as its most used client speaks it, over real HTTP."""

from __future__ import annotations

import numpy as np
import pytest

from support.http_server import served
from support.tables import measures

triton = pytest.importorskip("tritonclient.http", reason="tritonclient[http] is in the dev extra")
FRAME = measures(4, seed=9).drop(columns=["outcome"])


@pytest.fixture
def client(cell):
    """Tenant and version are parts of its URL and calls; the key is a header of each call."""
    with served(cell.app) as port, triton.InferenceServerClient(f"127.0.0.1:{port}/t/acme") as connected:
        yield connected


@pytest.fixture
def headers(key):
    return {"authorization": f"Bearer {key}"}


def columns(*, binary, dtype="FP64"):
    """One tensor a column."""
    tensors = []
    for name in FRAME.columns:
        tensor = triton.InferInput(name, [len(FRAME)], dtype)
        values = FRAME[name].to_numpy().astype("float64" if dtype == "FP64" else "float32")
        tensors.append(tensor.set_data_from_numpy(values, binary_data=binary))
    return tensors


def test_what_a_client_asks_before_it_infers(client, headers):
    """Health, metadata, configuration."""
    assert client.is_server_live(headers)
    assert client.is_server_ready(headers)
    assert client.is_model_ready("measures", headers=headers)
    assert not client.is_model_ready("nothing", headers=headers)
    assert "model_configuration" in client.get_server_metadata(headers)["extensions"]
    assert client.get_model_metadata("measures", headers=headers)["versions"] == ["1"]
    for version in ("", "1"):
        config = client.get_model_config("measures", version, headers=headers)
        assert [tensor["name"] for tensor in config["input"]] == list(FRAME.columns)


@pytest.mark.parametrize("dtype", ["FP64", "FP32"])
@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_its_requests_are_answered_as_rows_are(cell, key, client, headers, compression, binary, dtype):
    """In JSON and in binary, compressed and not."""
    expected = cell.predict("measures", FRAME.to_dict("records"), key=key, proba=True).json()
    answer = client.infer(
        "measures",
        columns(binary=binary, dtype=dtype),
        request_id="mine",
        headers=headers,
        request_compression_algorithm=compression,
        response_compression_algorithm=compression,
    )
    assert answer.get_response()["id"] == "mine"
    assert [text.decode() for text in answer.as_numpy("predictions")] == expected["predictions"]
    probabilities = [list(row.values()) for row in expected["probabilities"]]
    assert np.allclose(answer.as_numpy("probabilities"), probabilities)


@pytest.mark.parametrize(
    ("call", "status", "text"),
    [
        (lambda c, h: c.infer("measures", columns(binary=True)), "401", "The request has no API key."),
        (lambda c, h: c.infer("nothing", columns(binary=True), headers=h), "404", "'nothing'"),
        (lambda c, h: c.infer("measures", columns(binary=True)[:1], headers=h), "422", "column 'm1' is missing"),
        (lambda c, h: c.infer("measures", [triton.InferInput("m0", [101], "FP64")], headers=h), "413", "101 rows"),
        (lambda c, h: c.get_model_metadata("nothing", headers=h), "404", "'nothing'"),
        (lambda c, h: c.get_inference_statistics("measures", headers=h), "404", "path does not exist"),
        (lambda c, h: c.load_model("measures", headers=h), "404", "path does not exist"),
    ],
)
def test_an_error_is_what_it_says(client, headers, call, status, text):
    """Status and text of each error that the client raises."""
    with pytest.raises(triton.InferenceServerException) as caught:
        call(client, headers)
    assert caught.value.status() == status
    assert text in str(caught.value)
