"""The size of a forest is known before it is grown."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.pipeline import Pipeline

from ml_core.exceptions import TrainingError
from ml_core.models.model_factory import ModelFactory
from ml_core.training import forest_size
from ml_core.training.forest_size import check_size, most_bytes

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(400, 3))


def bytes_of(forest: Any) -> int:
    """Of the arrays of the trees."""
    trees = [each.tree_ for each in forest.estimators_]
    return sum(tree.__getstate__()["nodes"].nbytes + tree.value.nbytes for tree in trees)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_no_forest_is_larger_than_its_bound(data: st.DataObject) -> None:
    """On noise, of which trees grow largest."""
    algorithm = data.draw(st.sampled_from(["random_forest", "extra_trees"]))
    given_ = {
        "min_samples_leaf": data.draw(st.sampled_from([1, 2, 7, 0.01, 0.2])),
        "max_depth": data.draw(st.sampled_from([None, 1, 4])),
        "max_leaf_nodes": data.draw(st.sampled_from([None, 2, 9])),
        "n_estimators": data.draw(st.integers(1, 4)),
    }
    n_classes = data.draw(st.integers(1, 20))
    model_type = "classification" if n_classes > 1 else "regression"
    y = RANDOM.integers(0, n_classes, len(X)) if n_classes > 1 else RANDOM.normal(size=len(X))
    forest = ModelFactory.create_model(model_type, {"algorithm": algorithm, **given_}).fit(X, y)
    assert bytes_of(forest) <= most_bytes(forest, len(X), max(1, len(np.unique(y)) if n_classes > 1 else 1))


def test_what_is_no_forest_has_no_bound() -> None:
    """Others grow by their rounds or features."""
    assert most_bytes(ModelFactory.create_model("classification", {"algorithm": "gradient_boosting"}), 10**9, 9) == 0


def test_a_forest_that_no_server_unpacks_is_refused_before_it_is_grown(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its first tree, with values that would do; one that only might be too large is grown."""
    y = RANDOM.integers(0, 50, len(X))
    forest = ModelFactory.create_model("classification", {"n_estimators": 40})
    grown = bytes_of(ModelFactory.create_model("classification", {"n_estimators": 40}).fit(X, y))
    pipeline = Pipeline([("same", "passthrough"), ("estimate", forest)])
    monkeypatch.setattr(forest_size, "MAX_UNPACKED_BYTES", int(grown * 1.2))
    check_size(pipeline, X, y)
    monkeypatch.setattr(forest_size, "MAX_UNPACKED_BYTES", grown // 3)
    with pytest.raises(TrainingError, match=r"would take about .* GiB") as caught:
        check_size(pipeline, X, y)
    remedy = str(caught.value.remedy)
    for name in ("min_samples_leaf", "n_estimators"):
        value = int(remedy.partition(f"{name}=")[2].split(",")[0].rstrip("."))
        smaller = ModelFactory.create_model("classification", {"n_estimators": 40, name: value})
        assert bytes_of(smaller.fit(X, y)) <= grown // 3, name
    assert not hasattr(forest, "estimators_")
