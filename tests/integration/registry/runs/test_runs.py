"""Runs: begun, described, ended once, and deleted whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ml_core import MLSystem
from ml_core.database.connection import DatabaseConnection
from ml_core.domain.version import Lineage
from ml_core.exceptions import (
    InvalidNameError,
    InvalidRequestError,
    RequestTooLargeError,
    RunInUseError,
    RunNotFoundError,
    RunStateError,
    TenantNotFoundError,
)
from ml_core.ids import TenantId
from ml_core.registry.runs import RunRepository, RunStatus
from support.registry import TICKETS, register, superuser


@pytest.fixture
def runs(db: DatabaseConnection, tenant_id: TenantId) -> RunRepository:
    """The tenant's runs."""
    return RunRepository(db, tenant_id)


def test_a_run_says_what_it_is(db: DatabaseConnection, runs: RunRepository) -> None:
    """Model, kind, parameters, tags, parent and who started it; it is running and has not ended."""
    parent = runs.start("tickets", kind="tune")
    run = runs.get(runs.start(TICKETS, parameters={"C": 1.5}, tags={"team": "support"}, parent_run_id=parent))
    assert (run.model_id, run.kind, run.status) == (TICKETS, "train", RunStatus.RUNNING)
    assert (run.parameters, run.tags, run.parent_run_id) == ({"C": 1.5}, {"team": "support"}, parent)
    assert run.created_by == db.principal.name
    assert (run.finished_at, run.error, run.metrics) == (None, None, {})


@pytest.mark.parametrize(
    ("end", "state"),
    [
        (lambda runs, run: runs.finish(run), "finished"),
        (lambda runs, run: runs.fail(run, "no rows"), "failed"),
        (lambda runs, run: runs.cancel(run, "no time"), "cancelled"),
    ],
)
def test_an_outcome_is_final(runs: RunRepository, end: Any, state: str) -> None:
    """An ended run takes no sign of life, no metric, no file and no other outcome; the error names both."""
    run_id = runs.start(TICKETS)
    end(runs, run_id)
    for trigger, call in (
        ("finish", runs.finish),
        ("fail", lambda run: runs.fail(run, "x")),
        ("cancel", runs.cancel),
        ("beat", runs.beat),
        ("log", lambda run: runs.log_metrics(run, {"a": 1.0})),
        ("log", lambda run: runs.artifacts.log(run, "a", b"")),
    ):
        with pytest.raises(RunStateError, match=f"is {state} and can't {trigger}") as caught:
            call(run_id)
        assert (caught.value.status, caught.value.trigger) == (state, trigger)  # type: ignore[attr-defined]
    run = runs.get(run_id)
    assert run.status == state
    assert run.finished_at is not None


def test_of_a_long_error_the_end_is_kept(runs: RunRepository) -> None:
    """That is where the cause is; a NUL, which Postgres can't store, is left out."""
    run_id = runs.start(TICKETS)
    runs.fail(run_id, "x" * 10_000 + "the cause\0")
    error = runs.get(run_id).error
    assert error is not None
    assert error.endswith("the cause")
    assert len(error) < 5_000


def test_a_recorded_block_ends_its_run(runs: RunRepository) -> None:
    """Finished when it ends, failed with the error when it raises, cancelled by Ctrl-C."""
    with runs.record(TICKETS) as finished:
        assert runs.get(finished).status is RunStatus.RUNNING
    with pytest.raises(ZeroDivisionError), runs.record(TICKETS) as failed:
        raise ZeroDivisionError("by hand")
    with pytest.raises(KeyboardInterrupt), runs.record(TICKETS) as cancelled:
        raise KeyboardInterrupt
    found = [runs.get(run_id) for run_id in (finished, failed, cancelled)]
    assert [run.status for run in found] == [RunStatus.FINISHED, RunStatus.FAILED, RunStatus.CANCELLED]
    assert [run.error for run in found] == [None, "ZeroDivisionError: by hand", "KeyboardInterrupt"]


def test_the_system_tracks_experiments(db: DatabaseConnection, tenant_id: TenantId, tmp_path: Path) -> None:
    """``MLSystem.runs`` records a run of the caller's own beside those of its trainings."""
    with MLSystem(db, tenant_id=tenant_id, storage_path=tmp_path) as system, system.runs.record("tickets") as run_id:
        system.runs.log_metrics(run_id, {"loss": 0.5})
    assert RunRepository(db, tenant_id).get(run_id).metrics["loss"].last_value == 0.5


def test_the_parameters_of_a_run_must_be_data(runs: RunRepository) -> None:
    """What has no JSON form is refused and named; what is too large is refused with its size."""
    with pytest.raises(InvalidRequestError, match="solver"):
        runs.start(TICKETS, parameters={"solver": object()})
    with pytest.raises(RequestTooLargeError) as caught:
        runs.start(TICKETS, parameters={"grid": "x" * 70_000})
    assert caught.value.actual > caught.value.limit == 65_536  # type: ignore[attr-defined]
    assert runs.search().items == []


def test_a_run_of_nobody_or_of_no_model_is_not_begun(db: DatabaseConnection, runs: RunRepository) -> None:
    """Unknown tenant, unknown parent, a name that is none."""
    with pytest.raises(TenantNotFoundError):
        RunRepository(db, TenantId("nobody")).start(TICKETS)
    with pytest.raises(RunNotFoundError, match="run_0"):
        runs.start(TICKETS, parent_run_id="run_0")
    with pytest.raises(InvalidNameError):
        runs.start("../up")


