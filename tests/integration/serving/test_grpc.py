"""gRPC through the ingress, as Triton's client speaks it: a real HAProxy before cells in this process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import numpy as np
import pytest

from ml_core.domain.api_key import Scope
from ml_core.domain.assignment import AssignmentDelta
from ml_core.inference.edge.app import MAX_IN_FLIGHT, TENANT_SHARE
from ml_core.inference.edge.grpc_messages import MESSAGES
from ml_core.models.store import LocalStore
from ml_core.platform.ports import free_ports
from ml_core.settings import ServingSettings
from support.haproxy_node import Node, haproxy_node
from support.http_server import served
from support.inprocess_cell import ACME, GLOBEX, TICKET, Cell, fitted, make_cell, promote, servable
from support.tables import measures, split_target, tickets
from support.waiting import wait_until

triton = pytest.importorskip("tritonclient.grpc", reason="needs grpcio, as Ray Serve does")
grpc = pytest.importorskip("grpc")

FRAME = measures(4, seed=9).drop(columns=["outcome"])
LONG, LARGE = (measures(rows).drop(columns=["outcome"]) for rows in (1001, 3000))
CODE = {code: f"StatusCode.{code.name}" for code in grpc.StatusCode}


def as_replica(cell: Cell):
    """The application of a cell as Ray has it: Ray's health check is answered before it."""

    async def app(scope, receive, send):
        if scope["path"] == "/-/healthz":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})
        else:
            await cell.app(scope, receive, send)

    return app


@contextmanager
def a_cell(folder, *models) -> Iterator[Cell]:
    store = LocalStore(folder)
    cell = make_cell(store, ServingSettings(max_rows=1000, max_body_bytes=256 * 1024))
    cell.assignment.apply(AssignmentDelta(1, True, {ACME: True, GLOBEX: True}, {}, {}))
    for model, tenant in models:
        promote(cell.table, servable(store, model, tenant=tenant))
    yield cell
    cell.table.close()
    cell.service.close()


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """The shared cell with two models of acme, and the dedicated cell of globex with one."""
    forest = fitted("measures", split_target(measures(), "outcome"), n_estimators=5)
    texts = fitted("tickets", split_target(tickets(), "category"), algorithm="logistic_regression")
    folder = tmp_path_factory.mktemp("cells")
    with a_cell(folder / "a", (forest, ACME), (texts, ACME)) as shared, a_cell(folder / "b", (forest, GLOBEX)) as own:
        yield shared, own


@pytest.fixture(scope="module")
def node(cells) -> Iterator[Node]:
    """The ingress before both."""
    shared, own = cells
    with served(as_replica(shared)) as first, served(as_replica(own)) as second, haproxy_node() as its_node:
        its_node.start(first, globex=second)
        wait_until(lambda: its_node.get("/readyz").status_code == 200, 10)
        yield its_node


@pytest.fixture(scope="module")
def key(cells):
    return cells[0].key(ACME, Scope.PREDICT, Scope.READ)


@pytest.fixture
def headers(key):
    return {"authorization": f"Bearer {key}", "mlcore-tenant": "acme"}


@pytest.fixture
def client(node):
    with triton.InferenceServerClient(f"127.0.0.1:{node.port}") as connected:
        yield connected


def matrix(frame=FRAME):
    tensor = triton.InferInput("x", list(frame.shape), "FP64")
    return [tensor.set_data_from_numpy(frame.to_numpy())]


def column(name, values, datatype):
    tensor = triton.InferInput(name, [len(values)], datatype)
    return tensor.set_data_from_numpy(np.array(values, dtype=object if datatype == "BYTES" else None))


def refused(call):
    """The code and the text of the error that a call ends with."""
    with pytest.raises(triton.InferenceServerException) as caught:
        call()
    return caught.value.status(), caught.value.message()


