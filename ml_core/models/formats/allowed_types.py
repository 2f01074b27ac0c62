"""The types that an artifact may hold: the platform's own list, in code, by exact name.

A list stored with the artifact would be the attacker's (mlflow GHSA-w582-9x45-8mpx), and a library's default list
changes with the library: skops trusts every scikit-learn estimator, also those that call a function they are given. So
this list is complete: a type that is not named here is refused.

To add a type, show that building it from hostile attributes and calling its ``predict`` runs no code of the
attacker's, and for compiled code that ``native.check_native`` bounds every index that it follows. Python code may get
any attributes: it raises, and numpy and scipy check their indices.
"""

from __future__ import annotations

_ENCODERS = frozenset(
    {
        "ml_core.data.encoding.category.CategoryEncoder",
        "ml_core.data.encoding.datetime.DatetimeEncoder",
        "ml_core.data.encoding.frame.FrameStep",
        "ml_core.data.encoding.number.NumberEncoder",
        "ml_core.data.encoding.table.TableEncoder",
        "ml_core.data.encoding.text.TextEncoder",
    }
)


# It calls preprocess of its processor, which is of a trusted module.
_PROCESSORS = frozenset({"ml_core.data.processor.ProcessorStep"})


def _names(table: dict[str, str]) -> frozenset[str]:
    """``sklearn.module.Class`` of a table from module to classes."""
    return frozenset(f"sklearn.{module}.{name}" for module, names in table.items() for name in names.split())


