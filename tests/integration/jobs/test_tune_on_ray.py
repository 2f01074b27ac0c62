"""Searches on a real Ray: their trials are runs, and whatever is killed, none that ended is lost or repeated."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import psutil
import pytest
import sqlalchemy as sa

from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables import jobs as jobs_table
from ml_core.domain.job import ENDED, Job, JobState
from ml_core.domain.run import Run, RunStatus
from ml_core.domain.signature import OutputKind
from ml_core.domain.train_spec import TrainSpec
from ml_core.domain.tune_spec import TuneSpec
from ml_core.exceptions import TrainingError
from ml_core.ids import ModelId, RunId, TenantId
from ml_core.jobs.dispatcher import Dispatcher
from ml_core.jobs.processes import ProcessRunner
from ml_core.jobs.submission import Jobs
from ml_core.registry.datasets import DatasetRepository
from ml_core.registry.pages import every
from ml_core.registry.runs import RunRepository
from ml_core.registry.versions.repository import VersionRepository
from ml_core.training.cross_validation import Objective, divide_into_folds, encoded_folds
from ml_core.training.request import TrainingRequest
from ml_core.training.table import read_training_table
from ml_core.training.trainer import Trainer
from support.job_queue import empty_queue
from support.registry import new_tenant
from support.tables import measures, split_target, tickets
from support.waiting import wait_until

WITHIN_S = 120.0
SOAK = pytest.mark.skipif("MLCORE_TEST_KILLS" not in os.environ, reason="a soak: MLCORE_TEST_KILLS is not set")


@pytest.fixture(scope="module")
def raylet() -> Iterator[psutil.Process]:
    """A Ray node of two cores that this process and its children join."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RAY_worker_niceness", "0")
        # Ray reads the variable when it is imported, which it is here and is not yet in a child.
        environment.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        environment.setattr("ray._private.ray_constants.ENABLE_RAY_CLUSTER", False)
        node = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 2, "include_dashboard": False},
        )
        environment.setenv("RAY_ADDRESS", node.address)
        yield psutil.Process(node.head_node.all_processes["raylet"][0].process.pid)
        node.shutdown()


@pytest.fixture(scope="module")
def tenant(db: DatabaseConnection, raylet: psutil.Process) -> TenantId:
    """A tenant with a dataset."""
    tenant_id = new_tenant(db)
    DatasetRepository(db, tenant_id).create("m", measures(500))
    return tenant_id


@pytest.fixture
def trainer(db: DatabaseConnection, tenant: TenantId) -> Trainer:
    """Of the tenant."""
    return Trainer(db, tenant)


def trials_of(db: DatabaseConnection, tenant: TenantId, model: str) -> list[Run]:
    """The runs of a model's trials by their number, those of an attempt that was lost included."""
    runs = RunRepository(db, tenant)
    found = every(lambda limit, cursor: runs.search(model, kind="trial", limit=limit, cursor=cursor))
    return sorted(found, key=lambda run: run.parameters["trial"])


def left_behind(db: DatabaseConnection) -> list[object]:
    """What is left of Tune's state."""
    return [each for each in (db.settings.platform.home / "searches").iterdir() if each.name != "lock"]


