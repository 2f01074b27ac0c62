"""Trainings on the tasks of a real Ray cluster: they give what one process gives."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes
from threadpoolctl import threadpool_limits

from ml_core.data import table_file
from ml_core.domain.train_spec import TrainSpec
from ml_core.exceptions import PlatformError, TrainingError
from ml_core.ids import ModelId
from ml_core.models.formats import skops_format
from ml_core.registry.datasets import DatasetRepository
from ml_core.registry.runs import RunRepository
from ml_core.registry.versions.repository import VersionRepository
from ml_core.training import rounds, strategies
from ml_core.training.attempt import TrainingAttempt
from ml_core.training.distributed.cluster import joined
from ml_core.training.distributed.execution import execution_of
from ml_core.training.distributed.tasks import spread
from ml_core.training.fit import IN_PROCESS, FittedModel, fit_model
from ml_core.training.plan import GivenData, Planner
from ml_core.training.strategies import Strategy
from ml_core.training.trainer import Trainer
from support.registry import new_tenant
from support.tables import measures, tickets

CORES = 2
TOLERANCE = 1e-9


@pytest.fixture(scope="module", autouse=True)
def merging_pays() -> Iterator[None]:
    """As it does for a large table on many cores."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(strategies, "_SHARDED_TIMES", 0.0)
        yield


@pytest.fixture(scope="module")
def cluster(embedded_home) -> Iterator[None]:
    """A Ray node with two cores, to which nobody is connected."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("MLCORE_HOME", str(embedded_home))
        # Ray reads the variable when it is imported, which it is here and is not yet in a child.
        environment.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        environment.setattr("ray._private.ray_constants.ENABLE_RAY_CLUSTER", False)
        node = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": CORES, "include_dashboard": False},
        )
        environment.setenv("RAY_ADDRESS", node.address)
        yield
        node.shutdown()


@pytest.fixture(scope="module")
def own(db, cluster, tmp_path_factory):
    """A tenant with tables, whose row groups have few rows."""
    tenant_id, folder = new_tenant(db), tmp_path_factory.mktemp("tables")
    datasets = DatasetRepository(db, tenant_id)
    with pytest.MonkeyPatch.context() as small:
        small.setattr(table_file, "_GROUP_ROWS", 40)
        datasets.create("tickets", hostile(tickets(500)))
        datasets.create("measures", measures(300))
        datasets.create("equal", pd.concat([measures(20)] * 10, ignore_index=True))
        datasets.create("cancer", load_breast_cancer(as_frame=True).frame)
        datasets.create("diabetes", load_diabetes(as_frame=True).frame)
        datasets.create("mixed", measures(200).assign(m3=["1"] * 190 + ["1/2/2020"] * 10, bad=None))
        written = pd.DataFrame(
            {
                "price": [f"{i % 37},{i % 10}5" for i in range(300)],
                "sold": [f"{i % 28 + 1:02}.{i % 12 + 1:02}.2025" for i in range(300)],
                "note": [f"word{i % 11} and word{i % 7}" for i in range(300)],
                "kind": [("a", "b", "c")[i % 3] for i in range(300)],
            }
        )
        written.to_csv(folder / "cells.csv", sep=";", index=False)
        datasets.from_csv("cells", folder / "cells.csv")
    return tenant_id


def hostile(frame: pd.DataFrame) -> pd.DataFrame:
    """Missing targets, a rare class, equal rows, an identifier, and a column that is empty in whole shards."""
    frame = frame.assign(ticket_id=range(len(frame)), late=[None] * 250 + [1.5, None] * 125)
    frame.loc[[3, 77, 410], "category"] = None
    frame.loc[300, "category"] = "rare"
    return pd.concat([frame, frame.head(30)], ignore_index=True).assign(ticket_id=range(530))


class _Trees:
    """Checkpoints in memory, of a process that is lost once half of the trees are there."""

    def __init__(self) -> None:
        self.kept: Any = None
        self.done: list[int] = []

    def load(self, _key: str) -> Any:
        """What was saved last."""
        return self.kept

    def save(self, _key: str, estimator: Any) -> None:
        """A copy, which later trees don't change."""
        self.kept = copy.deepcopy(estimator)
        if len(estimator.estimators_) >= 10 and max(self.done) == 10:
            raise ConnectionError

    def advance(self, done: int, _total: int) -> None:
        """Trees that are there."""
        self.done.append(done)