# All estimators and transformers of scikit-learn 1.9 except those that tests/unit/models/test_every_estimator.py
# lists with the reason. That test fits, writes, reads and compares each of these.
_ESTIMATORS = _names(
    {
        "calibration": "CalibratedClassifierCV",
        "cluster._affinity_propagation": "AffinityPropagation",
        "cluster._agglomerative": "FeatureAgglomeration",
        "cluster._birch": "Birch",
        "cluster._bisect_k_means": "BisectingKMeans",
        "cluster._kmeans": "KMeans MiniBatchKMeans",
        "cluster._mean_shift": "MeanShift",
        "compose._column_transformer": "ColumnTransformer",
        "compose._target": "TransformedTargetRegressor",
        "covariance._elliptic_envelope": "EllipticEnvelope",
        "cross_decomposition._pls": "CCA PLSCanonical PLSRegression",
        "decomposition._dict_learning": "DictionaryLearning MiniBatchDictionaryLearning SparseCoder",
        "decomposition._factor_analysis": "FactorAnalysis",
        "decomposition._fastica": "FastICA",
        "decomposition._incremental_pca": "IncrementalPCA",
        "decomposition._kernel_pca": "KernelPCA",
        "decomposition._lda": "LatentDirichletAllocation",
        "decomposition._nmf": "MiniBatchNMF NMF",
        "decomposition._pca": "PCA",
        "decomposition._sparse_pca": "MiniBatchSparsePCA SparsePCA",
        "decomposition._truncated_svd": "TruncatedSVD",
        "discriminant_analysis": "LinearDiscriminantAnalysis QuadraticDiscriminantAnalysis",
        "dummy": "DummyClassifier DummyRegressor",
        "ensemble._bagging": "BaggingClassifier BaggingRegressor",
        "ensemble._forest": (
            "ExtraTreesClassifier ExtraTreesRegressor RandomForestClassifier RandomForestRegressor RandomTreesEmbedding"
        ),
        "ensemble._gb": "GradientBoostingClassifier GradientBoostingRegressor",
        "ensemble._hist_gradient_boosting.gradient_boosting": (
            "HistGradientBoostingClassifier HistGradientBoostingRegressor"
        ),
        "ensemble._iforest": "IsolationForest",
        "ensemble._stacking": "StackingClassifier StackingRegressor",
        "ensemble._voting": "VotingClassifier VotingRegressor",
        "ensemble._weight_boosting": "AdaBoostClassifier AdaBoostRegressor",
        "feature_extraction._dict_vectorizer": "DictVectorizer",
        "feature_extraction._hash": "FeatureHasher",
        "feature_extraction.text": "CountVectorizer HashingVectorizer TfidfTransformer TfidfVectorizer",
        "feature_selection._from_model": "SelectFromModel",
        "feature_selection._rfe": "RFE RFECV",
        "feature_selection._sequential": "SequentialFeatureSelector",
        "feature_selection._univariate_selection": (
            "GenericUnivariateSelect SelectFdr SelectFpr SelectFwe SelectKBest SelectPercentile"
        ),
        "feature_selection._variance_threshold": "VarianceThreshold",
        "frozen._frozen": "FrozenEstimator",
        "gaussian_process._gpc": "GaussianProcessClassifier",
        "gaussian_process._gpr": "GaussianProcessRegressor",
        "impute._base": "MissingIndicator SimpleImputer",
        "impute._iterative": "IterativeImputer",
        "impute._knn": "KNNImputer",
        "isotonic": "IsotonicRegression",
        "kernel_approximation": "AdditiveChi2Sampler Nystroem PolynomialCountSketch RBFSampler SkewedChi2Sampler",
        "kernel_ridge": "KernelRidge",
        "linear_model._base": "LinearRegression",
        "linear_model._bayes": "ARDRegression BayesianRidge",
        "linear_model._coordinate_descent": (
            "ElasticNet ElasticNetCV Lasso LassoCV MultiTaskElasticNet MultiTaskElasticNetCV MultiTaskLasso "
            "MultiTaskLassoCV"
        ),
        "linear_model._glm.glm": "GammaRegressor PoissonRegressor TweedieRegressor",
        "linear_model._huber": "HuberRegressor",
        "linear_model._least_angle": "Lars LarsCV LassoLars LassoLarsCV LassoLarsIC",
        "linear_model._logistic": "LogisticRegression LogisticRegressionCV",
        "linear_model._omp": "OrthogonalMatchingPursuit OrthogonalMatchingPursuitCV",
        "linear_model._passive_aggressive": "PassiveAggressiveClassifier PassiveAggressiveRegressor",
        "linear_model._perceptron": "Perceptron",
        "linear_model._quantile": "QuantileRegressor",
        "linear_model._ransac": "RANSACRegressor",
        "linear_model._ridge": "Ridge RidgeCV RidgeClassifier RidgeClassifierCV",
        "linear_model._stochastic_gradient": "SGDClassifier SGDOneClassSVM SGDRegressor",
        "linear_model._theil_sen": "TheilSenRegressor",
        "manifold._isomap": "Isomap",
        "manifold._locally_linear": "LocallyLinearEmbedding",
        "mixture._bayesian_mixture": "BayesianGaussianMixture",
        "mixture._gaussian_mixture": "GaussianMixture",
        "model_selection._classification_threshold": "FixedThresholdClassifier TunedThresholdClassifierCV",
        "model_selection._search": "GridSearchCV RandomizedSearchCV",
        "model_selection._search_successive_halving": "HalvingGridSearchCV HalvingRandomSearchCV",
        "multiclass": "OneVsOneClassifier OneVsRestClassifier OutputCodeClassifier",
        "multioutput": "ClassifierChain MultiOutputClassifier MultiOutputRegressor RegressorChain",
        "naive_bayes": "BernoulliNB CategoricalNB ComplementNB GaussianNB MultinomialNB",
        "neighbors._classification": "KNeighborsClassifier RadiusNeighborsClassifier",
        "neighbors._graph": "KNeighborsTransformer RadiusNeighborsTransformer",
        "neighbors._lof": "LocalOutlierFactor",
        "neighbors._nca": "NeighborhoodComponentsAnalysis",
        "neighbors._nearest_centroid": "NearestCentroid",
        "neighbors._regression": "KNeighborsRegressor RadiusNeighborsRegressor",
        "neighbors._unsupervised": "NearestNeighbors",
        "neural_network._multilayer_perceptron": "MLPClassifier MLPRegressor",
        "neural_network._rbm": "BernoulliRBM",
        "pipeline": "FeatureUnion Pipeline",
        "preprocessing._data": (
            "Binarizer KernelCenterer MaxAbsScaler MinMaxScaler Normalizer PowerTransformer QuantileTransformer "
            "RobustScaler StandardScaler"
        ),
        "preprocessing._discretization": "KBinsDiscretizer",
        "preprocessing._encoders": "OneHotEncoder OrdinalEncoder",
        "preprocessing._function_transformer": "FunctionTransformer",
        "preprocessing._label": "LabelBinarizer LabelEncoder MultiLabelBinarizer",
        "preprocessing._polynomial": "PolynomialFeatures SplineTransformer",
        "preprocessing._target_encoder": "TargetEncoder",
        "random_projection": "GaussianRandomProjection SparseRandomProjection",
        "semi_supervised._label_propagation": "LabelPropagation LabelSpreading",
        "semi_supervised._self_training": "SelfTrainingClassifier",
        "svm._classes": "LinearSVC LinearSVR NuSVC NuSVR OneClassSVM SVC SVR",
        "tree._classes": "DecisionTreeClassifier DecisionTreeRegressor ExtraTreeClassifier ExtraTreeRegressor",
    }
)