def test_a_grid_finds_what_a_plain_loop_finds(db, tenant, trainer) -> None:
    """Each trial is a run below the search's; those that fail do so with their reason, and the others count."""
    space = {"bootstrap": [True, False], "oob_score": [True], "max_depth": [1, 2, 3]}
    data, fixed = split_target(measures(500), "outcome"), {"n_estimators": 5}
    found = trainer.tune(
        "grid", None, data, hyperparameters=fixed, algorithm="random_forest", space=space, sampler="grid", folds=3,
        early_stopping=False, cpus=2,
    )  # fmt: skip
    search, trials = found["search"], trials_of(db, tenant, "grid")
    assert (search["trials"], search["failed"], len(trials)) == (6, 3, 6)
    assert {run.parent_run_id for run in trials} == {found["run_id"]}
    request = TrainingRequest(ModelId("grid"), "classification", data)
    table = read_training_table(request, OutputKind.CLASSES)
    folds = list(encoded_folds(request, table, divide_into_folds(table, OutputKind.CLASSES, 3, 0), takes_sparse=True))
    objective = Objective("classification", OutputKind.CLASSES, "accuracy", fixed)
    scores = []
    for run in trials:
        if run.parameters["hyperparameters"]["bootstrap"]:
            configuration = run.parameters["hyperparameters"]
            scores.append(objective.mean([objective.measure(fold, configuration, 1.0) for fold in folds])["accuracy"])
            assert (run.status, run.metrics["cv/accuracy"].last_value) == (RunStatus.FINISHED, scores[-1])
        else:
            assert (run.status, "Out of bag estimation" in run.error) == (RunStatus.FAILED, True)
    assert search["score"] == max(scores)
    version = VersionRepository(db, tenant).get("grid", found["version"])
    assert version.lineage.run_id == found["run_id"]
    assert version.hyperparameters == {**fixed, **search["hyperparameters"]}
    assert any("held-out metrics are of rows that no trial saw" in note for note in found["notes"])
    assert found["metrics"]["validation"]["accuracy"] == found["model"].score(*_held_out(table))
    assert left_behind(db) == []


def _held_out(table):
    return table.validation.columns, table.validation.target


def test_a_search_over_algorithms_stops_the_worse_ones_early(db, tenant, trainer) -> None:
    """Text for a linear model, a forest and boosted trees; most trials end with a share of the work."""
    data = split_target(tickets(1600), "category")
    found = trainer.tune("auto", None, data, trials=9, folds=2, metric="log_loss", cpus=2)
    trials = trials_of(db, tenant, "auto")
    algorithms = {run.parameters["hyperparameters"]["algorithm"] for run in trials}
    assert algorithms == {"logistic_regression", "gradient_boosting", "random_forest"}
    rows = [run.metrics["cv/log_loss"].last_step for run in trials]
    assert min(rows) < max(rows) == found["search"]["rows"] * found["search"]["folds"]
    whole = [
        run.metrics["cv/log_loss"].last_value for run in trials if run.metrics["cv/log_loss"].last_step == max(rows)
    ]
    assert found["search"]["score"] == min(whole)
    assert found["algorithm"] == found["search"]["hyperparameters"]["algorithm"]


def test_a_search_of_which_all_trials_fail_says_why(db, tenant, trainer) -> None:
    """With the first reason; no version is made."""
    space = {"bootstrap": [False], "oob_score": [True], "max_depth": [1, 2]}
    with pytest.raises(TrainingError, match=r"All 2 trials .*Out of bag estimation"):
        trainer.tune(
            "none", None, split_target(measures(100), "outcome"), algorithm="random_forest", space=space, sampler="grid"
        )
    assert RunRepository(db, tenant).search("none", kind="tune").items[0].status is RunStatus.FAILED


def test_a_search_ends_with_its_core_seconds(db, tenant, trainer) -> None:
    """And the best so far is trained."""
    data = split_target(measures(300), "outcome")
    found = trainer.tune("cores", None, data, algorithm="decision_tree", trials=5_000, cpu_seconds=1, sampler="random")
    trials = trials_of(db, tenant, "cores")
    assert 0 < found["search"]["trials"] < 5_000
    assert {run.status for run in trials} <= {RunStatus.FINISHED, RunStatus.CANCELLED}
    assert sum(run.metrics["cpu_s"].last_value for run in trials if run.metrics) >= 1


def test_a_search_ends_with_its_time(db, tenant, trainer) -> None:
    """A fit that would take minutes is stopped, and its run ends."""
    data, slow = split_target(measures(500), "outcome"), {"n_estimators": 20_000}
    with pytest.raises(TrainingError, match=r"ended before a trial did\. Give more seconds"):
        trainer.tune("time", None, data, hyperparameters=slow, algorithm="random_forest", seconds=1, cpus=1)
    assert {run.status for run in trials_of(db, tenant, "time")} == {RunStatus.CANCELLED}


