"""Predictions over HTTP, from the ingress to the replicas, with real tenants and models."""

import gzip
import socket
import zlib
from contextlib import closing
from decimal import Decimal
from http.client import HTTPResponse
from urllib.parse import urlsplit

import httpx
import numpy as np
import orjson
import pandas as pd
import pyarrow as pa
import pytest

from ml_core.client import MLClient
from ml_core.domain.api_key import Scope
from ml_core.exceptions import SignatureMismatchError
from ml_core.system import MLSystem
from support.tables import measures, split_target, tickets


def ticket_rows(count):
    frame = tickets(count, seed=7).drop(columns=["category"])
    return [{k: (None if v is None or v != v else v) for k, v in row.items()} for row in frame.to_dict("records")]


def test_a_raw_row_gets_the_right_answer(acme):
    """Text, dates, categories and missing values are sent as they are."""
    answer = acme.predict(
        "tickets", [{"subject": "I was charged twice since noon", "is_paying": True, "opened": "2026-02-01"}]
    )
    assert answer.status_code == 200
    body = answer.json()
    assert body["predictions"] == ["billing"]
    assert (body["model"], body["rollout"]) == ("tickets", "stable")
    assert body["request_id"] == answer.headers["x-request-id"]


def test_answers_are_those_of_the_library(acme, platform):
    """The same rows in process and over HTTP get equal labels and probabilities."""
    rows = ticket_rows(40)
    body = acme.predict("tickets", rows, proba=True).json()
    system = MLSystem(platform.db, tenant_id=acme.tenant_id)
    assert body["predictions"] == list(system.predict("tickets", rows))
    mine = system.predict_proba("tickets", rows)
    for theirs, ours in zip(body["probabilities"], mine, strict=True):
        assert theirs.keys() == ours.keys()
        assert np.allclose([theirs[k] for k in ours], list(ours.values()), atol=1e-9)
        assert sum(theirs.values()) == pytest.approx(1.0)


def test_the_client_sends_tables_as_the_library_reads_them(acme, platform):
    """A frame of timestamps, decimals and missing values, and the same from another library."""
    frame = tickets(40, seed=7).drop(columns=["category"])
    frame["opened"] = pd.to_datetime(frame["opened"])
    frame["minutes_open"] = [None if minutes != minutes else Decimal(int(minutes)) for minutes in frame["minutes_open"]]
    expected = list(MLSystem(platform.db, tenant_id=acme.tenant_id).predict("tickets", frame))
    with MLClient(platform.url, api_key=acme.key, tenant_id=acme.tenant_id) as client:
        for table in (frame, pa.Table.from_pandas(frame), frame.to_dict("records"), frame.to_dict("list")):
            assert client.predict("tickets", table).predictions == expected
        with pytest.raises(SignatureMismatchError, match="Did you mean 'subject'"):
            client.predict("tickets", frame.rename(columns=str.upper))


def test_many_rows_come_back_in_order(globex):
    """A thousand rows, each answered in its place."""
    X, y = split_target(measures(1000, seed=3), "outcome")
    body = globex.predict("measures", X.to_dict("records")).json()
    assert len(body["predictions"]) == 1000
    assert np.mean(np.array(body["predictions"]) == y.to_numpy()) > 0.85


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "invalid_request"),
        (b"[]", 400, "invalid_request"),
        (b'{"rows": 3}', 400, "invalid_request"),
        (b'{"rows": [3]}', 400, "invalid_request"),
        (b'{"rows": [{}], "environment": "../x"}', 400, "invalid_name"),
        (b'{"rows": [{}]}', 422, "signature_mismatch"),
        (b'{"rows": [{"m0": "many"}]}', 422, "signature_mismatch"),
        (b'{"rows": [{"m0": ' + b"[" * 1000 + b"]" * 1000 + b"}]}", 422, "signature_mismatch"),
        (b'{"rows": [{}], "version": "999"}', 404, "not_found"),
        (b'{"rows": [{}], "environment": "staging"}', 404, "not_found"),
        (b'{"rows": [' + b",".join([b"{}"] * 10_001) + b"]}", 413, "too_large"),
        (b'{"rows": ["' + b"x" * (9 * 2**20) + b'"]}', 413, "too_large"),
    ],
)
def test_a_bad_request_is_explained(globex, body, status, code):
    """Each gets its status and the one error shape; never 500."""
    answer = globex.post("/models/measures/predict", content=body)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error["code"] == code
    assert len(error["message"]) > 10
    assert error["request_id"] == answer.headers["x-request-id"]


def test_a_row_that_does_not_fit_is_named(globex):
    """Row and column, so that a client can find it."""
    row = measures(1).drop(columns=["outcome"]).iloc[0].to_dict()
    answer = globex.predict("measures", [row, {**row, "m3": "many"}])
    assert answer.status_code == 422
    assert answer.json()["error"]["details"] | {"row": 1, "column": "m3"} == answer.json()["error"]["details"]


