"""The traces of trainings, predictions and jobs, as the SDK's in-memory exporter or a collector sees them."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from ml_core import MLSystem
from ml_core.database.connection import DatabaseConnection
from ml_core.exceptions import TrainingError
from ml_core.jobs.here import executing
from ml_core.jobs.submission import Jobs
from ml_core.observability.tracing import TracingHooks
from ml_core.registry.datasets import DatasetRepository
from ml_core.settings import ObservabilitySettings
from support.collector import collecting
from support.tables import measures, split_target

DATA = split_target(measures(), "outcome")
FAST = {"algorithm": "logistic_regression"}


@pytest.fixture
def exporter():
    return InMemorySpanExporter()


@pytest.fixture
def tracing(exporter):
    hooks = TracingHooks(exporter)
    yield hooks
    hooks.close()


@pytest.fixture
def system(db, tenant_id, tracing):
    with MLSystem(db, tenant_id=tenant_id, hooks=tracing) as system:
        yield system


def of_training(tracing, exporter):
    """The span of the training, and those beneath it, in order; all are of one trace."""
    tracing.close()
    spans = exporter.get_finished_spans()
    (train,) = [span for span in spans if span.name == "train"]
    beneath = [span for span in spans if span.parent is not None and span.parent.span_id == train.context.span_id]
    assert {span.context.trace_id for span in beneath} == {train.context.trace_id}
    return train, sorted(beneath, key=lambda span: span.start_time)


def test_a_training_is_one_trace(system, tracing, exporter, tenant_id):
    """With its stages one after the other, and what it made."""
    made = system.train_model("m", "classification", DATA, hyperparameters=FAST)
    train, stages = of_training(tracing, exporter)
    assert [span.name for span in stages] == ["validate", "read", "fit", "evaluate", "register"]
    assert all(a.end_time == b.start_time for a, b in pairwise(stages))
    assert (train.start_time, train.parent) == (stages[0].start_time, None)
    assert train.attributes == {
        "mlcore.tenant": tenant_id,
        "mlcore.model": "m",
        "mlcore.version": made["version"],
        "mlcore.algorithm": "logistic_regression",
        "mlcore.rows": len(DATA[0]),
    }
    assert train.status.status_code is StatusCode.UNSET


def test_a_training_that_selects_shows_the_selection(system, tracing, exporter):
    """As a stage, and the algorithm that it chose."""
    frame = pd.DataFrame({"a": np.arange(60.0), "b": np.arange(60.0) % 7})
    made = system.train_model("m", "regression", (frame, frame["a"] * 2.0), selection_seconds=2)
    train, stages = of_training(tracing, exporter)
    assert [span.name for span in stages] == ["validate", "read", "select", "fit", "evaluate", "register"]
    assert train.attributes["mlcore.algorithm"] == made["algorithm"]


def test_a_refused_training_is_a_trace_with_its_error(system, tracing, exporter):
    """At the stage that refused it, without a version."""
    with pytest.raises(TrainingError):
        system.train_model("m", "classification", (DATA[0], ["one class"] * len(DATA[0])), hyperparameters=FAST)
    train, stages = of_training(tracing, exporter)
    assert [span.name for span in stages] == ["validate", "read"]
    assert train.status.description == stages[-1].status.description == TrainingError.code
    assert "mlcore.version" not in train.attributes


def test_spans_are_beneath_the_callers_own(system, tracing, exporter, tenant_id):
    """A program with a span of its own has the training, the load and the prediction in its trace."""
    with tracing._tracer.start_as_current_span("nightly") as own:
        version = system.train_model("m", "classification", DATA, hyperparameters=FAST)["version"]
        system.predict("m", DATA[0].iloc[:5])
    tracing.close()
    spans = {span.name: span for span in exporter.get_finished_spans()}
    for name in ("train", "predict"):
        assert spans[name].parent.span_id == own.get_span_context().span_id
    assert spans["predict"].attributes == {
        "mlcore.tenant": tenant_id,
        "mlcore.model": "m",
        "mlcore.version": version,
        "mlcore.rows": 5,
    }


def test_a_prediction_without_a_caller_is_a_trace_of_its_own(system, tracing, exporter):
    """Whether or not the answer comes from a cache."""
    system.train_model("m", "classification", DATA, hyperparameters=FAST)
    system.predict_proba("m", DATA[0].iloc[0])
    tracing.close()
    (predict,) = [span for span in exporter.get_finished_spans() if span.name == "predict"]
    assert predict.parent is None
    assert predict.attributes["mlcore.rows"] == 1


def test_a_job_sends_its_training_to_the_collector_of_the_settings(db, tenant_id, monkeypatch):
    """Before it ends, so that a command that waits for it may end its process."""
    DatasetRepository(db, tenant_id).create("m", measures(60))
    with collecting() as (address, received):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        settings = replace(db.settings, observability=ObservabilitySettings(otlp_endpoint=address))
        with DatabaseConnection(settings=settings) as own:
            jobs = Jobs(own, tenant_id)
            job = jobs.train("m", {"dataset": "m", "target": "outcome", "hyperparameters": FAST})
            with executing(own, tenant_id, job.job_id):
                version = jobs.wait(job.job_id, timeout_s=60).result["version"]
            names = [span.name for _, span in received]
        assert sorted(names) == ["evaluate", "fit", "read", "register", "train", "validate"]
        assert len({span.trace_id for _, span in received}) == 1
        (train,) = [span for _, span in received if span.name == "train"]
        attributes = {each.key: each.value.string_value for each in train.attributes}
        assert (attributes["mlcore.tenant"], attributes["mlcore.version"]) == (tenant_id, version)