def test_a_trial_whose_process_is_killed_fails_alone(db, tenant, trainer, raylet) -> None:
    """As by the system, for want of memory."""
    data, outcome = split_target(measures(500), "outcome"), []

    def search() -> None:
        outcome.append(
            trainer.tune(
                "killed",
                None,
                data,
                hyperparameters={"n_estimators": 150},
                algorithm="random_forest",
                space={"max_depth": [2, 3, 4, 5]},
                sampler="grid",
                folds=4,
                cpus=1,
            )
        )

    thread = threading.Thread(target=search)
    thread.start()
    os.kill(wait_until(lambda: _working(raylet), WITHIN_S), signal.SIGKILL)
    thread.join(WITHIN_S)
    assert outcome[0]["search"]["trials"] == 4
    (failed,) = [run for run in trials_of(db, tenant, "killed") if run.status is RunStatus.FAILED]
    assert "ran out of memory" in failed.error


def _working(raylet: psutil.Process) -> int | None:
    """A process that does a step of a trial."""
    return next((each.pid for each in raylet.children() if each.name().startswith("ray::_Inner.tra")), None)


SEARCH = {
    "algorithm": "random_forest",
    "space": {"max_depth": "1..40", "min_samples_leaf": "1..20"},
    "sampler": "random",
    "folds": 3,
    "trials": 8,
    "early_stopping": False,
}
TRAINING = {"dataset": "m@1", "target": "outcome", "hyperparameters": {"n_estimators": 60}}


@pytest.mark.parametrize("kills_after", [(3,), pytest.param((2, 5), marks=SOAK)], ids=["once", "twice"])
def test_a_search_whose_driver_is_killed_repeats_no_trial(db, tenant, trainer, kills_after) -> None:
    """And finds what one that nobody disturbs finds, with one core each."""
    empty_queue(db)
    own, runner, model = Jobs(db, tenant), ProcessRunner(db), f"lost{len(kills_after)}"
    dispatcher = Dispatcher(db, runner, cpus=1, name="tune")
    job = own.tune(model, TRAINING, SEARCH)
    kept: set[str] = set()

    def finished() -> set[str]:
        if dispatcher.turn() or own.get(job.job_id).run_id is None:
            return set()
        found = RunRepository(db, tenant).search(kind="trial", parameters={"search": job.job_id}, limit=100)
        return {run.run_id for run in found.items if run.status is RunStatus.FINISHED}

    try:
        for at_least in kills_after:
            kept |= wait_until(lambda: len(found := finished()) >= at_least and found, WITHIN_S)  # noqa: B023
            runner.stop(RunId(own.get(job.job_id).run_id))  # SIGKILL
            lost = own.lose(job.job_id, own.get(job.job_id).run_id, "killed")
            assert lost.state is JobState.QUEUED
            with db.platform() as connection:
                now = jobs_table.update().where(jobs_table.c.job_id == job.job_id).values(not_before=sa.func.now())
                connection.execute(now)
        done = wait_until(lambda: dispatcher.turn() or _ended(own, job), WITHIN_S)
    finally:
        runner.close()
    assert (done.state, done.attempt) == (JobState.SUCCEEDED, len(kills_after) + 1), done.error
    trials = trials_of(db, tenant, model)
    ended = [run for run in trials if run.status is RunStatus.FINISHED]
    assert [run.parameters["trial"] for run in ended] == list(range(1, 9))
    assert len({str(run.parameters["hyperparameters"]) for run in ended}) == 8
    assert kept <= {run.run_id for run in ended}
    assert {run.status for run in trials} <= {RunStatus.FINISHED, RunStatus.CANCELLED}
    assert len({run.parent_run_id for run in ended}) == done.attempt
    assert left_behind(db) == []
    assert VersionRepository(db, tenant).get(model, "1").lineage.run_id == done.run_id
    spec, search = TrainSpec.from_json(TRAINING), TuneSpec.from_json(SEARCH)
    calm = trainer.tune_spec("calm", spec, search, 1)["search"]
    same = ("hyperparameters", "score", "std", "trials")
    assert {name: calm[name] for name in same} == {name: done.result["search"][name] for name in same}


def _ended(own: Jobs, job: Job) -> Job | None:
    found = own.get(job.job_id)
    return found if found.state in ENDED else None