def test_a_compressed_body_is_read(globex):
    """As the plain one, by both protocols; another encoding is 415 in the shape of its path."""
    X = measures(100, seed=9).drop(columns=["outcome"])
    rows = orjson.dumps({"rows": X.to_dict("records")})
    matrix = {"name": "x", "shape": [100, 12], "datatype": "FP64", "data": X.to_numpy().ravel().tolist()}
    expected = globex.post("/models/measures/predict", content=rows).json()["predictions"]
    for encoding, pack in (("gzip", gzip.compress), ("deflate", zlib.compress)):
        headers = {"content-encoding": encoding}
        answer = globex.post("/models/measures/predict", content=pack(rows), headers=headers)
        assert answer.json()["predictions"] == expected
        tensors = pack(orjson.dumps({"inputs": [matrix]}))
        answer = globex.post("/v2/models/measures/infer", content=tensors, headers=headers)
        assert answer.json()["outputs"][0]["data"] == expected
    refused = {"content-encoding": "br"}
    answer = globex.post("/models/measures/predict", content=rows, headers=refused)
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_encoding")
    answer = globex.post("/v2/models/measures/infer", content=rows, headers=refused)
    assert answer.status_code == 415
    assert "gzip" in answer.json()["error"]


def test_a_body_that_does_not_come_is_the_client_s_fault(globex):
    """408 in the one shape, at the deadline, through the ingress."""
    url = urlsplit(globex.platform.url)
    head = [
        "POST /t/globex/models/measures/predict HTTP/1.1",
        "host: x",
        f"authorization: Bearer {globex.key}",
        "x-request-timeout-ms: 500",
        "content-length: 1000",
    ]
    with closing(socket.create_connection((url.hostname, url.port), timeout=20)) as connection:
        connection.sendall("\r\n".join(head).encode() + b'\r\n\r\n{"rows": ')
        answer = HTTPResponse(connection)
        answer.begin()
        body = answer.read()
    assert answer.status == 408
    assert orjson.loads(body)["error"]["code"] == "request_timeout"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v2/models/nothing", 404),
        ("/v2/nothing", 404),
        ("/v2/models/measures/infer", 405),
        ("/v2/models/A/config", 404),
    ],
)
def test_the_open_inference_protocol_s_errors_are_texts(globex, path, status):
    """As its clients read them."""
    answer = globex.get(path)
    assert answer.status_code == status
    assert isinstance(answer.json()["error"], str)


def test_a_deadline_is_kept(globex):
    """A deadline that can't be met is 504, or 408 if the body was not there; one that is no number is 400."""
    rows = measures(5000, seed=1).drop(columns=["outcome"]).to_dict("records")
    late = globex.post("/models/measures/predict", json={"rows": rows}, headers={"x-request-timeout-ms": "1"})
    late_for = {504: "deadline_exceeded", 408: "request_timeout"}
    assert late.json()["error"]["code"] == late_for[late.status_code]
    bad = globex.post("/models/measures/predict", json={"rows": rows[:1]}, headers={"x-request-timeout-ms": "soon"})
    assert bad.status_code == 400


@pytest.mark.parametrize("header", [{}, {"Authorization": "Bearer nonsense"}, {"Authorization": "Basic YTpi"}])
def test_without_a_key_there_is_no_answer(platform, acme, header):
    """401, whatever the path says."""
    answer = httpx.post(
        f"{platform.url}/t/acme/models/tickets/predict", json={"rows": [{}]}, headers=header, trust_env=False
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthenticated")


def test_a_key_without_the_scope_is_refused(platform, acme):
    """403 names the scope that is missing."""
    key = platform.key(acme.tenant_id, Scope.TRAIN)
    answer = None

    def refused():
        nonlocal answer
        answer = acme.post("/models/tickets/predict", json={"rows": [{}]}, key=key)
        return answer.status_code != 401  # the key is not known yet in each replica

    from support.waiting import wait_until

    wait_until(refused)
    assert (answer.status_code, answer.json()["error"]["details"]["scope"]) == (403, "predict")


def test_a_certain_version_can_be_asked(acme):
    """Whatever production points to."""
    version = acme.train("tickets", split_target(tickets(seed=5), "category"), algorithm="naive_bayes")
    answer = acme.predict("tickets", ticket_rows(2), version=version)
    assert (answer.status_code, answer.json()["version"]) == (200, version)


def test_open_inference_protocol(globex):
    """Metadata, readiness and infer of version 2, one tensor a column and one matrix."""
    metadata = globex.get("/v2/models/measures").json()
    assert [tensor["name"] for tensor in metadata["inputs"]] == [f"m{i}" for i in range(12)]
    assert globex.get("/v2/models/measures/ready").status_code == 200
    assert globex.get("/v2/health/live").status_code == 200
    X = measures(4, seed=9).drop(columns=["outcome"])
    expected = globex.predict("measures", X.to_dict("records")).json()["predictions"]
    by_column = [{"name": name, "shape": [4], "datatype": "FP64", "data": X[name].tolist()} for name in X.columns]
    matrix = [{"name": "input", "shape": [4, 12], "datatype": "FP64", "data": X.to_numpy().ravel().tolist()}]
    for inputs in (by_column, matrix):
        answer = globex.post("/v2/models/measures/infer", json={"inputs": inputs})
        assert answer.status_code == 200, answer.text
        assert answer.json()["outputs"][0]["data"] == expected
