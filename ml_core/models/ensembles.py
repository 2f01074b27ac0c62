"""Which ensembles of trees can be compiled, of scikit-learn and LightGBM: their trees, and what becomes of the sums.

What follows the sums (the link of a loss, the labels) is scikit-learn's own code, so only the trees are compiled.
LightGBM's is in C++; the operations here are the same, in its order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ml_core.models.tree_graph import Ensemble, Tree


class Answer(NamedTuple):
    """What an estimator answers to ``(n_rows, width)`` features.

    ``predictions`` are ``(n_rows,)``, ``probabilities`` ``(n_rows, n_classes)`` float64 or None, and ``scores``
    ``(n_rows,)`` float64, the anomaly scores of a detector, or None.
    """

    predictions: NDArray[Any]
    probabilities: NDArray[np.float64] | None = None
    scores: NDArray[np.float64] | None = None


class Family(NamedTuple):
    """Estimators that are compiled in one way.

    Attributes:
        ensemble: The trees of a fitted estimator; raises ``NotCompilableError``.
        answer: Of an estimator: from the sums of the trees, ``(n_rows, n_values)``, to its answer.
        trees: What the library's own code answers for each of these trees alone, ``(n_rows, n_values)``.
    """

    ensemble: Callable[[Any], Ensemble]
    answer: Callable[[Any], Callable[[NDArray[np.float64]], Answer]]
    trees: Callable[[Any], list[Callable[[Any], NDArray[np.float64]]]]


class NotCompilableError(ValueError):
    """The estimator has no compiled form; the message is the end of a sentence."""


def family_of(estimator: Any) -> Family | None:
    """How an estimator is compiled, or None."""
    cls = type(estimator)
    return _FAMILIES.get(cls.__name__) if cls.__module__.startswith(_MODULES) else None


def _forest(estimator: Any) -> Ensemble:
    from ml_core.models.tree_graph import Ensemble

    if estimator.n_outputs_ != 1:
        raise NotCompilableError("it predicts several targets")
    trees = [_tree(each.tree_, each.tree_.value[:, 0, :]) for each in _trees_in(estimator)]
    return Ensemble(trees, trees[0].values.shape[1], is_rounded=True, divisor=len(trees))


def _trees_in(estimator: Any) -> list[Any]:
    return list(getattr(estimator, "estimators_", [estimator]))


def _isolation(estimator: Any) -> Ensemble:
    from ml_core.models.tree_graph import Ensemble

    each = zip(
        estimator.estimators_,
        estimator.estimators_features_,
        estimator._decision_path_lengths,
        estimator._average_path_length_per_tree,
        strict=True,
    )
    trees = [
        _tree(tree.tree_, (depths + lengths - 1.0).reshape(-1, 1), np.asarray(features))
        for tree, features, depths, lengths in each
    ]
    return Ensemble(trees, 1, is_rounded=True)


def _tree(tree: Any, values: NDArray[Any], features: NDArray[Any] | None = None) -> Tree:
    from ml_core.models.tree_graph import tree_of

    feature = tree.feature if features is None else features[np.maximum(tree.feature, 0)]
    children = tree.children_left, tree.children_right
    return tree_of(children, feature, tree.threshold, tree.missing_go_to_left, tree.children_left < 0, values)


def _boosting(estimator: Any) -> Ensemble:
    from ml_core.models.tree_graph import Ensemble, leaf, tree_of

    if estimator.is_categorical_ is not None:
        raise NotCompilableError("its own treatment of categories has no graph")
    base = np.asarray(estimator._baseline_prediction, dtype=np.float64).ravel()
    trees = [leaf(value, target) for target, value in enumerate(base.tolist())]  # first: as scikit-learn adds them up
    for of_round in estimator._predictors:
        for target, predictor in enumerate(of_round):
            nodes = predictor.nodes
            children, values = (nodes["left"], nodes["right"]), nodes["value"].reshape(-1, 1)
            parts = nodes["feature_idx"], nodes["num_threshold"], nodes["missing_go_to_left"], nodes["is_leaf"]
            trees.append(tree_of(children, *parts, values, target))
    return Ensemble(trees, len(base), is_rounded=False)


def _lightgbm(estimator: Any) -> Ensemble:
    from ml_core.models.tree_graph import Ensemble, Tree, leaf

    trees, n_scores = [], estimator.n_outputs
    for number, fields in enumerate(estimator.trees()):
        target, values = number % n_scores, fields["leaf_value"]
        if len(values) == 1:
            trees.append(leaf(float(values[0]), target))
            continue
        kinds = fields["decision_type"].astype(np.int64)
        if (kinds & 1).any():
            raise NotCompilableError("it splits by sets of categories, which have no graph")
        if (kinds >> 2 == 1).any():
            raise NotCompilableError("it takes zeros for missing, which has no graph")
        # Numbers so near to zero are zero to LightGBM, so no threshold is among them.
        threshold = fields["threshold"]
        apart = np.where(threshold < 0, np.nextafter(-_ZERO, -np.inf), _ZERO)
        threshold = np.where(np.abs(threshold) <= _ZERO, apart, threshold)
        # Where the training had no missing value, one is zero.
        missing_left = np.where(kinds >> 2 == 0, threshold >= 0, kinds & 2 != 0)
        children = [fields[key].astype(np.int64) for key in ("left_child", "right_child")]
        # An inner node has its number, and a leaf the complement of its own.
        left, right = (np.where(child < 0, ~child, child) for child in children)
        left_is_leaf, right_is_leaf = (child < 0 for child in children)
        feature = fields["split_feature"].astype(np.int64)
        sides = left, right, left_is_leaf, right_is_leaf
        trees.append(Tree(feature, threshold, *sides, missing_left, values.reshape(-1, 1), target))
    return Ensemble(trees, n_scores, is_rounded=False)


def _trees_of_forest(estimator: Any) -> list[Callable[[Any], NDArray[np.float64]]]:
    def values(tree: Any, rows: Any) -> NDArray[np.float64]:
        return np.asarray(tree.predict(rows.astype(np.float32)))

    return [partial(values, each.tree_) for each in _trees_in(estimator)]


def _trees_of_isolation(estimator: Any) -> list[Callable[[Any], NDArray[np.float64]]]:
    def depth(number: int, rows: Any) -> NDArray[np.float64]:
        tree, features = estimator.estimators_[number].tree_, estimator.estimators_features_[number]
        reached = tree.apply(rows.astype(np.float32)[:, features])
        lengths = estimator._decision_path_lengths[number], estimator._average_path_length_per_tree[number]
        return np.asarray(lengths[0][reached] + lengths[1][reached] - 1.0).reshape(-1, 1)

    return [partial(depth, number) for number in range(len(estimator.estimators_))]


def _trees_of_boosting(estimator: Any) -> list[Callable[[Any], NDArray[np.float64]]]:
    no_categories = np.zeros((0, 8), dtype=np.uint32), np.zeros(0, dtype=np.uint32)

    def value(predictor: Any, rows: Any) -> NDArray[np.float64]:
        return np.asarray(predictor.predict(rows, *no_categories, 1)).reshape(-1, 1)

    def constant(number: float, rows: Any) -> NDArray[np.float64]:
        return np.full((len(rows), 1), number)

    base = np.ravel(estimator._baseline_prediction).tolist()
    predictors = [predictor for of_round in estimator._predictors for predictor in of_round]
    return [*(partial(constant, each) for each in base), *(partial(value, each) for each in predictors)]


def _trees_of_lightgbm(estimator: Any) -> list[Callable[[Any], NDArray[np.float64]]]:
    n_scores = estimator.n_outputs

    def value(number: int, rows: Any) -> NDArray[np.float64]:
        of_round, target = divmod(number, n_scores)
        return np.asarray(estimator.sums(rows, of_round)).reshape(len(rows), n_scores)[:, target : target + 1]

    return [partial(value, number) for number in range(estimator.n_trees)]


def _probable(estimator: Any) -> Callable[[NDArray[np.float64]], Answer]:
    classes = estimator.classes_
    return lambda means: Answer(classes.take(means.argmax(axis=1)), means)


def _mean(estimator: Any) -> Callable[[NDArray[np.float64]], Answer]:  # noqa: ARG001 - one signature
    return lambda means: Answer(means[:, 0])


def _boosted_classes(estimator: Any) -> Callable[[NDArray[np.float64]], Answer]:
    classes, probabilities = estimator.classes_, estimator._loss.predict_proba

    def answer(raw: NDArray[np.float64]) -> Answer:
        best = (raw[:, 0] > 0).astype(np.intp) if raw.shape[1] == 1 else raw.argmax(axis=1)
        return Answer(classes.take(best), probabilities(raw))

    return answer


def _boosted_values(estimator: Any) -> Callable[[NDArray[np.float64]], Answer]:
    inverse = estimator._loss.link.inverse
    return lambda raw: Answer(inverse(raw.ravel()))


def _lightgbm_classes(estimator: Any) -> Callable[[NDArray[np.float64]], Answer]:
    classes = estimator.classes_

    def answer(sums: NDArray[np.float64]) -> Answer:
        if sums.shape[1] == 1:
            second = 1.0 / (1.0 + _exponential(-sums[:, 0]))
            probabilities = np.column_stack([1.0 - second, second])
        else:
            probabilities = _exponential(sums - sums.max(axis=1, keepdims=True))
            total = np.zeros(len(sums))
            for column in probabilities.T:  # one after another, as LightGBM adds them up
                total += column
            probabilities /= total[:, None]
        return Answer(classes[probabilities.argmax(axis=1)], probabilities)

    return answer


def _exponential(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """By the library of C, whose last bit may differ from NumPy's."""
    of = [math.exp(value) if value <= _LARGEST_EXPONENT else math.inf for value in values.ravel().tolist()]
    return np.array(of).reshape(values.shape)