def test_a_forest_whose_driver_is_lost_goes_on_from_its_trees(db, own, monkeypatch):
    """With tasks for the trees that lack, and the bytes of one that was not lost."""
    spec = TrainSpec(dataset="tickets@1", target="category", rare_classes="drop", hyperparameters={"n_estimators": 20})
    request = Planner(db, own).plan(ModelId("m"), spec, GivenData()).request
    monkeypatch.setattr(rounds, "SLICE_S", 0.0)
    monkeypatch.setattr(rounds, "_SAVE_TIMES", 0)
    trees = _Trees()
    with joined(CORES):
        with pytest.raises(TrainingError, match="ConnectionError"):
            fit_model(request, execution=execution_of(Strategy.FOREST_BY_TREES, CORES, trees))
        there = fit_model(request, execution=execution_of(Strategy.FOREST_BY_TREES, CORES, trees))
    assert trees.done == [5, 10, *sorted(trees.done[2:])]
    assert trees.done[2] > 10
    assert skops_format.dump(there.pipeline) == skops_format.dump(fit_model(request).pipeline)


def test_a_training_is_executed_as_planned(db, own):
    """From a dataset to a version of equal bytes; the run names the strategy."""
    spec = TrainSpec(dataset="tickets@1", target="category", rare_classes="drop", hyperparameters={"n_estimators": 7})
    trainer, versions = Trainer(db, own), VersionRepository(db, own)
    here, there = trainer.train_spec("here", spec), trainer.train_spec("there", spec, TrainingAttempt(cores=CORES))
    assert versions.get("here", here.version).digest == versions.get("there", there.version).digest
    assert (here.notes, here.metrics) == (there.notes, there.metrics)
    assert RunRepository(db, own).get(there.run_id).parameters["strategy"] == "forest_by_trees"


def test_a_selection_is_the_same_in_tasks(db, own):
    """Equal scores, and a version of equal bytes; the run has the algorithm as a tag."""
    spec = TrainSpec(dataset="measures@1", target="outcome")
    trainer, versions = Trainer(db, own), VersionRepository(db, own)
    here, there = (
        trainer.train_spec("selected", spec),
        trainer.train_spec("selected", spec, TrainingAttempt(cores=CORES)),
    )
    assert here.selection == there.selection
    assert len(there.selection["candidates"]) == 4
    digests = {versions.get("selected", each.version).digest for each in (here, there)}
    assert len(digests) == 1
    run = RunRepository(db, own).get(there.run_id)
    assert (run.parameters["strategy"], run.parameters["algorithm"]) == ("one_task", "auto")
    assert run.tags["algorithm"] == there.algorithm


def test_a_task_without_memory_is_one_of_many(cluster):
    """The others have their results."""

    def work(number: int) -> int:
        if number == 1:
            raise MemoryError
        return number * 10

    with joined(CORES):
        found = spread(work, [(0,), (1,), (2,)])
    assert (found[0], found[2]) == (0, 20)
    assert isinstance(found[1], MemoryError)


def test_a_cluster_that_is_too_small_is_an_error(db, own):
    """It says what is missing, and nothing waits."""
    spec = TrainSpec(dataset="measures@1", target="outcome")
    with pytest.raises(PlatformError, match=r"given 5 cores; the Ray cluster has 2, so 3 are missing\. Add nodes"):
        Trainer(db, own).train_spec("few", spec, TrainingAttempt(cores=5))


@pytest.fixture(scope="module")
def both(db, own) -> Iterator[Callable[..., tuple[FittedModel, FittedModel]]]:
    """Fits a spec in this process and by its strategy. What connects itself is tested before."""

    def fit(strategy: Strategy, **spec) -> tuple[FittedModel, FittedModel]:
        planner, given, planned = Planner(db, own), GivenData(), TrainSpec.from_json(spec)
        here, there = (planner.plan(ModelId("m"), planned, given, cores) for cores in (1, CORES))
        assert there.strategy is strategy
        with threadpool_limits(1):  # as in Trainer
            alone = fit_model(here.request)
        return alone, fit_model(there.request, execution=execution_of(strategy, CORES))

    with joined(CORES):
        yield fit


FOREST, ONE_TASK, MERGE = Strategy.FOREST_BY_TREES, Strategy.ONE_TASK, Strategy.EXACT_MERGE
TICKETS = {"dataset": "tickets@1", "target": "category", "rare_classes": "merge:bug"}
NUMBERS = {"dataset": "measures@1", "target": "outcome"}


