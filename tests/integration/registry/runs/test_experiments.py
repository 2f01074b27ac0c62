"""Experiments, and what runs of a tracking client may do that others may not."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.run import TRACKED, RunStatus
from ml_core.exceptions import (
    ExperimentExistsError,
    ExperimentNotFoundError,
    RequestTooLargeError,
    RunNotFoundError,
    RunStateError,
)
from ml_core.ids import TenantId
from ml_core.registry.runs import RunRepository
from ml_core.registry.runs.documents import MAX_DOCUMENTS, RunDocuments
from ml_core.registry.runs.experiments import ExperimentRepository
from support.registry import TICKETS


@pytest.fixture
def runs(db: DatabaseConnection, tenant_id: TenantId) -> RunRepository:
    return RunRepository(db, tenant_id)


@pytest.fixture
def experiments(db: DatabaseConnection, tenant_id: TenantId) -> ExperimentRepository:
    return ExperimentRepository(db, tenant_id)


def test_the_runs_of_a_model_are_an_experiment(runs: RunRepository, experiments: ExperimentRepository) -> None:
    """From the first one on, under the model's name until another is set; the default one is always there."""
    with pytest.raises(ExperimentNotFoundError):
        experiments.get(TICKETS)
    runs.start(TICKETS)
    assert experiments.named(TICKETS) == experiments.get(TICKETS)
    assert [each.name for each in experiments.list(sort="name", is_descending=False).items] == ["Default", TICKETS]
    experiments.rename(TICKETS, "Tickets of 2026")
    assert experiments.named("Tickets of 2026").model_id == TICKETS
    with pytest.raises(ExperimentNotFoundError):
        experiments.named(TICKETS)
    other = experiments.create(TICKETS)  # its letters are taken
    assert other.model_id.startswith(f"{TICKETS}-")


@pytest.mark.parametrize("name", ["ü", "9 lives", "a" * 500, "-", "0", "MODEL/v2", "日本語", "x" * 79 + "!!"])
def test_each_name_has_a_model(experiments: ExperimentRepository, name: str) -> None:
    """Whatever its letters are, and a second one with the same letters, too."""
    first, second = experiments.create(name), experiments.create(f"{name} "[-500:])
    assert first.model_id != second.model_id
    assert experiments.named(name) == first


def test_of_contenders_for_a_name_one_wins(experiments: ExperimentRepository) -> None:
    """The others are told that it is there; contenders with different names of the same letters all win."""
    names = ["one name"] * 6 + ["Two Names", "two names", "two-names", "TWO_NAMES", "two/names"]

    def create(name: str) -> str:
        try:
            return experiments.create(name).model_id
        except ExperimentExistsError:
            return "exists"

    with ThreadPoolExecutor(len(names)) as pool:
        made = Counter(pool.map(create, names))
    assert made["exists"] == 5
    assert set(made.values()) == {5, 1}


def test_another_tenants_experiments_are_unknown(
    db: DatabaseConnection, other_tenant_id: TenantId, experiments: ExperimentRepository
) -> None:
    """By name and by model; the name is free for everybody."""
    made = experiments.create("theirs")
    other = ExperimentRepository(db, other_tenant_id)
    for call in (other.get, other.named, other.archive, other.restore):
        with pytest.raises(ExperimentNotFoundError):
            call(made.model_id)
    assert [each.name for each in other.list().items] == ["Default"]
    assert other.create("theirs").model_id == made.model_id


def test_a_parameter_keeps_its_value(db: DatabaseConnection, tenant_id: TenantId, runs: RunRepository) -> None:
    """Through the library and through SQL; others are added."""
    run_id = runs.start(TICKETS, parameters={"C": 1, "list": [1]})
    runs.log_parameters(run_id, {"C": 1, "added": None})
    with pytest.raises(RunStateError, match="can't be changed"):
        runs.log_parameters(run_id, {"list": [1, 2]})
    with pytest.raises(RequestTooLargeError):
        runs.log_parameters(run_id, {"large": "x" * 70_000})
    for changed in ('{"C": 1, "list": [1, 2], "added": null}', '{"C": 1}'):
        with pytest.raises(sa.exc.DBAPIError, match="another value"), db.tenant(tenant_id) as connection:
            connection.execute(sa.text("UPDATE mlcore.runs SET parameters = CAST(:p AS jsonb)"), {"p": changed})
    assert runs.get(run_id).parameters == {"C": 1, "list": [1], "added": None}
    runs.finish(run_id)
    with pytest.raises(RunStateError):
        runs.log_parameters(run_id, {"late": 1})


def test_a_tracked_run_goes_on_after_its_end(db: DatabaseConnection, tenant_id: TenantId, runs: RunRepository) -> None:
    """It takes results, and is opened again; its last sign of life stays that of its end until then."""
    documents = RunDocuments(db, tenant_id)
    tracked, own = runs.start(TICKETS, kind=TRACKED), runs.start(TICKETS)
    for run_id in (tracked, own):
        runs.fail(run_id, "why")
    ended = runs.get(tracked)
    late = (
        lambda run_id: runs.log_metrics(run_id, {"late": 1.0}),
        lambda run_id: runs.log_parameters(run_id, {"late": 1}),
        lambda run_id: runs.artifacts.log(run_id, "late/a.txt", b"late"),
        lambda run_id: documents.add(run_id, "dataset", {"d": {}}),
        runs.resume,
    )
    for call in late:
        with pytest.raises(RunStateError):
            call(own)
    for call in late[:-1]:
        call(tracked)
    assert runs.get(tracked).heartbeat_at == ended.heartbeat_at
    runs.resume(tracked)
    run = runs.get(tracked)
    assert (run.status, run.finished_at, run.error) == (RunStatus.RUNNING, None, None)
    assert (run.parameters, run.metrics["late"].last_value) == ({"late": 1}, 1.0)
    with pytest.raises(RunStateError):
        runs.resume(tracked)


def test_documents_are_bounded(db: DatabaseConnection, tenant_id: TenantId, runs: RunRepository) -> None:
    """In size and number; one of the same name stays as it is, and they go with their run."""
    documents = RunDocuments(db, tenant_id)
    run_id = runs.start(TICKETS)
    documents.add(run_id, "model", {"m": {"a": 1}})
    documents.add(run_id, "model", {"m": {"a": 2}})
    assert documents.get(run_id, "model", "m").document == {"a": 1}
    assert documents.change(run_id, "model", "m", lambda found: {**found, "b": 2}).document == {"a": 1, "b": 2}
    for refused in ({"large": {"x": "x" * 600_000}}, {str(number): {} for number in range(MAX_DOCUMENTS)}):
        with pytest.raises(RequestTooLargeError):
            documents.add(run_id, "model", refused)
    assert len(documents.list(run_id)["model"]) == 1
    runs.finish(run_id)
    runs.delete(run_id)
    with pytest.raises(RunNotFoundError):
        documents.list(run_id)