# Parts of fitted estimators.
_PARTS = _names(
    {
        "_loss.link": "HalfLogitLink IdentityLink Interval LogLink LogitLink MultinomialLogit",
        "_loss.loss": (
            "AbsoluteError ExponentialLoss HalfBinomialLoss HalfGammaLoss HalfMultinomialLoss HalfPoissonLoss "
            "HalfSquaredError HalfTweedieLoss HalfTweedieLossIdentity HuberLoss PinballLoss"
        ),
        "calibration": "_CalibratedClassifier _SigmoidCalibration _TemperatureScaling",
        "cluster._bisect_k_means": "_BisectingTree",
        "compose._column_transformer": "make_column_selector",
        "ensemble._hist_gradient_boosting.binning": "_BinMapper",
        "ensemble._hist_gradient_boosting.predictor": "TreePredictor",
        "gaussian_process._gpc": "_BinaryGaussianProcessClassifierLaplace",
        "gaussian_process.kernels": (
            "CompoundKernel ConstantKernel DotProduct ExpSineSquared Exponentiation Matern PairwiseKernel "
            "Product RBF RationalQuadratic Sum WhiteKernel"
        ),
        "metrics._scorer": "_CurveScorer _PassthroughScorer _Scorer",
        "multiclass": "_ConstantPredictor",
        "neural_network._stochastic_optimizers": "AdamOptimizer SGDOptimizer",
    }
)

_COMPILED_LOSSES = _names(
    {
        "_loss._loss": (
            "CyAbsoluteError CyExponentialLoss CyHalfBinomialLoss CyHalfGammaLoss CyHalfMultinomialLoss "
            "CyHalfPoissonLoss CyHalfSquaredError CyHalfTweedieLoss CyHalfTweedieLossIdentity CyHuberLoss CyPinballLoss"
        ),
        "linear_model._sgd_fast": "EpsilonInsensitive Hinge ModifiedHuber SquaredEpsilonInsensitive SquaredHinge",
    }
)

# Functions that only compute numbers from arrays. Never one that reads a file, imports, or calls an argument.
_NUMPY_FUNCTIONS = (
    "absolute arccos arccosh arcsin arcsinh arctan arctanh cbrt ceil clip conjugate cos cosh deg2rad degrees exp exp2 "
    "expm1 fabs floor isfinite isinf isnan log log10 log1p log2 logical_not max mean median min nan_to_num negative "
    "positive rad2deg radians ravel reciprocal rint round sign sin sinh sqrt square squeeze sum tan tanh trunc"
)
_FUNCTIONS = (
    frozenset(f"numpy.{name}" for name in _NUMPY_FUNCTIONS.split())
    | {"scipy.special.expit", "scipy.special.logit"}
    | _names(
        {
            "feature_selection._mutual_info": "mutual_info_classif mutual_info_regression",
            "feature_selection._univariate_selection": "chi2 f_classif f_oneway f_regression r_regression",
            "metrics._classification": (
                "accuracy_score balanced_accuracy_score brier_score_loss cohen_kappa_score f1_score fbeta_score "
                "jaccard_score log_loss matthews_corrcoef precision_score recall_score"
            ),
            "metrics._ranking": "average_precision_score roc_auc_score",
            "metrics._regression": (
                "explained_variance_score max_error mean_absolute_error mean_absolute_percentage_error "
                "mean_squared_error median_absolute_error r2_score root_mean_squared_error"
            ),
            "utils.validation": "check_array",
        }
    )
)

