"""Traces, as the SDK's in-memory exporter sees them and as a collector receives them."""

from __future__ import annotations

import httpx
import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from ml_core.ids import ModelId, TenantId, VersionId, VersionRef
from ml_core.observability import EndedTraining
from ml_core.observability.tracing import TracingHooks
from ml_core.settings import ObservabilitySettings
from support.collector import collecting
from support.inprocess_cell import ACME, MEASURE

VERSION = VersionRef(TenantId("acme"), ModelId("measures"), VersionId("1"))
PREDICT = "/t/acme/models/measures/predict"


@pytest.fixture
def exporter():
    return InMemorySpanExporter()


@pytest.fixture
def tracing(exporter):
    hooks = TracingHooks(exporter)
    yield hooks
    hooks.close()


@pytest.fixture
def noted(tracing):
    """The cell of this folder, with traces."""
    return tracing


def spans(tracing, exporter):
    """What was exported, by name."""
    tracing.close()
    return {span.name: span for span in exporter.get_finished_spans()}


async def _post(app, key, headers):
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://cell") as client:
        return await client.post(
            PREDICT, headers={"authorization": f"Bearer {key}", **headers}, json={"rows": [MEASURE]}
        )


def test_a_request_continues_its_callers_trace(cell, key, tracing, exporter):
    """Its span has the caller's for a parent, and the prediction is beneath it."""
    import asyncio

    trace_id, parent_id = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    headers = {"traceparent": f"00-{trace_id}-{parent_id}-01"}
    assert asyncio.run(_post(tracing.traced(cell.app), key, headers)).status_code == 200
    found = spans(tracing, exporter)
    request, predict = found["POST /t/{tenant}/models/{model}/predict"], found["predict"]
    assert f"{request.context.trace_id:032x}" == trace_id
    assert f"{request.parent.span_id:016x}" == parent_id
    assert predict.parent.span_id == request.context.span_id
    assert request.start_time <= predict.start_time <= predict.end_time <= request.end_time
    assert request.attributes["http.response.status_code"] == 200
    assert request.attributes["mlcore.tenant"] == ACME
    assert predict.attributes == {
        "mlcore.tenant": "acme",
        "mlcore.model": "measures",
        "mlcore.version": "1",
        "mlcore.rows": 1,
    }
    assert request.resource.attributes["service.name"] == "mlcore"


def test_a_caller_that_is_not_sampled_makes_no_span(cell, key, tracing, exporter):
    """The decision is the caller's."""
    import asyncio

    headers = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"}
    assert asyncio.run(_post(tracing.traced(cell.app), key, headers)).status_code == 200
    assert spans(tracing, exporter).keys() == {"load model"}


def test_a_load_is_a_span_with_its_error(tracing, exporter):
    """Of the length that it took."""
    tracing.model_load_failed(VERSION, "unsafe_artifact", 0.25)
    span = spans(tracing, exporter)["load model"]
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "unsafe_artifact")
    assert span.end_time - span.start_time == pytest.approx(0.25e9, rel=1e-6)


def test_a_training_is_a_span_with_its_stages(tracing, exporter):
    """One after the other, in the span of the whole."""
    tracing.training_ended(EndedTraining("acme", "measures", {"read": 0.1, "fit": 0.5}, error="training"))
    found = spans(tracing, exporter)
    train, read, fit = found["train"], found["read"], found["fit"]
    assert read.parent.span_id == fit.parent.span_id == train.context.span_id
    assert (train.start_time, read.end_time) == (read.start_time, fit.start_time)
    assert fit.end_time <= train.end_time
    assert train.attributes == {"mlcore.tenant": "acme", "mlcore.model": "measures", "mlcore.rows": 0}
    assert [span.status.description for span in (train, read, fit)] == ["training", None, "training"]


def test_what_the_replica_does_by_itself_is_traced(tracing, exporter):
    """With what it was about."""
    tracing.assignment_applied(7, 0.1, is_new_epoch=False)
    tracing.predictions_written(10, 1, 0.1)
    found = spans(tracing, exporter)
    assert found["apply assignment"].attributes["mlcore.generation"] == 7
    assert found["write predictions"].attributes["mlcore.rows"] == 10


@pytest.fixture
def collector():
    """An OTLP collector: its address, and the spans that it was sent."""
    with collecting() as made:
        yield made


@pytest.fixture(scope="module")
def telemetry():
    """The wiring; Ray 2.60 uses pydantic in a way that pydantic deprecates."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from deployments import telemetry
    return telemetry


def test_spans_reach_the_collector_that_the_setting_names(telemetry, collector, monkeypatch):
    """By the SDK's own exporter, which reads the same variable; what waits is sent at the end."""
    address, received = collector
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
    made = telemetry.Telemetry(ObservabilitySettings(metrics=False, otlp_endpoint=address))
    made.hooks.model_loaded(VERSION, 0.1)
    made.close()
    assert [(path, span.name) for path, span in received] == [("/v1/traces", "load model")]


def test_without_the_extra_there_are_no_traces_and_a_warning(telemetry, monkeypatch, caplog):
    """The platform starts all the same: the variable may be meant for another program."""
    import sys

    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    made = telemetry.Telemetry(ObservabilitySettings(metrics=False, otlp_endpoint="http://127.0.0.1:4318"))
    app = object()
    assert made.traced(app) is app
    assert vars(made.hooks) == {}
    assert "the extra `otel` is not installed" in caplog.text
    made.close()
