"""Which estimators have exact contributions of encoded features, and how their state gives them.

Other estimators, and pipelines with other steps than the platform's encoder, are explained by sampling.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml_core.domain.explanation import Method, Unit
from ml_core.evaluation.tree_shap import Tree, TreeShap

_LINEAR = {
    "LogisticRegression": Unit.LOG_ODDS,
    "LinearSVC": Unit.DECISION,
    "RidgeClassifier": Unit.DECISION,
    **dict.fromkeys(("LinearRegression", "Ridge", "Lasso", "ElasticNet", "LinearSVR"), Unit.TARGET),
}
_FORESTS = {"RandomForest", "ExtraTrees"}
_SINGLE = {"DecisionTree", "ExtraTree"}
_LOG_LINKS = ("poisson", "gamma")
_LEAF = -1


@dataclass(frozen=True, slots=True)
class Exact:
    """Scores as a sum over encoded features.

    Attributes:
        base: ``(n_scores,)``.
        contributions: Takes dense rows ``(n_rows, n_features)``, gives ``(n_features, n_rows, n_scores)``.
        work_per_row: Elementary operations for a row, about.
    """

    method: Method
    unit: Unit
    base: NDArray[np.float64]
    contributions: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    work_per_row: int


def exact(estimator: Any, reference: NDArray[np.float64]) -> Exact | None:
    """The exact contributions to an estimator's scores; None for an estimator whose structure is not known.

    A classifier of two classes has one score, of the second class.

    Args:
        estimator: Fitted, the last step of a pipeline.
        reference: ``(n_features,)`` what a linear model's features are compared with.

    Raises:
        ValueError: The nodes of an ensemble are not trees, or too deep, see ``TreeShap``.
    """
    name, library = type(estimator).__name__, type(estimator).__module__
    if library == "ml_core.models.lightgbm_estimators":
        return _of_lightgbm(estimator)
    if not library.startswith("sklearn."):
        return None
    if name in _LINEAR:
        return _linear(estimator, _LINEAR[name], reference)
    if name.startswith("HistGradientBoosting"):
        return _of_boosting(estimator)
    family, kind = name.removesuffix("Classifier"), name.removesuffix("Regressor")
    if family in _FORESTS or kind in _FORESTS:
        return _of_trees(estimator.estimators_, is_classifier=family != name)
    if family in _SINGLE or kind in _SINGLE:
        return _of_trees([estimator], is_classifier=family != name)
    return None


def _linear(estimator: Any, unit: Unit, reference: NDArray[np.float64]) -> Exact:
    """``w · (x - reference)``: the Shapley values of a linear model of independent features."""
    weights = np.atleast_2d(np.asarray(estimator.coef_, dtype=np.float64))
    base = weights @ reference + np.asarray(estimator.intercept_, dtype=np.float64)

    def contributions(X: NDArray[np.float64]) -> NDArray[np.float64]:
        return (X - reference).T[:, :, None] * weights.T[:, None, :]

    return Exact(Method.LINEAR, _of_classes(unit, len(weights)), base, contributions, weights.size)


def _of_trees(estimators: Sequence[Any], *, is_classifier: bool) -> Exact | None:
    """The mean of trees: a probability, or a number."""
    states = [estimator.tree_.__getstate__() for estimator in estimators]
    first_score = 1 if is_classifier and states[0]["values"].shape[2] == 2 else 0
    trees = [
        Tree(
            nodes["left_child"],
            nodes["right_child"],
            nodes["feature"],
            nodes["threshold"],
            nodes["weighted_n_node_samples"],
            state["values"][:, 0, first_score:] / len(estimators),
        )
        for state in states
        for nodes in (state["nodes"],)
    ]
    shap = TreeShap(trees, int(estimators[0].n_features_in_), np.float32)
    return _of_sums([shap], Unit.PROBABILITY if is_classifier else Unit.TARGET)


def _of_boosting(estimator: Any) -> Exact | None:
    """The sum of trees that histogram gradient boosting adds up: log-odds, logits or a number.

    None if a tree splits by sets of categories, which a hyperparameter can ask for.
    """
    per_score: list[list[Tree]] = [[] for _ in range(estimator.n_trees_per_iteration_)]
    for iteration in estimator._predictors:
        for score, predictor in zip(per_score, iteration, strict=True):
            nodes = predictor.nodes
            if nodes["is_categorical"].any():
                return None
            is_leaf = nodes["is_leaf"] != 0
            left, right = (np.where(is_leaf, _LEAF, nodes[side].astype(np.intp)) for side in ("left", "right"))
            of_leaves = (nodes["count"].astype(np.float64), nodes["value"][:, None])
            score.append(Tree(left, right, nodes["feature_idx"], nodes["num_threshold"], *of_leaves))
    unit = Unit.LOG_TARGET if estimator.loss in _LOG_LINKS else Unit.TARGET
    if hasattr(estimator, "classes_"):
        unit = _of_classes(Unit.LOG_ODDS, len(per_score))
    return _of_sums(
        [TreeShap(trees, estimator.n_features_in_) for trees in per_score], unit, estimator._baseline_prediction
    )


def _of_lightgbm(estimator: Any) -> Exact | None:
    """The sum of LightGBM's trees: log-odds, logits or a number.

    None if the model is of a text without counts, splits by sets of categories, or takes zeros for missing.
    """
    trees: list[Tree] = []
    for fields in estimator.trees():
        kinds, n_leaves = fields["decision_type"].astype(np.intp), len(fields["leaf_value"])
        if (n_leaves > 1 and not fields["leaf_count"].any()) or (kinds & 1).any() or (kinds >> 2 == 1).any():
            return None
        no_leaf, leaves = np.zeros(n_leaves), np.full(n_leaves, _LEAF)
        # Inner nodes are numbered from 0, and leaves from ~0 down; here the leaves follow the inner nodes.
        left, right = (
            np.where(numbers < 0, n_leaves - 1 + ~numbers, numbers)
            for numbers in (fields[key].astype(np.intp) for key in ("left_child", "right_child"))
        )
        counts = (fields["internal_count"], fields["leaf_count"]) if n_leaves > 1 else (np.empty(0), np.ones(1))
        trees.append(
            Tree(
                np.concatenate([left, leaves]),
                np.concatenate([right, leaves]),
                np.concatenate([fields["split_feature"], no_leaf]).astype(np.intp),
                np.concatenate([fields["threshold"], no_leaf]),
                np.concatenate(counts),
                np.concatenate([np.zeros(n_leaves - 1), fields["leaf_value"]])[:, None],
            )
        )
    classes = getattr(estimator, "classes_", ())
    n_scores = len(classes) if len(classes) > 2 else 1
    shaps = [TreeShap(trees[score::n_scores], estimator.n_features_in_) for score in range(n_scores)]
    return _of_sums(shaps, _of_classes(Unit.LOG_ODDS, n_scores) if len(classes) else Unit.TARGET)


def _of_sums(shaps: Sequence[TreeShap], unit: Unit, start: Any = 0.0) -> Exact:
    """Scores next to each other, each with a start that no column changes."""

    def contributions(X: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.concatenate([shap.contributions(X) for shap in shaps], axis=2)

    base = np.ravel(start) + np.concatenate([shap.base for shap in shaps])
    return Exact(Method.TREE, unit, base, contributions, sum(shap.work_per_row for shap in shaps))


def _of_classes(unit: Unit, n_scores: int) -> Unit:
    return Unit.LOGIT if unit is Unit.LOG_ODDS and n_scores > 1 else unit