def test_a_run_of_the_release_before_is_read(db: DatabaseConnection, tenant_id: TenantId, runs: RunRepository) -> None:
    """It has no tags, no parent and nobody who started it; left running, it is dead."""
    row = "INSERT INTO mlcore.runs (tenant_id, run_id, model_id, kind, status, started_at, heartbeat_at)"
    old = "'2025-01-01 00:00+00'"
    with superuser(db) as session:
        session.execute(f"{row} VALUES (%s, 'run_1', 'tickets', 'train', 'running', {old}, {old})", (tenant_id,))
    run = runs.get("run_1")
    assert (run.status, run.tags, run.parent_run_id, run.created_by) == (RunStatus.DEAD, {}, None, None)
    assert runs.search(TICKETS).items == [run]


def test_tags_are_set_and_removed(runs: RunRepository) -> None:
    """On ended runs as well; None removes; what is no word is refused."""
    run_id = runs.start(TICKETS, tags={"team": "support", "stage": "draft"})
    runs.finish(run_id)
    assert runs.tag(run_id, {"stage": None, "team": "sales", "best": "yes"}) == {"best": "yes", "team": "sales"}
    assert runs.get(run_id).tags == {"best": "yes", "team": "sales"}
    for tag in ({"k": "x" * 8_001}, {"k" * 251: "x"}, {"": "x"}, {"k": "a\0b"}):
        with pytest.raises(InvalidRequestError, match="1 to 250 characters"):
            runs.tag(run_id, tag)


def test_another_tenants_run_is_unknown(db: DatabaseConnection, runs: RunRepository, other_tenant_id: TenantId) -> None:
    """To every method that names one, exactly as a run that never was."""
    run_id, other = runs.start(TICKETS), RunRepository(db, other_tenant_id)
    own = other.start(TICKETS)
    runs.log_metrics(run_id, {"loss": 1.0})
    runs.artifacts.log(run_id, "plot.png", b"bytes")
    for call in (
        lambda: other.get(run_id),
        lambda: other.beat(run_id),
        lambda: other.finish(run_id),
        lambda: other.fail(run_id, "x"),
        lambda: other.cancel(run_id),
        lambda: other.log_metrics(run_id, {"loss": 0.0}),
        lambda: other.log_series(run_id, "loss", [1], [0.0]),
        lambda: other.series(run_id, "loss"),
        lambda: other.points(run_id, "loss"),
        lambda: other.tag(run_id, {"a": "b"}),
        lambda: other.compare([own, run_id]),
        lambda: other.artifacts.log(run_id, "plot.png", b""),
        lambda: other.artifacts.list(run_id),
        lambda: other.artifacts.open(run_id, "plot.png"),
        lambda: other.artifacts.delete(run_id, "plot.png"),
        lambda: other.delete(run_id),
        lambda: other.start(TICKETS, parent_run_id=run_id),
    ):
        with pytest.raises(RunNotFoundError, match="There is no run"):
            call()
    assert [run.run_id for run in other.search().items] == [own]
    assert runs.get(run_id).metrics["loss"].last_value == 1.0


def test_changes_are_journaled_and_points_are_not(
    db: DatabaseConnection, tenant_id: TenantId, runs: RunRepository
) -> None:
    """One audit row for each change of a run that a person would ask about."""
    with runs.record(TICKETS) as run_id:
        runs.log_metrics(run_id, {"loss": 1.0})
        runs.beat(run_id)
        runs.artifacts.log(run_id, "a.txt", b"x")
    runs.tag(run_id, {"a": "b"})
    runs.artifacts.delete(run_id, "a.txt")
    runs.delete(run_id)
    with db.tenant(tenant_id) as connection:
        query = "SELECT action FROM mlcore.audit WHERE subject ->> 'run_id' = :run ORDER BY audit_id"
        actions = connection.scalars(sa.text(query), {"run": run_id}).all()
    words = ("started", "artifact_logged", "finished", "tagged", "artifact_deleted", "deleted")
    assert actions == [f"run.{word}" for word in words]


def test_a_deleted_run_leaves_no_row(db: DatabaseConnection, tenant_id: TenantId, runs: RunRepository) -> None:
    """Neither in its table nor in those of its points, summaries, tags and files."""
    run_id = runs.start(TICKETS, tags={"a": "b"})
    runs.log_metrics(run_id, {"loss": 1.0})
    runs.artifacts.log(run_id, "a.txt", b"x")
    runs.finish(run_id)
    runs.delete(run_id)
    with db.tenant(tenant_id) as connection:
        for table in ("runs", "run_metrics", "run_metric_summaries", "run_tags", "run_artifacts"):
            assert connection.scalar(sa.text(f"SELECT count(*) FROM mlcore.{table}")) == 0, table
    with pytest.raises(RunNotFoundError):
        runs.get(run_id)


def test_a_run_that_is_needed_stays(db: DatabaseConnection, tenant_id: TenantId, runs: RunRepository) -> None:
    """While it runs, while a version's lineage names it, while another run is a part of it."""
    running, made, whole = (runs.start(TICKETS) for _ in range(3))
    part = runs.start(TICKETS, parent_run_id=whole)
    version = register(db, tenant_id, lineage=Lineage(run_id=made))
    with pytest.raises(RunStateError, match="is running and can't be deleted"):
        runs.delete(running)
    for run_id, user in ((made, f"tickets@{version.version}"), (whole, part)):
        runs.finish(run_id)
        with pytest.raises(RunInUseError) as caught:
            runs.delete(run_id)
        assert caught.value.used_by == [user]  # type: ignore[attr-defined]
        assert runs.get(run_id).status is RunStatus.FINISHED
