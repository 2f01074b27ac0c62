"""Runs: parameters, metric series and an outcome that is final."""

from __future__ import annotations

import math

import pytest

from ml_core.database.connection import DatabaseConnection
from ml_core.exceptions import InvalidRequestError, TenantNotFoundError
from ml_core.ids import TenantId
from ml_core.registry.runs import RunRepository, RunStatus
from support.registry import TICKETS


def test_a_run_keeps_parameters_and_series(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """Values come back by metric in the order of steps; a step logged again is replaced; NaN is a value."""
    runs = RunRepository(db, tenant_id)
    run_id = runs.start(TICKETS, parameters={"C": 1.5})
    runs.log_metrics(run_id, {"loss": 0.5, "accuracy": 0.8}, step=2)
    runs.log_metrics(run_id, {"loss": 0.9}, step=1)
    runs.log_metrics(run_id, {"loss": 0.4}, step=2)
    runs.log_metrics(run_id, {"broken": math.nan})
    run = runs.get(run_id)
    assert (run.model_id, run.kind, run.status, run.parameters) == (TICKETS, "train", RunStatus.RUNNING, {"C": 1.5})
    assert run.metrics["loss"] == [(1, 0.9), (2, 0.4)]
    assert run.metrics["accuracy"] == [(2, 0.8)]
    assert math.isnan(run.metrics["broken"][0][1])
    assert run.finished_at is None


def test_an_outcome_is_final(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """A finished or failed run takes no more metrics and no other outcome; the error names state and trigger."""
    runs = RunRepository(db, tenant_id)
    finished, failed = runs.start(TICKETS), runs.start(TICKETS)
    runs.finish(finished)
    runs.fail(failed, "x" * 10_000 + "the cause\0")
    for run_id, state in ((finished, "finished"), (failed, "failed")):
        for trigger, call in (("finish", runs.finish), ("log", lambda run: runs.log_metrics(run, {"a": 1.0}))):
            with pytest.raises(InvalidRequestError, match=f"is {state} and can't {trigger}"):
                call(run_id)
    assert runs.get(finished).finished_at is not None
    error = runs.get(failed).error
    assert error is not None
    assert error.endswith("the cause")
    assert len(error) < 5_000


def test_runs_are_listed_newest_first(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """Of one model, at most as many as asked for."""
    runs = RunRepository(db, tenant_id)
    started = [runs.start(TICKETS, kind="tune") for _ in range(3)]
    assert [run.run_id for run in runs.list(TICKETS, limit=2)] == started[:0:-1]


def test_an_unknown_run_and_an_unknown_tenant(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """Another tenant's run is unknown too."""
    foreign = RunRepository(db, tenant_id).start(TICKETS)
    with pytest.raises(TenantNotFoundError):
        RunRepository(db, TenantId("nobody")).start(TICKETS)
    with pytest.raises(InvalidRequestError, match="no run"):
        RunRepository(db, TenantId("nobody")).get(foreign)