def test_what_a_client_asks_before_it_infers(client, headers):
    """Health, metadata, configuration."""
    assert client.is_server_live(headers)
    assert client.is_server_ready(headers)
    assert client.is_model_ready("measures", headers=headers)
    assert "model_configuration" in client.get_server_metadata(headers).extensions
    assert list(client.get_model_metadata("measures", "1", headers=headers).versions) == ["1"]
    config = client.get_model_config("measures", headers=headers).config
    assert [tensor.name for tensor in config.input] == list(FRAME.columns)


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_a_matrix_is_answered_as_rows_are(cells, key, client, headers, compression):
    """With the id of the request; compressed and not."""
    body = cells[0].predict("measures", FRAME.to_dict("records"), key=key, proba=True).json()
    answer = client.infer("measures", matrix(), request_id="mine", headers=headers, compression_algorithm=compression)
    assert answer.get_response().id == "mine"
    assert [text.decode() for text in answer.as_numpy("predictions")] == body["predictions"]
    assert np.allclose(answer.as_numpy("probabilities"), [list(row.values()) for row in body["probabilities"]])


def test_columns_and_outputs(cells, key, client, headers):
    """Texts, a date and a boolean, and only the output that is asked for; the call returns at once."""
    tensors = [
        column("subject", [TICKET["subject"]], "BYTES"),
        column("opened", [TICKET["opened"]], "BYTES"),
        column("is_paying", [True], "BOOL"),
    ]
    wanted = [triton.InferRequestedOutput("predictions")]
    answers = []
    client.async_infer(
        "tickets", tensors, lambda result, error: answers.append((result, error)), outputs=wanted, headers=headers
    )
    wait_until(lambda: answers, 10)
    ((answer, error),) = answers
    assert error is None
    assert answer.as_numpy("probabilities") is None
    expected = cells[0].predict("tickets", [TICKET], key=key).json()["predictions"]
    assert [text.decode() for text in answer.as_numpy("predictions")] == expected


def test_the_tenant_of_a_call_decides_which_cell_answers(cells, client, headers):
    """The same port and the same call: a dedicated cell is found by the metadata."""
    _, own = cells
    theirs = {"authorization": f"Bearer {own.key(GLOBEX, Scope.PREDICT)}", "mlcore-tenant": "globex"}
    assert client.infer("measures", matrix(), headers=theirs).get_response().model_version == "1"
    code, text = refused(lambda: client.infer("measures", matrix(), headers=headers | {"mlcore-tenant": "globex"}))
    assert (code, "no API key" in text) == (CODE[grpc.StatusCode.UNAUTHENTICATED], False)  # its cell knows no such key


@pytest.mark.parametrize(
    ("call", "code", "text"),
    [
        (lambda c, h: c.is_server_live(), "INVALID_ARGUMENT", "metadata mlcore-tenant"),
        (lambda c, h: c.is_server_live(h | {"mlcore-tenant": "Acme/../x?"}), "INVALID_ARGUMENT", "mlcore-tenant"),
        (lambda c, h: c.is_server_live({"mlcore-tenant": "acme"}), "UNAUTHENTICATED", "no API key"),
        (lambda c, h: c.is_server_live(h | {"mlcore-tenant": "nobody"}), "NOT_FOUND", "no such tenant"),
        (lambda c, h: c.infer("nothing", matrix(), headers=h), "NOT_FOUND", "'nothing'"),
        (lambda c, h: c.infer("measures", matrix(), "9", headers=h), "NOT_FOUND", "9"),
        (lambda c, h: c.infer("measures", matrix(FRAME[["m0"]]), headers=h), "INVALID_ARGUMENT", "instead of 12"),
        (lambda c, h: c.infer("measures", matrix(LONG), headers=h), "RESOURCE_EXHAUSTED", "1,001"),
        (lambda c, h: c.infer("measures", matrix(LARGE), headers=h), "RESOURCE_EXHAUSTED", "262,144"),
        (lambda c, h: c.infer("measures", matrix(), headers=h | {"authorization": "x"}), "UNAUTHENTICATED", "bearer"),
        (lambda c, h: c.get_inference_statistics("measures", headers=h), "UNIMPLEMENTED", "does not have the method"),
    ],
)  # fmt: skip
def test_an_error_is_what_it_says(client, headers, call, code, text):
    """Code and text of each error that the client raises."""
    found, message = refused(lambda: call(client, headers))
    assert (found, text in message) == (f"StatusCode.{code}", True), message


