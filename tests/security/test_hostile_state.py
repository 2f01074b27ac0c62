"""Estimators on the list with a state that would lead compiled code out of its arrays, open a file, or never end."""

import contextlib
import io
import json
import zipfile
from functools import partial

import numpy as np
import pytest
from scipy import sparse
from sklearn.cluster import Birch, BisectingKMeans, KMeans
from sklearn.decomposition import NMF, LatentDirichletAllocation, MiniBatchNMF, SparseCoder
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_extraction import DictVectorizer, FeatureHasher
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.feature_selection import SelectKBest
from sklearn.kernel_approximation import PolynomialCountSketch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier, RadiusNeighborsClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    MultiLabelBinarizer,
    OneHotEncoder,
    PolynomialFeatures,
    SplineTransformer,
    TargetEncoder,
)
from sklearn.random_projection import SparseRandomProjection
from sklearn.svm import SVC, SVR, OneClassSVM
from sklearn.utils import check_array

from ml_core.exceptions import ModelLoadError, ModelSaveError, UnsafeArtifactError
from ml_core.models.formats import skops_format, trees
from ml_core.models.formats.archive import read_members

X = np.random.default_rng(0).normal(size=(60, 3))
CATEGORIES = np.column_stack([np.arange(60) % 3, np.arange(60) % 5]).astype(float)
TEXTS = [f"word{i % 7} other" for i in range(60)]
Y = np.arange(60) % 3
NORMS = {"Y_norm_squared": np.ones(1)}
SPARSE = sparse.csr_matrix(np.abs(X))


def model_of(estimator):
    """The estimator, or a pipeline that ends with it as a transformer."""
    if hasattr(estimator, "predict"):
        return estimator
    last = LogisticRegression()
    last.coef_, last.intercept_, last.classes_ = np.zeros((1, 3)), np.zeros(1), np.arange(2)
    return Pipeline([("hostile", estimator), ("estimate", last)])


def one_hot(**arguments):
    return OneHotEncoder(**arguments).fit(CATEGORIES)


def words(**changes):
    return changed(CountVectorizer().fit(TEXTS), **changes)


def changed(estimator, **changes):
    """The fitted estimator with other attributes."""
    vars(estimator).update(changes)
    return estimator


def cut(array, *, last=-1):
    return array[:last]


def machine(**arguments):
    return SVC(**arguments).fit(X, Y)


def sparse_machine():
    return SVC().fit(SPARSE, Y)


def fewer_stored(matrix):
    """The same numbers of a sparse matrix, but its last left out."""
    matrix = matrix.copy()
    matrix.indptr[-1] -= 1
    return type(matrix)((matrix.data[:-1], matrix.indices[:-1], matrix.indptr), shape=matrix.shape)


def neighbours(kind=KNeighborsClassifier):
    return kind().fit(X, Y)


def boosted():
    return GradientBoostingClassifier(n_estimators=2).fit(X, Y)


def by_histograms(categorical=(0,)):
    """Of categories, so it prepares its columns."""
    rows = np.column_stack([np.arange(60) % 3, np.arange(60) % 5])
    return HistGradientBoostingClassifier(max_iter=2, categorical_features=list(categorical)).fit(rows, Y)


def bisected():
    return BisectingKMeans(3, random_state=0).fit(X)


def with_center(estimator, center):
    estimator._bisecting_tree.left.center = center
    return estimator


def with_mapping(estimator, values):
    estimator._default_to_infrequent_mappings[1] = values
    return estimator


