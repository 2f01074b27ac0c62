"""LightGBM through Ray Train on a cluster of two nodes: what one process fits, whatever becomes of a worker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_diabetes
from threadpoolctl import threadpool_limits

from ml_core.data import table_file
from ml_core.domain.train_spec import TrainSpec
from ml_core.exceptions import TrainingError
from ml_core.ids import ModelId
from ml_core.models.formats import skops_format
from ml_core.registry.datasets import DatasetRepository
from ml_core.training import strategies
from ml_core.training.distributed import cluster
from ml_core.training.fit import FittedModel, fit_model
from ml_core.training.plan import GivenData, Planner, TrainingPlan
from ml_core.training.request import TrainingRequest
from ml_core.training.strategies import Strategy
from support.registry import new_tenant
from support.tables import tickets
from support.two_nodes import NODES, fitted_on_two_nodes, is_possible

pytestmark = [
    pytest.mark.timeout(600),  # three trainings, and a node that is missed and found again
    pytest.mark.skipif(not is_possible(), reason="LightGBM listens on all interfaces; no network namespace to be had"),
]
ROUNDS = 150
STOPPING = {"n_estimators": 400, "early_stopping_rounds": 10, "validation_fraction": 0.2, "class_weight": "balanced"}
SPECS = {
    # Workers estimate how many rows a leaf has where these do not weigh the same.
    "classes": ("tickets@1", "category", {**STOPPING, "min_child_samples": 1}),
    "refused": ("diabetes@1", "target", {}),
    "killed": ("diabetes@1", "target", {"n_estimators": ROUNDS}),  # the last one, as its cluster loses a node
}
TOLERANCE = 1e-6


@pytest.fixture(scope="module")
def plan(db):
    """Plans one of the specs for so many cores of two nodes."""
    tenant_id = new_tenant(db)
    datasets, planner = DatasetRepository(db, tenant_id), Planner(db, tenant_id)

    def plan(name: str, cores: float) -> TrainingPlan:
        dataset, target, hyperparameters = SPECS[name]
        of_lightgbm = {"algorithm": "lightgbm", **hyperparameters}
        spec = TrainSpec(dataset=dataset, target=target, hyperparameters=of_lightgbm)
        return planner.plan(ModelId("m"), spec, GivenData(), cores)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(table_file, "_GROUP_ROWS", 40)
        # Sorted, so that workers have rows of other classes, as far as possible.
        datasets.create("diabetes", load_diabetes(as_frame=True).frame.sort_values("target", ignore_index=True))
        datasets.create("tickets", tickets(500).sort_values("category", ignore_index=True))
        patched.setattr(cluster, "node_cores", lambda: NODES)
        patched.setattr(strategies, "_TRAIN_S", -60.0)  # or no small table would be worth it
        yield plan


@pytest.fixture(scope="module")
def found(plan, embedded_home, tmp_path_factory) -> dict[str, Any]:
    """What the cluster gave, see ``support.two_nodes``."""
    requests: dict[str, TrainingRequest] = {}
    for name in SPECS:
        planned = plan(name, cores=2)
        assert planned.strategy is Strategy.LIGHTGBM_ON_RAY_TRAIN
        requests[name] = planned.request
    return fitted_on_two_nodes(requests, embedded_home, tmp_path_factory.mktemp("two"))


def test_the_choice_knows_the_nodes(found):
    """Those that the driver of a job sees."""
    assert found["nodes"] == NODES


@pytest.fixture(scope="module")
def alone(plan) -> Callable[[str], FittedModel]:
    """What one process fits."""

    def fit(name: str) -> FittedModel:
        with threadpool_limits(1):  # as in Trainer
            return fit_model(plan(name, cores=1).request)

    return fit


@pytest.mark.parametrize("name", ["classes", "killed"])
def test_two_workers_fit_what_one_process_fits(found, plan, alone, name):
    """The encoding and the facts exactly, the answers within a relative 1e-6: of classes, and of numbers after a loss.

    The classes are weighted, their features sparse, and early stopping keeps as many rounds.
    """
    one, two = alone(name), found[name]
    assert isinstance(two, FittedModel), two
    assert skops_format.dump(two.pipeline[:1]) == skops_format.dump(one.pipeline[:1])
    assert facts(two) == facts(one)
    assert len(trees(two)) == len(trees(one))
    X, _ = plan(name, cores=1).request.training_data
    answer = "predict_proba" if name == "classes" else "predict"
    answers = [np.asarray(getattr(each.pipeline, answer)(X)) for each in (one, two)]
    np.testing.assert_allclose(answers[1], answers[0], rtol=TOLERANCE)


def test_the_artifact_has_the_same_safe_form(found, plan):
    """A server loads it, and it answers the same."""
    pipeline = found["classes"].pipeline
    X, _ = plan("classes", cores=1).request.training_data
    loaded = skops_format.load(skops_format.dump(pipeline))
    np.testing.assert_array_equal(loaded.predict_proba(X), pipeline.predict_proba(X))


def test_a_killed_worker_or_node_costs_the_rounds_since_a_checkpoint(found):
    """The others go on from there: the rounds never go back, and the trees are all there."""
    assert 3 <= found["round"] < ROUNDS
    assert found["rounds"] == sorted(found["rounds"])
    assert found["rounds"][-1] == ROUNDS
    assert len(trees(found["killed"])) == ROUNDS


def test_workers_are_elastic(found):
    """Both again after one was killed, one while a node is away, and both when there is another node."""
    assert [group.partition("@")[0] for group in found["sizes"].split()] == ["2", "2", "1", "2"]


def test_the_ports_of_lightgbm_are_closed_once_the_workers_are_connected(found):
    """What Ray's workers listen on is the loopback interface, which the cluster of this test was told to use."""
    assert found["connected"] > 0
    assert found["listening"] <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}


def test_an_error_of_the_fit_is_not_tried_again(found):
    """It is raised as the worker raised it, while the other waited for the connection; each was started once."""
    error = found["refused"]
    assert isinstance(error, TrainingError)
    assert "no such target" in str(error)
    assert sorted(found["workers"].split()) == ["0", "1"]


def test_what_ray_train_notes_is_closed_to_others_and_removed(found):
    """No state of it is left that somebody could read or change."""
    assert found["modes"] == [0o700]
    assert found["left"] == []


def trees(fitted: FittedModel) -> list[str]:
    """The text of each tree."""
    text: str = fitted.pipeline[-1]._booster.model_to_string()
    return text.partition("\nend of trees")[0].split("\nTree=")[1:]


def facts(fitted: FittedModel) -> FittedModel:
    """What a version records of a model, without what the last digits decide."""
    rows_only = replace(fitted.self_test, predictions=(), probabilities=())
    # No process holds the rows of shards: the profile of their dataset is that of the training.
    measured: dict[str, Any] = {"metrics": {}, "notes": (), "diagnostics": None, "curves": {}, "profile": None}
    return replace(fitted, pipeline=None, duration_s=0.0, self_test=rows_only, held_out={}, **measured)