def path_length(estimator: Any) -> float:
    """By which an isolation forest divides the sum of the depths, the score of a row being 2 to minus the quotient."""
    from sklearn.ensemble._iforest import _average_path_length

    return float((len(estimator.estimators_) * _average_path_length([estimator._max_samples])).item())


def _isolated(estimator: Any) -> Callable[[NDArray[np.float64]], Answer]:
    denominator, offset = path_length(estimator), estimator.offset_

    def answer(depths: NDArray[np.float64]) -> Answer:
        summed = depths[:, 0]
        scores = 2 ** -(summed / denominator if denominator else np.ones_like(summed))
        return Answer(np.where(-scores - offset < 0, -1, 1), None, scores)

    return answer


_MODULES = ("sklearn.ensemble.", "sklearn.tree.", "ml_core.models.lightgbm_estimators")
_LARGEST_EXPONENT = math.log(np.finfo(np.float64).max)
_ZERO = float(np.float32(1e-35))  # kZeroThreshold of LightGBM
_FAMILIES: Mapping[str, Family] = {
    "RandomForestClassifier": Family(_forest, _probable, _trees_of_forest),
    "ExtraTreesClassifier": Family(_forest, _probable, _trees_of_forest),
    "RandomForestRegressor": Family(_forest, _mean, _trees_of_forest),
    "ExtraTreesRegressor": Family(_forest, _mean, _trees_of_forest),
    "DecisionTreeClassifier": Family(_forest, _probable, _trees_of_forest),
    "DecisionTreeRegressor": Family(_forest, _mean, _trees_of_forest),
    "HistGradientBoostingClassifier": Family(_boosting, _boosted_classes, _trees_of_boosting),
    "HistGradientBoostingRegressor": Family(_boosting, _boosted_values, _trees_of_boosting),
    "IsolationForest": Family(_isolation, _isolated, _trees_of_isolation),
    "LightGBMClassifier": Family(_lightgbm, _lightgbm_classes, _trees_of_lightgbm),
    "LightGBMRegressor": Family(_lightgbm, _mean, _trees_of_lightgbm),
}