def test_a_stream_is_refused_at_once(client, headers):
    """Which would otherwise be waited for."""
    errors = []
    client.start_stream(lambda result, error: errors.append(error), headers=headers)
    with suppress(triton.InferenceServerException):  # it may be refused before anything is asked
        client.async_stream_infer("measures", matrix())
    wait_until(lambda: errors, 4)
    client.stop_stream(cancel_requests=True)
    assert "There are no streams. Call ModelInfer." in str(errors[0])


def test_a_call_has_the_headers_of_an_answer(node, headers, cells, key):
    """The request id is the client's; a refusal of the ingress has one as well, and the content type of gRPC."""
    with grpc.insecure_channel(f"127.0.0.1:{node.port}") as channel:
        live = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
        _, call = live.with_call(b"", metadata=(*headers.items(), ("x-request-id", "abc-1")), timeout=10)
        assert dict(call.initial_metadata())["x-request-id"] == "abc-1"
        with pytest.raises(grpc.RpcError) as caught:
            live(b"", timeout=10)
        metadata = dict((*caught.value.initial_metadata(), *caught.value.trailing_metadata()))
        assert metadata["x-request-id"]
        with pytest.raises(grpc.RpcError) as caught:
            live(b"", metadata=[*headers.items(), ("mlcore-tenant", "globex")], timeout=10)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "mlcore-tenant is repeated" in caught.value.details()


@contextmanager
def held(cell: Cell):
    """Hold each prediction of a cell."""
    release, original = threading.Event(), cell.service.predict

    async def wait(*arguments, **options):
        while not release.is_set():
            await asyncio.sleep(0.01)
        return await original(*arguments, **options)

    cell.service.predict = wait
    try:
        yield release
    finally:
        release.set()
        del cell.service.predict


def test_a_deadline_is_kept(cells, client, headers):
    """At the client, and in the replica, which works no longer for who has left."""
    with held(cells[0]):
        code, _ = refused(lambda: client.infer("measures", matrix(), headers=headers, client_timeout=0.5))
        assert code == CODE[grpc.StatusCode.DEADLINE_EXCEEDED]
        wait_until(lambda: len(cells[0].app._answering._gate) == 0, 10)


def test_too_many_calls_are_refused_with_a_pause(cells, node, headers):
    """RESOURCE_EXHAUSTED, and when to try again."""
    most, message = MAX_IN_FLIGHT // TENANT_SHARE, MESSAGES["ModelInferRequest"](model_name="measures")
    message.inputs.add(name="x", datatype="FP64", shape=FRAME.shape)
    message.raw_input_contents.append(FRAME.to_numpy().tobytes())
    method, content = "/inference.GRPCInferenceService/ModelInfer", message.SerializeToString()
    own = [("grpc.use_local_subchannel_pool", 1)]  # a connection, of which the ingress takes 100 calls at a time
    with ExitStack() as stack:
        channels = [stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{node.port}", own)) for _ in range(2)]
        release = stack.enter_context(held(cells[0]))
        calls = [
            channel.unary_unary(method).future(content, metadata=[*headers.items()], timeout=20)
            for channel in channels
            for _ in range(most // 2 + 1)
        ]
        wait_until(lambda: sum(each.done() for each in calls) == 2, 20)
        first, _ = (each for each in calls if each.done())
        assert first.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        metadata = dict((*first.initial_metadata(), *first.trailing_metadata()))
        assert int(metadata["retry-after"]) >= 1
        release.set()
        assert sum(each.code() is grpc.StatusCode.OK for each in calls) == most


def test_a_client_that_leaves_is_noticed(cells, client, headers):
    """A cancelled call ends in the replica."""
    with held(cells[0]):
        call = client.async_infer("measures", matrix(), lambda result, error: None, headers=headers)
        wait_until(lambda: len(cells[0].app._answering._gate) == 1, 10)
        call.cancel()
        wait_until(lambda: len(cells[0].app._answering._gate) == 0, 10)


def test_where_no_replica_answers_a_call_may_be_repeated(headers):
    """UNAVAILABLE, before there is a route and when nobody listens."""
    for replicas in ((), free_ports(1)):
        with haproxy_node() as empty:
            empty.start(*replicas)
            with triton.InferenceServerClient(f"127.0.0.1:{empty.port}") as client:
                assert refused(lambda: client.is_server_live(headers))[0] == CODE[grpc.StatusCode.UNAVAILABLE]
