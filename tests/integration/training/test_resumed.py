"""A job whose process is lost goes on from the checkpoint of the attempt before, with the same artifact."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from ml_core.domain.run import RunStatus
from ml_core.domain.train_spec import TrainSpec
from ml_core.ids import JobId
from ml_core.system import MLSystem
from ml_core.training import rounds
from ml_core.training.attempt import TrainingAttempt
from support.tables import tickets

SPEC: dict[str, Any] = {"dataset": "tickets", "target": "category"}
FOREST = {"algorithm": "random_forest", "n_estimators": 12}


class LostError(BaseException):
    """The process of the attempt is killed."""


@pytest.fixture
def system(db, tenant_id, monkeypatch):
    monkeypatch.setattr(rounds, "SLICE_S", 0.0)
    monkeypatch.setattr(rounds, "_SAVE_TIMES", 0)  # so that there is a checkpoint after each tree
    with MLSystem(db, tenant_id=tenant_id) as system:
        system.datasets.create("tickets", tickets(120))
        yield system


def lose_after(system: MLSystem, spec: TrainSpec, job_id: str, trees: int) -> str:
    """An attempt that is lost after so many trees; returns its run."""

    def told(done: int, _total: int) -> None:
        if done > trees:
            raise LostError

    with pytest.raises(LostError):
        system.trainer.train_spec("m", spec, TrainingAttempt(job_id=job_id, on_round=told))
    [run] = system.runs.search("m", parameters={"job": job_id}, limit=1).items
    assert run.status is RunStatus.FAILED
    return run.run_id


def finish(system: MLSystem, spec: TrainSpec, job_id: str) -> tuple[str, list[int]]:
    """The digest of an attempt that ends, and the trees that it had as it was told of them."""
    done: list[int] = []
    attempt = TrainingAttempt(job_id=job_id, on_round=lambda trees, _total: done.append(trees))
    report = system.trainer.train_spec("m", spec, attempt)
    return system.registry.get_model_version("m", report.version).servable.digest, done


def test_another_attempt_goes_on(system):
    """From the last tree that was stored; the checkpoints of all attempts are gone afterwards."""
    spec = TrainSpec(**SPEC, hyperparameters=FOREST)
    calm, trees = finish(system, spec, JobId.new())
    assert trees == list(range(1, 13))
    job_id = JobId.new()
    lost = [lose_after(system, spec, job_id, trees) for trees in (3, 7)]
    assert [len(system.runs.artifacts.list(run_id)) for run_id in lost] == [1, 1]
    digest, trees = finish(system, spec, job_id)
    assert trees == list(range(8, 13))
    assert digest == calm
    assert [len(system.runs.artifacts.list(run_id)) for run_id in lost] == [0, 0]


def test_another_job_begins_anew(system):
    """Also with the same specification, and another training of the job with other trees."""
    spec = TrainSpec(**SPEC, hyperparameters=FOREST)
    job_id = JobId.new()
    lose_after(system, spec, job_id, 3)
    assert finish(system, spec, JobId.new())[1][0] == 1
    other = TrainSpec(**SPEC, hyperparameters={**FOREST, "max_depth": 3})
    assert finish(system, other, job_id)[1][0] == 1


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", pickle.dumps(print)], ids=["empty", "cut", "pickle"])
def test_a_checkpoint_that_is_none_is_not_loaded(system, content):
    """A tenant may write files of its runs: what is no audited artifact is left, and the fit begins anew."""
    spec = TrainSpec(**SPEC, hyperparameters=FOREST)
    calm, _ = finish(system, spec, JobId.new())
    job_id = JobId.new()
    lost = lose_after(system, spec, job_id, 3)
    [kept] = system.runs.artifacts.list(lost)
    system.runs.artifacts.delete(lost, kept.name)
    with system.runs.record("m", kind="train", parameters={"job": job_id}) as run_id:
        system.runs.artifacts.log(run_id, kept.name, content)
    digest, trees = finish(system, spec, job_id)
    assert (digest, trees[0]) == (calm, 1)