_SCALARS = frozenset(
    f"numpy.{name}"
    for name in (
        *("bool", "float32", "float64", "str_"),
        *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
    )
)

_SPARSE = frozenset(f"scipy.sparse._{form}.{form}_{kind}" for form in ("csc", "csr") for kind in ("array", "matrix"))
_DICTS = frozenset({"builtins.dict", "collections.OrderedDict", "sklearn.utils._bunch.Bunch"})
_TREES = frozenset(name for name in _ESTIMATORS if name.startswith("sklearn.tree."))

_BOOSTED = frozenset(f"ml_core.models.lightgbm_estimators.LightGBM{kind}" for kind in ("Classifier", "Regressor"))

# Never built and never imported: what serves fitting only (masked arrays are the table of a search's results, and a
# check would pass over their masked numbers), and the search trees of neighbours, whose state can't be checked and
# which loading makes anew. Null is written in their place, and None is read.
_LEFT_OUT_MODULES = frozenset(
    {
        "sklearn.model_selection._split",
        "sklearn.neighbors._ball_tree",
        "sklearn.neighbors._kd_tree",
        "sklearn.utils._metadata_requests",
    }
)
_LEFT_OUT = frozenset(
    {
        "numpy.ma.MaskedArray",
        "numpy.random._generator.Generator",
        "numpy.random.mtrand.RandomState",
        "sklearn.cluster._birch._CFNode",
        "sklearn.cluster._kmeans._kmeans_single_elkan",
        "sklearn.cluster._kmeans._kmeans_single_lloyd",
    }
)


def is_left_out(name: str) -> bool:
    """Whether objects of a type, or a function, are read and written as None; ``name`` is ``module.name``."""
    return name in _LEFT_OUT or name.rpartition(".")[0] in _LEFT_OUT_MODULES


# Kind of node → the types that may appear in it. Other kinds (methods, operators, bytes, reduce calls) are
# refused for every type.
ALLOWED: dict[str, frozenset[str]] = {
    "CachedNode": frozenset({"builtins.object"}),
    "DTypeNode": frozenset({"numpy.dtype"}),
    "DictNode": _DICTS,
    "FunctionNode": _FUNCTIONS,
    "JsonNode": frozenset({"builtins.str"}),
    "ListNode": frozenset({"builtins.list"}),
    "LossNode": _COMPILED_LOSSES,
    "NdArrayNode": _SCALARS | {"numpy.ndarray"},
    "ObjectNode": _BOOSTED | _ENCODERS | _ESTIMATORS | _PARTS | _PROCESSORS,
    "PartialNode": frozenset({"functools.partial"}),  # of a function that is on the list
    "PredictorsNode": frozenset({"builtins.list"}),
    "ScalarNode": _SCALARS,
    "SetNode": frozenset({"builtins.frozenset", "builtins.set"}),
    "SliceNode": frozenset({"builtins.slice"}),
    "SparseMatrixNode": _SPARSE,
    "SplineNode": frozenset({"scipy.interpolate._bsplines.BSpline"}),
    "TreeNode": frozenset({"sklearn.tree._tree.Tree"}),
    "TreesNode": _TREES,
    "TupleNode": frozenset({"builtins.tuple", "sklearn.impute._iterative._ImputerTriplet"}),
    "TypeNode": _SCALARS
    | {f"builtins.{name}" for name in ("NoneType", "bool", "float", "int", "object", "str")}
    | {f"numpy.{name}" for name in ("floating", "integer", "number", "object_")},
}
