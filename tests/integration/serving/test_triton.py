"""Triton's clients, unchanged, over HTTP and gRPC, at the ingress of a real platform."""

from __future__ import annotations

from urllib.parse import urlsplit

import numpy as np
import pytest

from ml_core.registry.predictions import PredictionRepository
from support.tables import measures, tickets
from support.waiting import wait_until

http = pytest.importorskip("tritonclient.http", reason="tritonclient is in the dev extra")
grpc = pytest.importorskip("tritonclient.grpc", reason="needs grpcio, as Ray Serve does")

MEASURES = measures(8, seed=3).drop(columns=["outcome"])
TICKETS = tickets(8, seed=7).drop(columns=["category"]).dropna()


@pytest.fixture(params=["http", "grpc"])
def protocol(request):
    return request.param


def connected(protocol, tenant):
    """The module of a client, a client, and the headers of its calls, which are metadata in gRPC."""
    address = urlsplit(tenant.platform.url).netloc
    headers = {"authorization": f"Bearer {tenant.key}"}
    if protocol == "http":
        return http, http.InferenceServerClient(f"{address}/t/{tenant.tenant_id}"), headers
    return grpc, grpc.InferenceServerClient(address), headers | {"mlcore-tenant": tenant.tenant_id}


def by_column(module, client, headers, frame):
    """One tensor for each column that the metadata names, with its datatype."""
    metadata = client.get_model_metadata("tickets", headers=headers)
    found = metadata["inputs"] if isinstance(metadata, dict) else [vars_of(each) for each in metadata.inputs]
    tensors = []
    for name, datatype in ((each["name"], each["datatype"]) for each in found):
        values = frame[name].to_numpy(dtype={"BYTES": object, "BOOL": bool, "FP64": float}[datatype])
        tensors.append(module.InferInput(name, [len(frame)], datatype).set_data_from_numpy(values))
    return tensors


def vars_of(tensor):
    return {"name": tensor.name, "datatype": tensor.datatype}


def texts(answer):
    return [text.decode() for text in answer.as_numpy("predictions")]


def test_a_matrix_and_columns(protocol, acme, globex):
    """The answers are those to rows, with the probabilities, for two tenants at one address."""
    module, client, headers = connected(protocol, globex)
    assert client.is_server_ready(headers=headers)
    assert client.is_model_ready("measures", headers=headers)
    body = globex.predict("measures", MEASURES.to_dict("records"), proba=True).json()
    tensor = module.InferInput("x", list(MEASURES.shape), "FP64").set_data_from_numpy(MEASURES.to_numpy())
    answer = client.infer("measures", [tensor], headers=headers)
    assert texts(answer) == body["predictions"]
    assert np.allclose(answer.as_numpy("probabilities"), [list(row.values()) for row in body["probabilities"]])

    module, client, headers = connected(protocol, acme)
    answer = client.infer("tickets", by_column(module, client, headers, TICKETS), headers=headers)
    assert texts(answer) == acme.predict("tickets", TICKETS.to_dict("records")).json()["predictions"]


def test_another_tenants_key_finds_nothing(protocol, acme, globex):
    """Not even whether there is such a model."""
    module, client, headers = connected(protocol, globex)
    headers["authorization"] = f"Bearer {acme.key}"
    tensor = module.InferInput("x", list(MEASURES.shape), "FP64").set_data_from_numpy(MEASURES.to_numpy())
    calls = [
        lambda: client.infer("measures", [tensor], headers=headers),
        lambda: client.get_model_metadata("measures", headers=headers),
        lambda: client.get_model_config("measures", headers=headers),
        lambda: client.get_server_metadata(headers=headers),
    ]
    for call in calls:
        with pytest.raises(module.InferenceServerException) as caught:
            call()
        assert caught.value.status() in ("404", "StatusCode.NOT_FOUND")
        assert "There is no such tenant" in caught.value.message()


def test_an_answer_is_logged(protocol, globex):
    """With the request id that the call has, as any other."""
    module, client, headers = connected(protocol, globex)
    tensor = module.InferInput("x", list(MEASURES.shape), "FP64").set_data_from_numpy(MEASURES.to_numpy())
    client.infer("measures", [tensor], headers=headers | {"x-request-id": f"triton-{protocol}"})
    repository = PredictionRepository(globex.platform.db, globex.tenant_id)
    wait_until(lambda: len(repository.get(f"triton-{protocol}", model_id="measures")) == len(MEASURES), 20)
