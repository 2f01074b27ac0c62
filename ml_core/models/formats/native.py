"""Bounds of the numbers that compiled code follows without looking.

scikit-learn's trees are arrays of child and feature numbers, and its C code trusts them: a crafted artifact of allowed
types only would read outside of its arrays, or never return (scikit-learn pull request 34558). Every such number is
checked once, when the artifact is loaded.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml_core.exceptions import UnsafeArtifactError

_LEAF = -1
_MAX_THREADS = 1_024  # more than the cores of any machine that trained it
_FORESTS = frozenset({"ExtraTreesClassifier", "ExtraTreesRegressor", "RandomForestClassifier", "RandomForestRegressor"})


def check_native(estimators: Iterable[Any]) -> None:
    """Check every estimator of the platform's list that answers through compiled code.

    A type that the caller's own process vouches for besides is the caller's affair.

    Args:
        estimators: All estimators of a pipeline, nested ones included.

    Raises:
        UnsafeArtifactError: A number lies outside of the array that it points into.
    """
    for estimator in estimators:
        kind = type(estimator).__name__
        if hasattr(estimator, "tree_"):
            _check_tree(estimator)
        elif hasattr(estimator, "_predictors"):
            _check_histogram_trees(estimator)
        elif kind == "IsolationForest":
            _check_widths(estimator.estimators_, int(estimator._max_features), kind)
            features = [len(columns) for columns in estimator.estimators_features_]
            _require(set(features) == {int(estimator._max_features)}, kind)
            _require(len(features) == len(estimator.estimators_), kind)
        elif kind in _FORESTS:
            _check_widths(estimator.estimators_, int(estimator.n_features_in_), kind)
        elif hasattr(estimator, "cluster_centers_"):
            # OpenMP ends the process when it can't start the threads that it is asked for.
            _require(1 <= int(estimator._n_threads) <= _MAX_THREADS, kind)
            centers = estimator.cluster_centers_
            _require(centers.ndim == 2 and centers.shape[1] == estimator.n_features_in_ and len(centers) > 0, kind)


def _check_widths(members: Iterable[Any], n_features: int, kind: str) -> None:
    """Every member of an ensemble is a tree for exactly as many features as the ensemble hands on, unchecked."""
    for member in members:
        _require(hasattr(member, "tree_") and member.n_features_in_ == n_features, kind)


def _check_tree(estimator: Any) -> None:
    tree = estimator.tree_
    _require(tree.n_features == estimator.n_features_in_, "Tree")
    left, right = tree.children_left, tree.children_right
    inner = left != _LEAF
    _check_children(left[inner], right[inner], np.flatnonzero(inner), tree.node_count, "Tree")
    _require(_within(tree.feature[inner], tree.n_features), "Tree")


def _check_histogram_trees(estimator: Any) -> None:
    kind = type(estimator).__name__
    n_features = int(estimator.n_features_in_)
    categorical = np.asarray(estimator._bin_mapper.is_categorical_, dtype=bool)
    _require(categorical.shape == (n_features,), kind)
    for iteration in estimator._predictors:
        _require(len(iteration) <= estimator.n_trees_per_iteration_, kind)
        for predictor in iteration:
            nodes = predictor.nodes
            inner = nodes["is_leaf"] == 0
            split = nodes[inner]
            _check_children(split["left"], split["right"], np.flatnonzero(inner), len(nodes), kind)
            _require(_within(split["feature_idx"], n_features), kind)
            by_category = split[split["is_categorical"] != 0]
            if len(by_category):
                sets = predictor.raw_left_cat_bitsets
                _require(sets.ndim == 2 and sets.shape[1] == 8, kind)
                _require(_within(by_category["bitset_idx"], len(sets)), kind)
                _require(bool(categorical[by_category["feature_idx"]].all()), kind)


def _check_children(
    left: NDArray[Any], right: NDArray[Any], parents: NDArray[np.intp], n_nodes: int, kind: str
) -> None:
    """Children come after their parent, as every grower writes them: so a walk down ends."""
    _require(n_nodes > 0, kind)
    for child in (left, right):
        _require(_within(child, n_nodes) and bool((child > parents).all()), kind)


def _within(numbers: NDArray[Any], bound: int) -> bool:
    return not len(numbers) or (int(numbers.min()) >= 0 and int(numbers.max()) < bound)


def _require(holds: bool, kind: str) -> None:
    if not holds:
        raise UnsafeArtifactError(
            f"The artifact's {kind} points outside of its own arrays; using it could crash the process.",
            remedy="Restore it from a backup, or train and register the model again.",
            types=[kind],
        )