def archived(members):
    """A zip of the members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)
    return buffer.getvalue()


HOSTILE = {
    "one-hot: a narrower result": lambda: changed(one_hot(), _n_features_outs=[3, 4]),
    "one-hot: a category in the wrong order": lambda: changed(
        one_hot(), categories_=[np.array([2.0, 1, 0]), np.arange(5.0)]
    ),
    "one-hot: a category twice": lambda: changed(one_hot(), categories_=[np.array([0.0, 1, 1]), np.arange(5.0)]),
    "one-hot: nan in the middle": lambda: changed(one_hot(), categories_=[np.array([0.0, np.nan, 1]), np.arange(5.0)]),
    "one-hot: drops no category": lambda: changed(
        one_hot(drop="first"), _drop_idx_after_grouping=np.array([-1, 0], dtype=object)
    ),
    "one-hot: infrequent ones elsewhere": lambda: with_mapping(one_hot(max_categories=3), np.array([0, 1, 99, 2, 2])),
    "bins: a narrower result": lambda: (lambda bins: (changed(bins._encoder, _n_features_outs=[1, 1, 1]), bins)[1])(
        KBinsDiscretizer(3).fit(X)
    ),
    "words: a column beyond": lambda: words(vocabulary_={"word1": 10**6, "other": 0}),
    "words: a column before": lambda: words(vocabulary_={"word1": -1, "other": 0}),
    "words: opens files": lambda: words(input="filename"),
    "words: an endless pattern": lambda: words(token_pattern=r"(\w+)+$"),
    "words: many repeats": lambda: words(token_pattern=r"\w*\w*\w*\w*x"),
    "words: optional repeats": lambda: words(token_pattern="a?" * 30 + "a" * 30),
    "words: all n-grams": lambda: words(ngram_range=(1, 10**9)),
    "tf-idf: opens files": lambda: changed(TfidfVectorizer().fit(TEXTS), input="file"),
    "hashed words: no column": lambda: changed(HashingVectorizer(), n_features=0),
    "hashed words: opens files": lambda: changed(HashingVectorizer(), input="filename"),
    "hashed dicts: no column": lambda: changed(FeatureHasher(), n_features=0),
    "dicts: a column beyond": lambda: changed(DictVectorizer().fit([{"a": 1}]), vocabulary_={"a": 7}),
    "label sets: a column beyond": lambda: changed(MultiLabelBinarizer().fit([[1], [2]]), _cached_dict={1: 10**6}),
    "vectors: more than there are": lambda: changed(machine(), _n_support=np.array([10**6, 1, 1], dtype=np.int32)),
    "vectors: negative": lambda: changed(machine(), _n_support=np.array([-5, 32, 33], dtype=np.int32)),
    "vectors: fewer classes": lambda: changed(machine(), _n_support=np.array([30, 30], dtype=np.int32)),
    "vectors: narrower": lambda: changed(machine(), support_vectors_=np.zeros((60, 1))),
    "vectors: cut": lambda: (lambda m: changed(m, support_vectors_=cut(m.support_vectors_)))(machine()),
    "vectors: coefficients cut": lambda: (lambda m: changed(m, _dual_coef_=cut(m._dual_coef_)))(machine()),
    "vectors: intercepts cut": lambda: (lambda m: changed(m, _intercept_=cut(m._intercept_)))(machine()),
    "vectors: one probability": lambda: changed(machine(), _probA=np.ones(1), _probB=np.ones(1)),
    "vectors: probabilities without their numbers": lambda: changed(sparse_machine(), _effective_probability=True),
    "vectors: probabilities of minus five": lambda: changed(sparse_machine(), _effective_probability=-5),
    "polynomials: columns that nobody fills": lambda: (lambda p: changed(p, _n_out_full=p._n_out_full + 9))(
        PolynomialFeatures().fit(X)
    ),
    "polynomials: without end": lambda: changed(PolynomialFeatures().fit(X), _max_degree=2**31),
    "targets: columns that nobody fills": lambda: changed(TargetEncoder().fit(CATEGORIES, Y), encodings_=[]),
    "vectors: a kernel of columns": lambda: changed(machine(), kernel="precomputed"),
    "vectors: said to be sparse": lambda: changed(machine(), _sparse=True),
    "vectors: sparse, a coefficient left out": lambda: (lambda m: changed(m, _dual_coef_=fewer_stored(m._dual_coef_)))(
        sparse_machine()
    ),
    "vectors of a regression": lambda: changed(SVR().fit(X, X[:, 0]), _n_support=np.array([5], dtype=np.int32)),
    "vectors of one class": lambda: changed(OneClassSVM().fit(X), support_vectors_=np.zeros((2, 3))),
    "neighbours: a class beyond": lambda: changed(neighbours(), _y=np.full(60, 10**6)),
    "neighbours: a class before": lambda: changed(neighbours(RadiusNeighborsClassifier), _y=np.full(60, -7)),
    "neighbours: fewer classes": lambda: changed(neighbours(), _y=np.zeros(3, dtype=int)),
    "neighbours: more than there are": lambda: changed(neighbours(), n_samples_fit_=10**9),
    "boosting: a tree too many": lambda: (lambda m: changed(m, estimators_=np.hstack([m.estimators_] * 9)))(boosted()),
    "boosting: too many columns": lambda: (
        lambda m: changed(m, estimators_=np.hstack([m.estimators_] * 9), n_trees_per_iteration_=27)
    )(boosted()),
    "boosting: begins with fewer": lambda: changed(boosted(), init_=LogisticRegression().fit(X, Y > 0)),
    "boosting: trees of other features": lambda: changed(boosted(), n_features_in_=1),
    "clusters: narrower": lambda: changed(KMeans(2, n_init=1).fit(X), cluster_centers_=np.zeros((2, 1))),
    "clusters: narrower inside": lambda: with_center(bisected(), np.zeros(1)),
    "clusters: norms of fewer": lambda: (lambda m: changed(m, _subcluster_norms=m._subcluster_norms[:1]))(
        Birch().fit(X)
    ),
    "neighbours: norms of fewer": lambda: changed(neighbours(), effective_metric_params_=NORMS),
    "neighbours: norms of fewer, of classes": lambda: changed(neighbours(), metric_params=NORMS),
    "histograms: as if it was fitted": lambda: changed(by_histograms(), _in_fit=True),
    "histograms: a narrower result": lambda: changed(by_histograms(), _preprocessor=SelectKBest(k=1).fit(X, Y)),
    "histograms: columns left out": lambda: (
        lambda m: (changed(m._preprocessor, transformers_=[m._preprocessor.transformers_[i] for i in (0, 0, 2)]), m)[1]
    )(by_histograms()),
    "histograms: columns of frames left out": lambda: (
        lambda m: (m._preprocessor._transformer_to_input_indices.update(numerical=[0]), m)[1]
    )(by_histograms()),
    "polynomials: columns that nothing fills": lambda: changed(PolynomialFeatures().fit(X), _n_out_full=10**6),
    "polynomials: of any degree": lambda: changed(PolynomialFeatures().fit(X), _max_degree=10**7),
    "forest: of more classes than its trees": lambda: changed(
        RandomForestClassifier(2).fit(X, np.zeros(60, int)), n_classes_=2**40
    ),
    "histograms: of more classes than trees": lambda: changed(by_histograms(), n_trees_per_iteration_=2**40),
    "a constant of more classes than it has": lambda: changed(
        DummyClassifier(strategy="uniform").fit(X, Y), n_classes_=2**40
    ),
    "sketch: of any width": lambda: changed(PolynomialCountSketch().fit(X), n_components=2**40),
    "sketch: of any degree": lambda: changed(PolynomialCountSketch().fit(X), degree=10**9),
    "splines: of any width": lambda: changed(SplineTransformer().fit(X), n_features_out_=2**40),
    "topics: endless": lambda: changed(LatentDirichletAllocation(2).fit(SPARSE), max_doc_update_iter=10**12),
    "factors: endless": lambda: changed(NMF(2, tol=0.1).fit(SPARSE), max_iter=10**12),
    "factors of batches: endless": lambda: changed(MiniBatchNMF(2, tol=0.1).fit(SPARSE), _transform_max_iter=10**12),
    "codes: endless": lambda: changed(SparseCoder(X), transform_max_iter=10**12),
    "an attribute for a method": lambda: changed(
        RandomForestClassifier(2).fit(X, Y), _validate_X_predict=partial(check_array, dtype=np.float32)
    ),
    "an attribute for a method of packed trees": lambda: (
        lambda m: ([changed(tree, _validate_X_predict=partial(check_array)) for tree in m.estimators_], m)[1]
    )(RandomForestClassifier(2).fit(X, Y)),
    "a partial that hides an estimator": lambda: changed(FunctionTransformer(), func=partial(np.mean, words())),
    "threads": lambda: changed(RandomForestClassifier(2).fit(X, Y), n_jobs=10**6),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_state_is_refused(name):
    """Before anything is asked of it; each of these would crash the process, hang it, or open a file of its choice."""
    with pytest.raises(UnsafeArtifactError):
        skops_format.load(skops_format.dump(model_of(HOSTILE[name]())))


HONEST = {
    "targets of several classes": lambda: TargetEncoder().fit(CATEGORIES, Y),
    "targets of two classes": lambda: TargetEncoder().fit(CATEGORIES, Y > 0),
    "one-hot": one_hot,
    "one-hot, infrequent": lambda: one_hot(max_categories=3, drop="first"),
    "bins": lambda: KBinsDiscretizer(3).fit(X),
    "vectors": machine,
    "vectors, sparse": sparse_machine,
    "vectors of a regression": lambda: SVR().fit(X, X[:, 0]),
    "neighbours": neighbours,
    "histograms": lambda: by_histograms(),
    "histograms of categories": lambda: by_histograms([0, 1]),
    "clusters, of a tree": lambda: Birch().fit(X),
    "topics": lambda: LatentDirichletAllocation(2).fit(SPARSE),
    "factors": lambda: MiniBatchNMF(2, tol=0.1).fit(SPARSE),
    "polynomials": lambda: PolynomialFeatures(3).fit(X),
    "polynomials, interactions": lambda: PolynomialFeatures((2, 3), interaction_only=True, include_bias=False).fit(X),
    "boosting": boosted,
    "clusters": bisected,
    "words": words,
    "words of a pattern": lambda: words(token_pattern=r"(?u)\b[a-z]{2,}\b|\d+"),
}


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_state_is_not(name):
    """The same estimators as they were fitted."""
    skops_format.load(skops_format.dump(model_of(HONEST[name]())))


@pytest.mark.parametrize("part", ["indices", "indptr"])
@pytest.mark.parametrize("position", [1, -1])
@pytest.mark.parametrize("value", [10**6, -1, -(2**31)])
def test_a_sparse_matrix_that_points_outside_is_refused(part, position, value):
    """Compiled code follows its numbers; scipy's own full check lets the last pass, since a difference overflows."""
    estimator = sparse_machine()
    getattr(estimator.support_vectors_, part)[position] = value
    with pytest.raises(UnsafeArtifactError):
        skops_format.load(skops_format.dump(estimator))


