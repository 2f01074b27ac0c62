"""Bounds of the numbers that compiled code follows unchecked.

scikit-learn's C code trusts the state of an estimator: a crafted artifact, even of allowed types only, could read
outside of arrays or never return. Every such number is checked once, when the artifact is loaded: here for whole
estimators, in ``trees`` for a tree's nodes. Sparse matrices are checked when they are built; those that a transformer
makes while it predicts have the column numbers of its vocabulary or categories, which are checked here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.compose import ColumnTransformer
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.preprocessing import FunctionTransformer, OrdinalEncoder
from sklearn.tree._tree import Tree
from sklearn.utils import check_array

from ml_core.exceptions import UnsafeArtifactError
from ml_core.models.formats.trees import check_children, require, require_one_target

_MAX_THREADS = 1_024  # more than the cores of any machine that trained it
_MAX_NGRAM = 100
_MAX_DEGREE = 100
_MAX_ROUNDS = 10_000
_ROUNDS = ("max_iter", "transform_max_iter", "_transform_max_iter", "max_doc_update_iter")
_MAX_WIDTH = 1_000_000  # 8 MB a row
_NORMS = frozenset({"X_norm_squared", "Y_norm_squared"})  # one for each point, which nothing checks
_LIBSVM_KERNELS = frozenset({"linear", "poly", "rbf", "sigmoid"})
# One character or class of characters of a token pattern, and its repetition.
_CHARACTER = re.compile(
    r"""(?:\\[A-Za-z.$?!'"-]|\[(?:[^\]\\]|\\.)+\]|[\w@#!&'%/."-])(\{\d{1,2}(?:,\d{0,2})?\}|[+*?])?"""
)
_MAX_PATTERN = 500


def check_native(estimators: Iterable[Any]) -> None:
    """Check all estimators of a pipeline, nested ones included, that are on the platform's list.

    Types that only the caller's own process trusts are not checked.

    Raises:
        UnsafeArtifactError: A number lies outside of the array that it points into.
    """
    for estimator in estimators:
        kind = type(estimator).__name__
        jobs: Any = getattr(estimator, "n_jobs", None)
        require(jobs is None or (isinstance(jobs, int | np.integer) and abs(int(jobs)) <= _MAX_THREADS), kind)
        n_classes, classes = getattr(estimator, "n_classes_", None), getattr(estimator, "classes_", ())
        if isinstance(n_classes, int | np.integer):  # it allocates as many columns
            require(n_classes == len(classes), kind)
        for base in type(estimator).__mro__:
            found = _CHECKS.get(base.__name__)
            if found is not None and hasattr(estimator, found[0]):
                found[1](estimator, kind)


def _check_forest(forest: Any, kind: str) -> None:
    _check_widths(forest.estimators_, forest.n_features_in_, kind)
    n_classes = getattr(forest, "n_classes_", 1)  # it adds each tree's output to as many columns
    require(all(int(member.tree_.n_classes[0]) == n_classes for member in forest.estimators_), kind)


def _check_isolation_forest(forest: Any, kind: str) -> None:
    _check_widths(forest.estimators_, forest._max_features, kind)
    features = [len(columns) for columns in forest.estimators_features_]
    require(set(features) == {int(forest._max_features)} and len(features) == len(forest.estimators_), kind)


def _check_widths(members: Iterable[Any], n_features: int, kind: str) -> None:
    """Every member of an ensemble is a tree for exactly as many features as the ensemble passes on unchecked."""
    for member in members:
        require(type(getattr(member, "tree_", None)) is Tree and member.tree_.n_features == n_features, kind)


def _check_tree(estimator: Any, kind: str) -> None:
    tree = estimator.tree_
    require(type(tree) is Tree and tree.n_features == estimator.n_features_in_, kind)


def _check_gradient_boosting(estimator: Any, kind: str) -> None:
    members, width = estimator.estimators_, estimator.n_trees_per_iteration_
    require(isinstance(members, np.ndarray) and members.ndim == 2 and members.shape[1] == width, kind)
    _check_widths(members.ravel(), estimator.n_features_in_, kind)
    # Compiled code adds to as many columns as there are trees an iteration, so there must be as many to begin with.
    require(
        type(estimator.init_) in (DummyClassifier, DummyRegressor) or estimator.init_ == "zero", f"{kind} with init"
    )
    start = estimator._raw_predict_init(np.zeros((2, estimator.n_features_in_), dtype=np.float32))
    require(start.shape == (2, width) and start.dtype == np.float64, kind)


def _check_histogram_trees(estimator: Any, kind: str) -> None:
    n_features = int(estimator.n_features_in_)
    require(not getattr(estimator, "_in_fit", False), kind)  # else it would not check a row's width
    if estimator._preprocessor is not None:
        _check_preprocessor(estimator._preprocessor, n_features, kind)
    categorical = np.asarray(estimator._bin_mapper.is_categorical_, dtype=bool)
    require(categorical.shape == (n_features,), kind)
    require(all(len(trees) == estimator.n_trees_per_iteration_ for trees in estimator._predictors), kind)
    trees = [tree for iteration in estimator._predictors for tree in iteration]
    if not trees:
        return
    counts = np.array([len(tree.nodes) for tree in trees])
    nodes = np.concatenate([tree.nodes for tree in trees])
    require(bool((counts > 0).all()), kind)
    inner = nodes["is_leaf"] == 0
    split = nodes[inner]
    check_children(split["left"], split["right"], inner, counts, kind)
    require(_within(split["feature_idx"], n_features), kind)
    by_category = inner & (nodes["is_categorical"] != 0)
    if by_category.any():
        sets = [tree.raw_left_cat_bitsets for tree in trees]
        require(all(bits.ndim == 2 and bits.shape[1] == 8 for bits in sets), kind)
        bounds = np.repeat([len(bits) for bits in sets], counts)[by_category]
        require(bool((nodes["bitset_idx"][by_category] < bounds).all()), kind)
        require(bool(categorical[nodes["feature_idx"][by_category]].all()), kind)


def _check_preprocessor(preprocessor: Any, n_features: int, kind: str) -> None:
    """It returns as many columns as it takes, like the one that ``fit`` makes; nothing checks them afterwards."""
    require(type(preprocessor) is ColumnTransformer and preprocessor.n_features_in_ == n_features, kind)
    (first, encoder, encoded), (second, checker, checked), (_, rest, _) = preprocessor.transformers_
    require(all(isinstance(mask, np.ndarray) and mask.dtype == bool for mask in (encoded, checked)), kind)
    require(encoded.shape == checked.shape == (n_features,) and bool((encoded ^ checked).all()), kind)
    require(rest == "drop" and first != second, kind)
    for name, mask in ((first, encoded), (second, checked)):  # by which it selects the columns of a frame
        require(list(preprocessor._transformer_to_input_indices[name]) == np.flatnonzero(mask).tolist(), kind)
    require(type(encoder) is OrdinalEncoder and type(checker) is FunctionTransformer, kind)
    require(type(checker.func) is partial and checker.func.func is check_array and not checker.func.args, kind)
    require(not checker.kw_args, kind)


def _check_subclusters(estimator: Any, kind: str) -> None:
    require(estimator._subcluster_norms.shape == (len(estimator.subcluster_centers_),), kind)


def _check_sketch(sketch: Any, kind: str) -> None:
    require(1 <= sketch.n_components <= _MAX_WIDTH and sketch.degree == len(sketch.indexHash_), kind)


def _check_splines(splines: Any, kind: str) -> None:
    require(0 < splines.n_features_out_ <= _MAX_WIDTH, kind)


def _check_rounds(transformer: Any, kind: str) -> None:
    """It predicts by iterating, and an unreachable tolerance would never end it."""
    limits = [getattr(transformer, name, None) for name in _ROUNDS]
    require(all(limit is None or limit <= _MAX_ROUNDS for limit in limits), f"{kind} with its iterations")


def _check_clusters(estimator: Any, kind: str) -> None:
    # OpenMP ends the process when it can't start the threads that it is asked for.
    require(1 <= int(estimator._n_threads) <= _MAX_THREADS, kind)
    centers = estimator.cluster_centers_
    require(centers.ndim == 2 and centers.shape[1] == estimator.n_features_in_ and len(centers) > 0, kind)


def _check_bisecting_clusters(estimator: Any, kind: str) -> None:
    pending, left = [estimator._bisecting_tree], 2 * len(estimator.cluster_centers_)
    while pending:
        node = pending.pop()
        left -= 1
        center = np.asarray(node.center)
        require(left >= 0 and center.shape == (estimator.n_features_in_,), kind)
        pending.extend(child for child in (node.left, node.right) if child is not None)


def _check_libsvm(machine: Any, kind: str) -> None:
    vectors, coefficients, per_class = machine.support_vectors_, machine._dual_coef_, machine._n_support
    n_vectors = len(machine.support_)
    n_classes = len(machine.classes_) if machine._impl in ("c_svc", "nu_svc") else 2
    n_pairs = n_classes * (n_classes - 1) // 2
    require(machine.kernel in _LIBSVM_KERNELS, f"{kind} with its kernel")
    require(per_class.shape == (n_classes,) and n_classes >= 2 and bool((per_class >= 0).all()), kind)
    if machine._impl in ("c_svc", "nu_svc"):
        require(int(per_class.sum()) == n_vectors, kind)
    require(sparse.issparse(vectors) == sparse.issparse(coefficients) == bool(machine._sparse), kind)
    require(vectors.shape == (n_vectors, machine.n_features_in_), kind)
    require(coefficients.shape == (n_classes - 1, n_vectors), kind)
    if machine._sparse:  # compiled code reads the stored numbers as if the matrix were dense
        require(vectors.format == coefficients.format == "csr", kind)
        require(len(coefficients.data) == (n_classes - 1) * n_vectors, kind)
    require(machine._intercept_.shape == (n_pairs,), kind)
    has_probabilities = getattr(machine, "_effective_probability", False)
    require(has_probabilities in (True, False) and machine._probA.shape == machine._probB.shape, kind)
    asked = has_probabilities or machine.probability is True
    require(len(machine._probA) == n_pairs or (len(machine._probA) == 0 and not asked), kind)


def _check_neighbors(estimator: Any, kind: str) -> None:
    points = estimator._fit_X
    require(points.shape == (estimator.n_samples_fit_, estimator.n_features_in_), kind)
    require(isinstance(estimator.effective_metric_, str), f"{kind} with its metric")
    for parameters in (estimator.effective_metric_params_, estimator.metric_params):
        require(_NORMS.isdisjoint(parameters or ()), f"{kind} with norms")


def _check_neighbor_classes(estimator: Any, kind: str) -> None:
    labels = estimator._y
    require_one_target(not estimator.outputs_2d_, kind)
    require(labels.shape == (estimator.n_samples_fit_,), kind)
    require(labels.dtype.kind == "i" and _within(labels, len(estimator.classes_)), kind)


def _check_one_hot(encoder: Any, kind: str) -> None:
    widths = encoder._compute_n_features_outs()
    require(list(encoder._n_features_outs) == widths and len(widths) == encoder.n_features_in_, kind)
    drops = encoder._drop_idx_after_grouping
    for index, (categories, width) in enumerate(zip(encoder.categories_, widths, strict=True)):
        drop = None if drops is None else drops[index]
        n_before = width if drop is None else width + 1
        require(drop is None or (isinstance(drop, int | np.integer) and 0 <= drop < n_before), kind)
        if encoder._infrequent_enabled and (mapping := encoder._default_to_infrequent_mappings[index]) is not None:
            require(mapping.shape == categories.shape and _within(mapping, n_before), kind)
        if categories.dtype.kind not in "OUS":  # found by bisection, which returns any position in an unsorted array
            known = categories[~np.isnan(categories)] if categories.dtype.kind == "f" else categories
            require(bool((known[1:] > known[:-1]).all()), kind)
            require(len(known) >= len(categories) - 1 and bool((known == categories[: len(known)]).all()), kind)


def _check_polynomial(features: Any, kind: str) -> None:
    """It fills all columns that it allocates: others would hold previous contents of the memory."""
    low, high = features._min_degree, features._max_degree
    require(all(type(number) is int for number in (low, high, features.n_features_in_)), kind)
    require(0 <= low <= high <= _MAX_DEGREE, kind)
    counts = [
        features._num_combinations(
            features.n_features_in_, smallest, high, features.interaction_only, features.include_bias
        )
        for smallest in (low, 0)
    ]
    require(counts == [features.n_output_features_, features._n_out_full] and max(counts) <= _MAX_WIDTH, kind)


def _check_target_encoder(encoder: Any, kind: str) -> None:
    n_classes = len(encoder.classes_) if encoder.target_type_ == "multiclass" else 1
    require(len(encoder.encodings_) == encoder.n_features_in_ * n_classes, kind)


def _check_vocabulary(vectorizer: Any, kind: str) -> None:
    numbers = np.array(list(vectorizer.vocabulary_.values()), dtype=np.int64)
    require(_within(numbers, len(numbers)), kind)


def _check_words(vectorizer: Any, kind: str) -> None:
    """A vectorizer opens no file that a row names, and processes a text in bounded time."""
    low, high = vectorizer.ngram_range
    require(vectorizer.input == "content" and 1 <= low <= high <= _MAX_NGRAM, f"{kind} with input or ngram_range")
    pattern = vectorizer.token_pattern
    if pattern is not None and not _is_quick(pattern):
        raise UnsafeArtifactError(
            f"The token_pattern {pattern!r} could take unbounded time.",
            remedy="Use alternatives of characters or classes of characters with one + or * each, such as "
            r"(?u)\b\w\w+\b, or clean the text before it reaches the vectorizer.",
            types=[kind],
        )


def _is_quick(pattern: str) -> bool:
    """Whether matching takes bounded time: alternatives with one open repeat each, and no repeated groups."""
    inside = re.fullmatch(r"(?:\(\?u\))?(?:\((.*)\)|(.*))", pattern[:_MAX_PATTERN], re.DOTALL)
    text, at, open_repeats, optional = (inside[1] or inside[2] or "") if inside else "", 0, 0, 0
    while at < len(text):
        if text[at] == "|":
            at, open_repeats, optional = at + 1, 0, 0
            continue
        found = _CHARACTER.match(text, at)
        if found is None:
            return False
        at, repeat = found.end(), found[1] or ""
        optional += repeat == "?"
        open_repeats += repeat in ("+", "*") or "," in repeat
        if open_repeats > 1 or optional > 3:
            return False
    return len(text) > 0 and len(pattern) <= _MAX_PATTERN


def _check_hashing(hasher: Any, kind: str) -> None:
    require(type(hasher.n_features) is int and 1 <= hasher.n_features < 2**31, kind)


def _check_label_sets(binarizer: Any, kind: str) -> None:
    require(getattr(binarizer, "_cached_dict", None) is None, kind)


def _within(numbers: NDArray[Any], bound: int) -> bool:
    return not len(numbers) or (int(numbers.min()) >= 0 and int(numbers.max()) < bound)


# Class of scikit-learn, or base class → the attribute through which its compiled code is reached, and its check. An
# unfitted estimator, such as the template of an ensemble's members, has no such attribute.
_CHECKS: dict[str, tuple[str, Callable[[Any, str], None]]] = {
    "BaseDecisionTree": ("tree_", _check_tree),
    "BaseForest": ("estimators_", _check_forest),
    "BaseGradientBoosting": ("estimators_", _check_gradient_boosting),
    "BaseHistGradientBoosting": ("_predictors", _check_histogram_trees),
    "BaseLibSVM": ("support_vectors_", _check_libsvm),
    "Birch": ("subcluster_centers_", _check_subclusters),
    "BisectingKMeans": ("_bisecting_tree", _check_bisecting_clusters),
    "CountVectorizer": ("vocabulary_", _check_vocabulary),
    "DictVectorizer": ("vocabulary_", _check_vocabulary),
    "FeatureHasher": ("n_features", _check_hashing),
    "HashingVectorizer": ("n_features", _check_hashing),
    "IsolationForest": ("estimators_", _check_isolation_forest),
    "KNeighborsClassifier": ("_y", _check_neighbor_classes),
    "LatentDirichletAllocation": ("max_doc_update_iter", _check_rounds),
    "MultiLabelBinarizer": ("classes_", _check_label_sets),
    "NeighborsBase": ("_fit_X", _check_neighbors),
    "OneHotEncoder": ("categories_", _check_one_hot),
    "PolynomialCountSketch": ("indexHash_", _check_sketch),
    "PolynomialFeatures": ("n_output_features_", _check_polynomial),
    "RadiusNeighborsClassifier": ("_y", _check_neighbor_classes),
    "SplineTransformer": ("n_features_out_", _check_splines),
    "TargetEncoder": ("encodings_", _check_target_encoder),
    "_BaseKMeans": ("cluster_centers_", _check_clusters),
    "_BaseNMF": ("max_iter", _check_rounds),
    "_BaseSparseCoding": ("transform_max_iter", _check_rounds),
    "_VectorizerMixin": ("input", _check_words),
}
