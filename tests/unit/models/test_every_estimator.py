"""Every estimator of scikit-learn is fitted, written, read and asked again; those that are refused say why."""

import inspect
import warnings
from functools import cache

import numpy as np
import pytest
from sklearn.base import is_regressor
from sklearn.decomposition import PCA
from sklearn.experimental import enable_halving_search_cv, enable_iterative_imputer  # noqa: F401 - they add estimators
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import f1_score, make_scorer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils import all_estimators

from ml_core.models.formats import skops_format
from ml_core.models.formats.allowed_types import ALLOWED

_NO_NEW_ROWS = "it describes the rows that it was fitted on and answers no new ones"
_TARGET_ONLY = "it transforms targets, so it is no part of a pipeline that answers rows"
REFUSED = {
    **dict.fromkeys(
        (
            *("AgglomerativeClustering", "ClassicalMDS", "DBSCAN", "HDBSCAN", "MDS", "OPTICS", "SpectralBiclustering"),
            *("SpectralClustering", "SpectralCoclustering", "SpectralEmbedding", "TSNE"),
        ),
        _NO_NEW_ROWS,
    ),
    **dict.fromkeys(
        ("EmpiricalCovariance", "GraphicalLasso", "GraphicalLassoCV", "LedoitWolf", "MinCovDet", "OAS"),
        "it estimates a covariance and neither predicts nor transforms",
    ),
    "ShrunkCovariance": "it estimates a covariance and neither predicts nor transforms",
    "KernelDensity": "it scores rows and neither predicts nor transforms; its tree can't be checked",
    "PLSSVD": "its fit_transform gives a pair, so it is no step of a pipeline",
    "PatchExtractor": "it takes images",
}
# On the list, since other estimators hold them.
PARTS_ONLY = {
    **dict.fromkeys(("LabelBinarizer", "LabelEncoder", "MultiLabelBinarizer"), _TARGET_ONLY),
    "NearestNeighbors": "it names neighbours and neither predicts nor transforms",
}
NUMBERS = np.abs(np.random.default_rng(0).normal(size=(60, 4))) + 0.1
CLASSES = np.array(["a", "b", "c"])[np.arange(60) % 3]
VALUES = NUMBERS @ np.array([1.0, 2.0, 3.0, 4.0])
TEXTS = [f"word{i % 7} other{i % 3} the" for i in range(60)]
DICTS = [{"a": i % 3, "b": i % 2} for i in range(60)]
_LINEAR = LogisticRegression()
_TWO = [("l", LogisticRegression()), ("t", DecisionTreeClassifier(max_depth=2))]
ARGUMENTS = {
    "ColumnTransformer": {"transformers": [("s", StandardScaler(), [0, 1]), ("p", "passthrough", slice(2, 3))]},
    "FeatureHasher": {"input_type": "dict"},
    "FeatureUnion": {"transformer_list": [("s", StandardScaler()), ("p", PCA(2))]},
    "FixedThresholdClassifier": {"estimator": _LINEAR, "pos_label": "p"},
    "FrozenEstimator": {"estimator": StandardScaler().fit(NUMBERS)},
    "FunctionTransformer": {"func": np.log1p},
    "GaussianRandomProjection": {"n_components": 2},
    "GridSearchCV": {"estimator": _LINEAR, "param_grid": {"C": [0.1, 1.0]}},
    "HalvingGridSearchCV": {"estimator": _LINEAR, "param_grid": {"C": [0.1, 1.0]}},
    "HalvingRandomSearchCV": {"estimator": _LINEAR, "param_distributions": {"C": [0.1, 1.0]}},
    "KernelCenterer": {},
    "LocalOutlierFactor": {"novelty": True},
    "MissingIndicator": {"features": "all"},
    "Pipeline": {"steps": [("s", StandardScaler()), ("l", _LINEAR)]},
    "RadiusNeighborsClassifier": {"radius": 5.0},
    "RadiusNeighborsRegressor": {"radius": 5.0},
    "RandomizedSearchCV": {"estimator": _LINEAR, "param_distributions": {"C": [0.1, 1.0]}, "n_iter": 2},
    "SelectFdr": {"alpha": 1.0},
    "SelectFpr": {"alpha": 1.0},
    "SelectFwe": {"alpha": 1.0},
    "SparseCoder": {"dictionary": np.eye(4)},
    "SparseRandomProjection": {"n_components": 2},
    "StackingClassifier": {"estimators": _TWO},
    "StackingRegressor": {"estimators": [("a", Ridge()), ("b", Ridge(2.0))]},
    "TransformedTargetRegressor": {"func": np.log1p, "inverse_func": np.expm1},
    "TunedThresholdClassifierCV": {"estimator": _LINEAR, "scoring": make_scorer(f1_score, pos_label="p")},
    "VotingClassifier": {"estimators": _TWO, "voting": "soft"},
    "VotingRegressor": {"estimators": [("a", Ridge()), ("b", Ridge(2.0))]},
}
_SEVERAL_TARGETS = (
    *("CCA", "MultiOutputRegressor", "PLSCanonical", "PLSRegression", "RegressorChain"),
    *("MultiTaskElasticNet", "MultiTaskElasticNetCV", "MultiTaskLasso", "MultiTaskLassoCV"),
)
_TWO_CLASSES = ("FixedThresholdClassifier", "TunedThresholdClassifierCV")
_INPUTS = {
    "CategoricalNB": (NUMBERS > 1).astype(int),
    "CountVectorizer": TEXTS,
    "DictVectorizer": DICTS,
    "FeatureHasher": DICTS,
    "HashingVectorizer": TEXTS,
    "IsotonicRegression": NUMBERS[:, :1],
    "KernelCenterer": NUMBERS @ NUMBERS.T,
    "TfidfVectorizer": TEXTS,
}


