"""How large the artifact of a forest will be, before it is grown."""

from __future__ import annotations

import math
import warnings
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone, is_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor, RandomForestClassifier, RandomForestRegressor
from sklearn.pipeline import Pipeline

from ml_core.models.formats.archive import MAX_UNPACKED_BYTES
from ml_core.training.targets import invalid

FORESTS = (RandomForestClassifier, RandomForestRegressor, ExtraTreesClassifier, ExtraTreesRegressor)
_NODE_BYTES, _VALUE_BYTES = 64, 8
"""Of ``sklearn.tree._tree.Tree``: a node, and its value of each class, or of the number."""
_NO_CHILD = -1
_SPARE = 0.9  # other trees may be larger than the first one


def most_bytes(estimator: Any, n_rows: int, n_classes: int) -> float:
    """A bound on the bytes of all trees; 0 for what is no forest.

    Args:
        estimator: Unfitted.
        n_rows: That it will be fitted on.
        n_classes: 1 for numbers.
    """
    if not isinstance(estimator, FORESTS):
        return 0.0
    own = estimator.get_params(deep=False)
    least = own["min_samples_leaf"]
    leaves = n_rows / (least if isinstance(least, Integral) else max(1.0, math.ceil(least * n_rows)))
    bounds = (own["max_leaf_nodes"], None if own["max_depth"] is None else 2.0 ** min(own["max_depth"], 64))
    leaves = min([leaves, *(bound for bound in bounds if bound is not None)])
    return float(own["n_estimators"] * 2 * leaves * _bytes_of_node(n_classes))


def check_size(pipeline: Pipeline, columns: Any, target: NDArray[Any] | None) -> None:
    """Refuse a forest that would be larger than what a server unpacks, by its first tree.

    A tree is grown only where the bound of ``most_bytes`` is above that.

    Args:
        pipeline: Unfitted; a forest is its last step, perhaps with a calibration, or there is none.
        columns: ``(n_rows, n_columns)``, what the pipeline is fitted on.
        target: ``(n_rows,)``; None: it has none.

    Raises:
        TrainingError: It would be; names values of ``min_samples_leaf`` and ``n_estimators`` that would do.
    """
    estimator = pipeline[-1]
    forest = estimator.estimator if isinstance(estimator, CalibratedClassifierCV) else estimator
    if not isinstance(forest, FORESTS) or target is None:
        return
    n_classes = len(np.unique(target)) if is_classifier(forest) else 1
    if most_bytes(forest, len(target), n_classes) <= MAX_UNPACKED_BYTES:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the fit gives its own
        features = clone(pipeline[:-1]).fit_transform(columns, target)
        tree = clone(forest).set_params(n_estimators=1).fit(features, target).estimators_[0].tree_
    n_bytes = tree.node_count * _bytes_of_node(n_classes)
    expected = forest.n_estimators * n_bytes
    if expected > MAX_UNPACKED_BYTES:
        of_leaf = float(tree.n_node_samples[tree.children_left == _NO_CHILD].mean())
        least = math.ceil(2 * of_leaf * expected / MAX_UNPACKED_BYTES)
        raise invalid(
            f"The forest would take about {expected / 2**30:,.1f} GiB; a server unpacks "
            f"{MAX_UNPACKED_BYTES / 2**30:,.0f}.",
            f"Use min_samples_leaf={least}, or n_estimators={max(1, int(_SPARE * MAX_UNPACKED_BYTES / n_bytes))}.",
        )


def _bytes_of_node(n_classes: int) -> int:
    return _NODE_BYTES + _VALUE_BYTES * n_classes
