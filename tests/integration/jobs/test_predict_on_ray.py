"""Predictions by Ray actors on a local Ray: the bytes that the job's own process makes, and its errors."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest
import ray

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.job import Job, JobState
from ml_core.exceptions import PlatformError
from ml_core.jobs import execution
from ml_core.jobs.kinds import predict
from ml_core.registry.jobs import JobQueue
from ml_core.system import MLSystem
from ml_core.training.distributed.ordered import free_workers, stream
from support.job_queue import empty_queue
from support.registry import new_tenant
from support.tables import split_target, tickets
from support.waiting import wait_until

WITHIN_S = 120.0
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data"),  # of its own defaults
    pytest.mark.filterwarnings("ignore:`ray_remote_args` is deprecated"),  # see ``stream``
]


@pytest.fixture(scope="module")
def cluster(embedded_home: Path) -> Iterator[None]:
    """A local Ray of two cores, whose workers have the settings of a node."""
    environment = {"env_vars": {"MLCORE_HOME": str(embedded_home)}}
    options = {"include_dashboard": False, "log_to_driver": False, "_node_ip_address": "127.0.0.1"}
    ray.init(address="local", num_cpus=2, runtime_env=environment, **options)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def system(db: DatabaseConnection) -> MLSystem:
    """A tenant with a model, and a dataset of several row groups, one row of which does not fit."""
    empty_queue(db)
    system = MLSystem(db, tenant_id=new_tenant(db))
    data = split_target(tickets(), "category")
    system.train_model("tickets", None, data, hyperparameters={"algorithm": "logistic_regression"})
    frame = tickets(1000, seed=2).assign(key=range(1000))
    frame.loc[777, "opened"] = "soon"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ml_core.data.table_file._GROUP_ROWS", 100)
        system.datasets.create("inbox", frame)
    return system


def done(db: DatabaseConnection, system: MLSystem, *, cpus: float, **options: object) -> Job:
    """A prediction after an attempt in this process."""
    job = system.jobs.predict("tickets", "inbox", "out", keep=["key"], cpus=cpus, **options)
    attempt = JobQueue(db).claim("d1", 2, 60)
    assert attempt is not None
    execution.execute(db, attempt)
    return system.jobs.get(job.job_id)


def test_actors_make_the_bytes_that_one_process_makes(db, cluster, system: MLSystem, monkeypatch) -> None:
    """In the order of the rows, probabilities included; the run says who predicted."""
    alone = done(db, system, cpus=2, proba=True, on_error="null")
    monkeypatch.setattr(predict, "_RAY_COSTS_S", -1.0)
    spread = done(db, system, cpus=2, proba=True, on_error="null")
    assert (alone.state, spread.state) == (JobState.SUCCEEDED, JobState.SUCCEEDED), (alone.error, spread.error)
    first, second = (system.datasets.get(job.result["dataset"]) for job in (alone, spread))
    assert (first.digest, first.row_count) == (second.digest, 1000)
    assert system.datasets.read(second.reference)["key"].tolist() == list(range(1000))
    said = [system.runs.get(str(job.run_id)).tags["predicted_by"] for job in (alone, spread)]
    assert said == ["the job's own process", "2 Ray actors"]
    run = system.runs.get(str(spread.run_id))
    assert (run.metrics["rows"].last_value, run.metrics["rows_with_error"].last_value) == (1000, 1)


def test_an_error_of_an_actor_is_the_error_of_the_job(db, cluster, system: MLSystem, monkeypatch) -> None:
    """With the row's number in the dataset."""
    monkeypatch.setattr(predict, "_RAY_COSTS_S", -1.0)
    failed = done(db, system, cpus=2)
    assert (failed.state, failed.error["code"]) == (JobState.FAILED, "signature_mismatch")
    assert failed.error["message"].startswith("Row 777 of inbox@1 does not fit: column 'opened' is 'soon'")
    assert failed.error["details"] == {"row": 777, "column": "opened"}


@pytest.mark.parametrize("deaths", [1, 100])
def test_a_killed_actor_is_replaced_within_a_bound(cluster, tmp_path: Path, deaths: int) -> None:
    """Its item is done again, and nothing is missing or doubled; what kills each one is an error."""
    # The actors of the test before end with its error, which refers to them.
    assert wait_until(lambda: gc.collect() >= 0 and free_workers(3) == 2, WITHIN_S)

    def make() -> Callable[[int], Iterator[pa.Table]]:
        def tables_of(item: int) -> Iterator[pa.Table]:
            yield pa.table({"item": [item], "part": [0]})
            if item == 3 and len(list(tmp_path.iterdir())) < deaths:
                (tmp_path / str(os.getpid())).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            yield pa.table({"item": [item], "part": [1]})

        return tables_of

    if deaths == 1:
        rows = pa.concat_tables(stream(make, range(6), 2)).to_pylist()
        assert rows == [{"item": item, "part": part} for item in range(6) for part in range(2)]
    else:
        with pytest.raises(PlatformError, match="submit the job with fewer cores"):
            list(stream(make, range(6), 2))
        assert len(list(tmp_path.iterdir())) <= 4
