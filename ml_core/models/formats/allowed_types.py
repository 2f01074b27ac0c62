"""The types that an artifact may hold: the platform's own list, in code, by exact name.

A list stored with the artifact would be the attacker's (mlflow GHSA-w582-9x45-8mpx), and what a library trusts by
default changes with the library: skops trusts every scikit-learn estimator, also those that call a function they are
given. So this list is complete in itself: what is not named here is refused, whoever else trusts it.

To add a type, show that building it from hostile attributes and calling its ``predict`` runs no code of the
attacker's, and if it is compiled code, that ``native.check_native`` bounds every index that it follows.
"""

from __future__ import annotations

_ENCODERS = frozenset(
    {
        "ml_core.data.encoding.category.CategoryEncoder",
        "ml_core.data.encoding.datetime.DatetimeEncoder",
        "ml_core.data.encoding.number.NumberEncoder",
        "ml_core.data.encoding.table.TableEncoder",
        "ml_core.data.encoding.text.TextEncoder",
    }
)

_ESTIMATORS = frozenset(
    {
        "sklearn.cluster._kmeans.KMeans",
        "sklearn.ensemble._forest.ExtraTreesClassifier",
        "sklearn.ensemble._forest.ExtraTreesRegressor",
        "sklearn.ensemble._forest.RandomForestClassifier",
        "sklearn.ensemble._forest.RandomForestRegressor",
        "sklearn.ensemble._hist_gradient_boosting.gradient_boosting.HistGradientBoostingClassifier",
        "sklearn.ensemble._hist_gradient_boosting.gradient_boosting.HistGradientBoostingRegressor",
        "sklearn.ensemble._iforest.IsolationForest",
        "sklearn.linear_model._base.LinearRegression",
        "sklearn.linear_model._coordinate_descent.ElasticNet",
        "sklearn.linear_model._coordinate_descent.Lasso",
        "sklearn.linear_model._logistic.LogisticRegression",
        "sklearn.linear_model._ridge.Ridge",
        "sklearn.linear_model._ridge.RidgeClassifier",
        "sklearn.mixture._gaussian_mixture.GaussianMixture",
        "sklearn.naive_bayes.GaussianNB",
        "sklearn.naive_bayes.MultinomialNB",
        "sklearn.pipeline.Pipeline",
        "sklearn.svm._classes.LinearSVC",
        "sklearn.svm._classes.LinearSVR",
        "sklearn.tree._classes.DecisionTreeClassifier",
        "sklearn.tree._classes.DecisionTreeRegressor",
        "sklearn.tree._classes.ExtraTreeClassifier",
        "sklearn.tree._classes.ExtraTreeRegressor",
    }
)

# Steps of pipelines that callers bring, and parts of estimators. None of them makes a sparse matrix: one built from
# hostile state can hold column numbers that compiled code would follow out of its arrays (so, no OneHotEncoder).
_TRANSFORMERS = frozenset(
    {
        "sklearn.impute._base.SimpleImputer",
        "sklearn.preprocessing._data.MinMaxScaler",
        "sklearn.preprocessing._data.RobustScaler",
        "sklearn.preprocessing._data.StandardScaler",
        "sklearn.preprocessing._encoders.OrdinalEncoder",
        "sklearn.preprocessing._label.LabelBinarizer",
        "sklearn.preprocessing._label.LabelEncoder",
    }
)

# What fitted estimators carry inside.
_PARTS = frozenset(
    {
        "sklearn._loss.link.HalfLogitLink",
        "sklearn._loss.link.IdentityLink",
        "sklearn._loss.link.Interval",
        "sklearn._loss.link.LogLink",
        "sklearn._loss.link.LogitLink",
        "sklearn._loss.link.MultinomialLogit",
        "sklearn._loss.loss.AbsoluteError",
        "sklearn._loss.loss.HalfBinomialLoss",
        "sklearn._loss.loss.HalfGammaLoss",
        "sklearn._loss.loss.HalfMultinomialLoss",
        "sklearn._loss.loss.HalfPoissonLoss",
        "sklearn._loss.loss.HalfSquaredError",
        "sklearn._loss.loss.PinballLoss",
        "sklearn.ensemble._hist_gradient_boosting.binning._BinMapper",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    }
)

_COMPILED_LOSSES = frozenset(
    f"sklearn._loss._loss.Cy{name}"
    for name in (
        "AbsoluteError",
        "HalfBinomialLoss",
        "HalfGammaLoss",
        "HalfMultinomialLoss",
        "HalfPoissonLoss",
        "HalfSquaredError",
        "PinballLoss",
    )
)

_SCALARS = frozenset(
    f"numpy.{name}"
    for name in (
        *("bool", "float32", "float64", "str_"),
        *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
    )
)

# skops's name of a node kind → the types that may appear in it. A kind that is not here (functions, methods, partials,
# operators, bytes, reduce calls) is refused whatever type it names.
ALLOWED: dict[str, frozenset[str]] = {
    "DTypeNode": frozenset({"numpy.dtype"}),
    "DictNode": frozenset({"builtins.dict"}),
    "JsonNode": frozenset({"builtins.str"}),
    "ListNode": frozenset({"builtins.list"}),
    "LossNode": _COMPILED_LOSSES,
    "NdArrayNode": _SCALARS | {"numpy.ndarray"},
    "ObjectNode": _ENCODERS | _ESTIMATORS | _TRANSFORMERS | _PARTS,
    "SetNode": frozenset({"builtins.set"}),
    "TreeNode": frozenset({"sklearn.tree._tree.Tree"}),
    "TupleNode": frozenset({"builtins.tuple"}),
    "TypeNode": _SCALARS | {"builtins.bool", "builtins.float", "builtins.int", "builtins.str"},
}

# For skops's own audit, which is the second wall: of the above, what skops does not trust by default. Short on purpose,
# since skops copies it for every node.
TRUSTED: list[str] = sorted(
    _ENCODERS
    | ALLOWED["TreeNode"]
    | {"numpy.dtype", "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"}
)