@pytest.mark.parametrize(
    ("strategy", "spec", "hyperparameters"),
    [
        (FOREST, TICKETS, {"n_estimators": 9, "class_weight": "balanced"}),
        (FOREST, NUMBERS, {"n_estimators": 3}),
        (FOREST, NUMBERS, {"algorithm": "extra_trees", "n_estimators": 6, "n_jobs": 2}),
        (FOREST, NUMBERS, {"n_estimators": 8, "class_weight": "balanced_subsample", "max_samples": 0.5}),
        (FOREST, {**NUMBERS, "target": "m3"}, {"n_estimators": 6, "max_features": 0.5}),
        (ONE_TASK, TICKETS, {"algorithm": "logistic_regression", "max_iter": 2}),
        (ONE_TASK, NUMBERS, {"algorithm": "gradient_boosting", "max_iter": 5}),
        (ONE_TASK, NUMBERS, {"n_estimators": 6, "oob_score": True}),
        (ONE_TASK, TICKETS, {"algorithm": "lightgbm", "n_estimators": 5}),
    ],
)
def test_tasks_fit_equal_bytes(both, strategy, spec, hyperparameters):
    """Dense and sparse features, classes and numbers, weights; with the same notes, such as of no convergence."""
    here, there = both(strategy, **spec, hyperparameters=hyperparameters)
    assert skops_format.dump(here.pipeline) == skops_format.dump(there.pipeline)
    assert facts(here) == facts(there)


@pytest.mark.parametrize(
    ("spec", "hyperparameters"),
    [
        (TICKETS, {"algorithm": "naive_bayes"}),
        ({**TICKETS, "ignore": ["subject"], "kinds": {"minutes_open": "category"}}, {"algorithm": "ridge"}),
        ({"dataset": "equal@1", "target": "outcome"}, {"algorithm": "naive_bayes"}),
        ({"dataset": "cells@1", "target": "kind"}, {"algorithm": "naive_bayes"}),
        ({"dataset": "cells@1", "target": "price", "ignore": ["note"]}, {"algorithm": "ridge"}),
        ({"dataset": "cancer@1", "target": "target"}, {"algorithm": "naive_bayes"}),
        ({"dataset": "cancer@1", "target": "target"}, {"algorithm": "ridge", "alpha": 0.5}),
        ({"dataset": "diabetes@1", "target": "target"}, {"algorithm": "ridge"}),
    ],
)
def test_merged_shards_fit_what_one_process_fits(both, spec, hyperparameters):
    """The data, the split and the encoding exactly, the estimator's numbers within the tolerance."""
    here, there = both(MERGE, **spec, hyperparameters=hyperparameters)
    encoders = [skops_format.dump(each.pipeline[:1]) for each in (here, there)]
    assert encoders[0] == encoders[1]
    assert facts(here, numbers=False) == facts(there, numbers=False)
    assert here.metrics.keys() == there.metrics.keys()
    for part, metrics in here.metrics.items():
        assert there.metrics[part] == pytest.approx(metrics, rel=1e-6, abs=1e-6)
    whole, merged = vars(here.pipeline[-1]), vars(there.pipeline[-1])
    assert list(whole) == list(merged)
    for name in ("theta_", "var_", "class_prior_", "coef_", "intercept_"):
        if name in whole:
            largest = np.abs(whole[name]).max()
            np.testing.assert_allclose(merged[name], whole[name], rtol=TOLERANCE, atol=TOLERANCE * largest)


@pytest.mark.parametrize(
    "spec",
    [
        {"dataset": "mixed@1", "target": "outcome"},
        {"dataset": "mixed@1", "target": "outcome", "ignore": ["bad"], "kinds": {"m3": "number"}},
        {"dataset": "tickets@1", "target": "category"},
        {"dataset": "measures@1", "target": "m1", "model_type": "classification"},
        {"dataset": "tickets@1", "target": "ticket_id", "model_type": "classification"},
    ],
)
def test_data_that_can_not_train_is_refused_in_the_same_words(both, db, own, spec):
    """A bad column, a value of another kind with the number of its row, a class with one row."""
    errors = []
    for cores in (1, CORES):
        hyperparameters = {"algorithm": "naive_bayes"}
        planned = TrainSpec.from_json({**spec, "hyperparameters": hyperparameters})
        plan = Planner(db, own).plan(ModelId("m"), planned, GivenData(), cores)
        execution = IN_PROCESS if cores == 1 else execution_of(plan.strategy, CORES)
        with pytest.raises(TrainingError) as caught:
            fit_model(plan.request, execution=execution)
        errors.append((str(caught.value), caught.value.attributes()))
    assert errors[0] == errors[1]


def facts(fitted: FittedModel, *, numbers: bool = True) -> FittedModel:
    """What a version records of a model, without the pipeline; without what its last digits decide, too."""
    plain = replace(fitted, pipeline=None, duration_s=0.0, held_out={})
    if numbers:
        return plain
    rows_only = replace(plain.self_test, predictions=(), probabilities=())
    # No process holds the rows of shards: the profile of their dataset is that of the training.
    return replace(plain, metrics={}, self_test=rows_only, notes=(), diagnostics=None, profile=None)
