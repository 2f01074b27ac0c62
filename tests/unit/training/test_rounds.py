"""A fit that is lost goes on from its last checkpoint, and ends as if it had not been."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import HistGradientBoostingRegressor, IsolationForest, RandomForestClassifier
from sklearn.pipeline import Pipeline

from ml_core.domain.signature import OutputKind
from ml_core.ids import ModelId
from ml_core.models.formats import skops_format
from ml_core.training import rounds as rounds_module
from ml_core.training.pipelines import fit_pipeline, pipeline_of
from ml_core.training.request import TrainingRequest
from ml_core.training.rounds import fit_in_rounds, key_of, rounds_of
from ml_core.training.table import TrainingTable, read_training_table


class LostError(Exception):
    """The process is killed."""


class Memory:
    """Checkpoints as they are stored; the process is killed as so many were written."""

    def __init__(self, kills: int) -> None:
        self.kills = kills
        self.stored: dict[str, bytes] = {}
        self.done: list[int] = []

    def load(self, key: str) -> Any:
        """What was saved last."""
        return skops_format.load(self.stored[key])[-1] if key in self.stored else None

    def save(self, key: str, estimator: Any) -> None:
        """As a file of a run."""
        self.stored[key] = skops_format.dump(Pipeline([("estimate", estimator)]))
        if self.kills:
            self.kills -= 1
            raise LostError

    def advance(self, done: int, total: int) -> None:
        """For the progress of a job."""
        assert done <= total
        self.done.append(done)


def read(model_type: str, hyperparameters: dict[str, Any], seed: int = 0) -> tuple[TrainingRequest, TrainingTable]:
    """A table of numbers and texts, read for a training."""
    random = np.random.default_rng(seed)
    X = pd.DataFrame({"a": random.normal(size=200), "b": random.normal(size=200), "weight": random.random(200)})
    X["c"] = random.choice(["x", "y", None], 200)
    score = X["a"] + random.normal(size=200)
    y = pd.cut(score, 3, labels=["low", "mid", "high"]).astype(str) if model_type == "classification" else score
    request = TrainingRequest(ModelId("m"), model_type, (X, y), hyperparameters=hyperparameters, weight="weight")
    output = OutputKind.CLASSES if model_type == "classification" else OutputKind.NUMBER
    return request, read_training_table(request, output)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["random_forest", "extra_trees", "gradient_boosting"]),
    st.sampled_from(["classification", "regression"]),
    st.integers(1, 25),
    st.integers(0, 4),
    st.integers(0, 2**16),
)
def test_a_resumed_fit_has_the_bytes_of_one_that_was_not_lost(
    algorithm: str, model_type: str, rounds: int, kills: int, seed: int
) -> None:
    """However often it is lost, with weights of rows and of classes; no round is repeated after a checkpoint."""
    count = "max_iter" if algorithm == "gradient_boosting" else "n_estimators"
    hyperparameters = {"algorithm": algorithm, count: rounds}
    if model_type == "classification":
        hyperparameters["class_weight"] = "balanced"
    request, table = read(model_type, hyperparameters, seed)
    output = OutputKind.CLASSES if model_type == "classification" else OutputKind.NUMBER
    rows = (table.train.columns, table.train.target, table.train.weights)
    calm = pipeline_of(request, hyperparameters, table, output)
    fit_pipeline(calm, *rows)
    memory = Memory(kills)
    for _ in range(kills + 1):
        pipeline = pipeline_of(request, hyperparameters, table, output)
        try:
            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(rounds_module, "SLICE_S", 0.0)
                fit_in_rounds(pipeline, *rows, checkpoints=memory)
            break
        except LostError:
            continue
    assert skops_format.dump(pipeline) == skops_format.dump(calm)
    assert memory.done == sorted(set(memory.done))
    assert memory.done[-1] == rounds


@pytest.mark.parametrize(
    ("estimator", "n_rows"),
    [
        (HistGradientBoostingRegressor(max_features=0.5), 100),
        (HistGradientBoostingRegressor(early_stopping=True), 100),
        (HistGradientBoostingRegressor(), 10_001),
        (RandomForestClassifier(oob_score=True), 100),
        (RandomForestClassifier(warm_start=True), 100),
        (IsolationForest(), 100),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_would_end_otherwise_is_fitted_in_one_go(estimator: Any, n_rows: int) -> None:
    """Random numbers or a stop that depend on all rounds."""
    assert rounds_of(estimator, n_rows) is None


def test_a_checkpoint_of_another_training_is_not_taken() -> None:
    """Other hyperparameters, or another encoding, have another key; the same have the same one."""
    request, table = read("classification", {})
    keys = [
        key_of(pipeline_of(request, {"algorithm": "random_forest", **more}, table, OutputKind.CLASSES))
        for more in ({}, {}, {"max_depth": 3}, {"class_weight": {"low": 2.0}})
    ]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3