def test_an_empty_sparse_matrix_that_points_outside_is_refused():
    """Found by fuzzing, as a segmentation fault in a product: scipy takes it for one without numbers."""
    estimator = SparseRandomProjection(2, random_state=0).fit(X)
    estimator.components_.indptr[:] = [0, 5, -(2**31)]
    with pytest.raises(UnsafeArtifactError):
        skops_format.load(skops_format.dump(model_of(estimator)))


def test_categories_of_large_integers_are_in_order():
    """They differ by less than a float can tell."""
    ids = np.array([[2**53], [2**53 + 1], [2**53 + 2]])
    skops_format.load(skops_format.dump(model_of(OneHotEncoder().fit(ids))))


def test_a_spline_with_too_few_coefficients_is_refused():
    """They are read by position."""
    estimator = SplineTransformer().fit(X)
    spline = estimator.bsplines_[0]
    spline.c = spline.c[:1]
    with pytest.raises(ModelLoadError):
        skops_format.load(skops_format.dump(model_of(estimator)))


FOREST = RandomForestClassifier(3, random_state=0).fit(X, Y)
BOOSTED = HistGradientBoostingClassifier(max_iter=3).fit(X, Y)
LIES = [
    *((FOREST, 2, key) for key in ("node_counts", "max_depths", "n_features", "n_classes")),
    *((BOOSTED, None, key) for key in ("trees_per_iteration", "node_counts", "set_counts")),
]