@cache
def known() -> dict[str, type]:
    """All public estimators of scikit-learn."""
    return dict(all_estimators())


def fit(name: str):
    """A fitted estimator, with a tree behind it where it only transforms, and the rows that it was fitted on."""
    cls = known()[name]
    parameters = inspect.signature(cls.__init__).parameters
    arguments = dict(ARGUMENTS.get(name, {}))
    if "estimator" in parameters and parameters["estimator"].default is inspect.Parameter.empty:
        arguments.setdefault("estimator", Ridge() if "Regressor" in name else _LINEAR)
    if name in ("SelfTrainingClassifier", "SelectFromModel"):
        arguments["estimator"] = _LINEAR
    estimator = cls(**arguments)
    rows = _INPUTS.get(name, NUMBERS)
    target = VALUES if "Regressor" in name or is_regressor(estimator) else CLASSES
    if name in _SEVERAL_TARGETS:
        target = np.column_stack([VALUES, VALUES[::-1]])
    elif name in ("ClassifierChain", "MultiOutputClassifier"):
        target = np.column_stack([np.arange(60) % 2, np.arange(60) % 3 % 2])
    elif name == "SelfTrainingClassifier":
        target = np.where(np.arange(60) % 5 == 0, -1, np.arange(60) % 2)
    elif name in _TWO_CLASSES:
        target = np.where(NUMBERS[:, 0] > 1, "p", "q")
    if not hasattr(cls, "predict"):
        estimator = Pipeline([("t", estimator), ("m", DecisionTreeClassifier(max_depth=2))])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a search did not converge, or that an estimator is deprecated
        return estimator.fit(rows, target), rows


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", sorted(known().keys() - REFUSED.keys() - PARTS_ONLY.keys()))
def test_an_estimator_answers_as_it_did(name):
    """Equal labels, numbers to the last bits (arrays come back in the layout of BLAS), and equal bytes again."""
    estimator, rows = fit(name)
    data = skops_format.dump(estimator)
    reloaded = skops_format.load(data)
    assert skops_format.dump(reloaded) == data
    for method in ("predict", "predict_proba", "decision_function"):
        if hasattr(estimator, method):
            expected, found = getattr(estimator, method)(rows), getattr(reloaded, method)(rows)
            if np.asarray(expected).dtype.kind == "f":
                np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
            else:
                np.testing.assert_array_equal(found, expected)


def test_the_list_and_scikit_learn_agree():
    """An estimator that a new release brings is decided on, and one that is refused is not on the list."""
    listed = {name.rpartition(".")[2] for name in ALLOWED["ObjectNode"] if name.startswith("sklearn.")}
    assert known().keys() - listed == REFUSED.keys()
    assert listed >= PARTS_ONLY.keys()
