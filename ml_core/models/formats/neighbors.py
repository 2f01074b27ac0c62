"""The search trees of neighbours: not stored, since their state can't be checked, but made again from their points."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sklearn.neighbors import BallTree, KDTree

_TREES = {"ball_tree": BallTree, "kd_tree": KDTree}


def rebuild_search_trees(estimators: Iterable[Any]) -> None:
    """Give each estimator over neighbours the tree that its ``fit`` made, in place."""
    for estimator in estimators:
        tree = _TREES.get(getattr(estimator, "_fit_method", ""))
        if tree is not None:
            parameters = estimator.effective_metric_params_
            estimator._tree = tree(
                estimator._fit_X, estimator.leaf_size, metric=estimator.effective_metric_, **parameters
            )