@pytest.mark.parametrize(("estimator", "part", "key"), LIES, ids=lambda value: value if isinstance(value, str) else "")
@pytest.mark.parametrize("value", [0, -1, 1, 2**31])
def test_packed_trees_that_lie_are_refused_or_harmless(monkeypatch, estimator, part, key, value):
    """The counts decide where one tree ends and the next begins."""
    name = "pack_predictors" if part is None else "pack_trees"
    pack = getattr(trees, name)

    def lie(items):
        packed = pack(items)
        arrays = packed if part is None or packed is None else packed[part]
        if arrays is not None:
            old = arrays[key]
            arrays[key] = value if isinstance(old, int) else np.full_like(old, value)
        return packed

    monkeypatch.setattr(trees, name, lie)
    data = skops_format.dump(estimator)
    with contextlib.suppress(ModelLoadError):
        assert skops_format.load(data).predict(X).shape == (60,)


def test_a_tree_of_another_length_is_refused(monkeypatch):
    """Nodes of one tree would be taken for those of the next, whose children lie elsewhere."""
    pack = trees.pack_trees

    def lie(items):
        packed = pack(items)
        if packed is not None:
            packed[2]["node_counts"][:2] += [2, -2]
        return packed

    monkeypatch.setattr(trees, "pack_trees", lie)
    with pytest.raises(UnsafeArtifactError, match="Tree"):
        skops_format.load(skops_format.dump(FOREST))


def test_a_method_of_an_object_has_no_safe_form():
    """Nor has a lambda: the error names it."""
    for function in (lambda x: x, LogisticRegression().fit):
        with pytest.raises(ModelSaveError, match="function"):
            skops_format.dump(changed(LogisticRegression(), extra=function))


@pytest.mark.parametrize("part", ["indices", "indptr"])
def test_masked_numbers_are_no_array(part):
    """A comparison passes over what is masked, and compiled code does not: it would follow those numbers."""
    estimator = sparse_machine()
    members = read_members(skops_format.dump(estimator))
    schema = json.loads(members["schema.json"])
    content = schema["content"]["support_vectors_"]["content"]
    position = {"indices": 1, "indptr": 2}[part]
    masked = {"data": content[position], "mask": None}
    content[position] = {
        "__loader__": "MaskedArrayNode",
        "__module__": "numpy.ma",
        "__class__": "MaskedArray",
        "content": masked,
    }
    with pytest.raises((UnsafeArtifactError, ModelLoadError)):
        skops_format.load(archived({**members, "schema.json": json.dumps(schema).encode()}))
    assert skops_format.load(skops_format.dump(changed(estimator, results=np.ma.MaskedArray([1.0])))).results is None
