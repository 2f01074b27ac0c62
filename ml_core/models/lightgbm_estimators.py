"""LightGBM as estimators of scikit-learn whose state is the model's text: the algorithm ``lightgbm``.

LightGBM's own estimators take any parameter and keep what they got; the state of one from outside could hand any of
LightGBM's settings to compiled code. These have the parameters that are listed, and a state of plain values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import lightgbm
import numpy as np
from joblib.parallel import get_active_backend
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, Options, StrOptions
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from ml_core.models.formats.lightgbm_text import MAX_FEATURES, MAX_TREES, arrays, canonical
from ml_core.models.formats.trees import require

# Equal trees for any number of threads. LightGBM writes to stdout unless it is silent.
_FIXED = {"deterministic": True, "force_row_wise": True, "verbosity": -1}
_FRACTION = Interval(Real, 0, 1, closed="right")
_NOT_NEGATIVE = Interval(Real, 0, None, closed="left")
_OWN = frozenset({"n_estimators", "class_weight", "early_stopping_rounds", "validation_fraction", "n_jobs"})
_ROWS: dict[str, Any] = {"accept_sparse": "csr", "dtype": [np.float64, np.float32], "ensure_all_finite": False}
_LARGEST = float(np.finfo(np.float32).max)  # LightGBM keeps targets as float32


@dataclass(kw_only=True, eq=False, repr=False)
class _LightGBM(BaseEstimator):  # type: ignore[misc]
    """What both have. The parameters have the names and meanings of ``lightgbm.LGBMModel``; these differ or are new.

    Args:
        subsample_freq: 1 by default, so that ``subsample`` has an effect.
        early_stopping_rounds: Stop when the loss on held-out rows has not improved for so many rounds, and keep the
            best round. The rows are a part of those given to ``fit``, so a validation by others stays honest.
        validation_fraction: The part of the rows that is held out for it.
        n_jobs: Threads; None: those of ``joblib.parallel_config`` in a fit, else as -1: OpenMP's number, which
            ``OMP_NUM_THREADS`` sets. It does not change the model.
    """

    n_estimators: int = 100
    learning_rate: float = 0.1
    num_leaves: int = 31
    max_depth: int = -1
    min_child_samples: int = 20
    min_child_weight: float = 1e-3
    min_split_gain: float = 0.0
    subsample: float = 1.0
    subsample_freq: int = 1
    colsample_bytree: float = 1.0
    reg_alpha: float = 0.0
    reg_lambda: float = 0.0
    max_bin: int = 255
    early_stopping_rounds: int | None = None
    validation_fraction: float = 0.1
    random_state: Any = None
    n_jobs: int | None = None

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "n_estimators": [Interval(Integral, 1, MAX_TREES, closed="both")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "num_leaves": [Interval(Integral, 2, 131_072, closed="both")],
        "max_depth": [Interval(Integral, -1, 1_000, closed="both")],
        "min_child_samples": [Interval(Integral, 0, 2**31 - 1, closed="both")],
        **{name: [_NOT_NEGATIVE] for name in ("min_child_weight", "min_split_gain", "reg_alpha", "reg_lambda")},
        **{name: [_FRACTION] for name in ("subsample", "colsample_bytree")},
        "subsample_freq": [Interval(Integral, 0, MAX_TREES, closed="both")],
        "max_bin": [Interval(Integral, 2, 65_535, closed="both")],
        "early_stopping_rounds": [Interval(Integral, 1, MAX_TREES, closed="both"), None],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "random_state": ["random_state"],
        "n_jobs": [Interval(Integral, 1, 1_024, closed="both"), Options(Integral, {-1}), None],
    }

    @staticmethod
    def parameter_aliases() -> dict[str, str]:
        """LightGBM's other names of the parameters → the name here."""
        known = lightgbm.basic._ConfigAliases
        names = [field.name for field in fields(LightGBMClassifier)]
        return {alias: name for name in names for alias in known.get_by_alias(name) if alias not in names}

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit on ``X``, ``(n_rows, n_features)`` dense or CSR with NaN for missing, and ``y``, ``(n_rows,)``.

        Raises:
            ValueError: A parameter, a shape or a target is invalid, or there would be more than 100,000 trees.
        """
        X, y = validate_data(self, X, y, **_ROWS, ensure_min_samples=2)
        self.prepare(X.shape[1], y)
        target = self.encode(y)
        weight = self.weights(target, sample_weight)
        parameters = self.train_parameters()
        kept, held_out = self.divide(target, parameters["seed"])
        callbacks: list[Callable[..., Any]] = []
        if self.early_stopping_rounds is not None:
            callbacks = [lightgbm.early_stopping(self.early_stopping_rounds, verbose=False)]

        def dataset(rows: NDArray[Any], reference: Any = None) -> Any:
            chosen = X if held_out is None else X[rows]
            weights = None if weight is None else weight[rows]
            return lightgbm.Dataset(chosen, target[rows], weight=weights, reference=reference, params=parameters)

        train = dataset(kept)
        booster = lightgbm.train(
            parameters,
            train,
            self.n_estimators,
            valid_sets=None if held_out is None else [dataset(held_out, train)],
            callbacks=callbacks,
        )
        return self.adopt(booster.model_to_string())

    def prepare(self, n_features: int, labels: NDArray[Any]) -> None:
        """Set what is known of the rows before a fit; of a classifier's ``labels`` each class is there at least once.

        Raises:
            ValueError: As ``fit``.
        """
        self._validate_params()
        self.n_features_in_ = n_features
        self._set_classes(labels)
        if self.n_estimators * self.n_outputs > MAX_TREES:
            raise ValueError(f"n_estimators times the {self.n_outputs} classes exceeds {MAX_TREES:,} trees")
        if self.n_features_in_ > MAX_FEATURES:
            raise ValueError(f"there are more than {MAX_FEATURES:,} features")

    def divide(self, target: NDArray[np.float64], seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp] | None]:
        """The numbers of the rows to train on, and of those that early stopping holds out, each ascending.

        Raises:
            ValueError: A class has too few rows.
        """
        rows = np.arange(len(target))
        if self.early_stopping_rounds is None:
            return rows, None
        classes = target if hasattr(self, "classes_") else None
        parts = train_test_split(rows, test_size=self.validation_fraction, random_state=seed, stratify=classes)
        kept, held_out = map(np.sort, parts)
        return kept, held_out

    def weights(self, target: NDArray[np.float64], sample_weight: Any = None) -> NDArray[np.float64] | None:
        """The weight of each row, ``(n_rows,)``, or None for equal ones."""
        return None if sample_weight is None else _check_sample_weight(sample_weight, target)

    def train_parameters(self) -> dict[str, Any]:
        """The parameters for ``lightgbm.train``, except for the number of rounds and early stopping."""
        given = {name: value for name, value in self.get_params().items() if name not in _OWN}
        state = given.pop("random_state")
        seed = int(state) if isinstance(state, Integral) else int(check_random_state(state).randint(2**31 - 1))
        objective, *_ = self._objective.split(" ")
        classes = {"num_class": self.n_outputs} if self.n_outputs > 1 else {}
        _, configured = get_active_backend()
        threads = self.n_jobs or configured or 0
        return {**given, **_FIXED, "seed": seed, "objective": objective, **classes, "num_threads": threads}

    def adopt(self, text: str) -> Self:
        """Take the model of a text that LightGBM wrote for these features and classes.

        Raises:
            UnsafeArtifactError: It is not such a text, see ``lightgbm_text.canonical``.
        """
        text = self.canonical(text)
        self._booster = lightgbm.Booster(model_str=text)
        self._text_bytes = len(text)
        return self

    def canonical(self, text: str) -> str:
        """The canonical form of a text for these features and classes; raises as ``adopt``."""
        return canonical(text, self.n_features_in_, self.n_outputs, self._objective)

    @property
    def feature_importances_(self) -> NDArray[np.float64]:
        """The part of each feature in the gain of all splits, ``(n_features,)``."""
        check_is_fitted(self)
        gain: NDArray[np.float64] = self._booster.feature_importance("gain")
        return gain / (gain.sum() or 1.0)

    def trees(self) -> list[dict[str, NDArray[np.float64]]]:
        """The numbers of each tree, see ``lightgbm_text.arrays``; one tree a score and round, in this order."""
        check_is_fitted(self)
        return arrays(self.canonical(self._booster.model_to_string()))

    def sums(self, X: NDArray[np.float64], of_round: int) -> NDArray[np.float64]:
        """What the trees of one round add to the scores, ``(n_rows,)`` or, of several, ``(n_rows, n_scores)``."""
        return np.asarray(self._booster.predict(X, of_round, 1, raw_score=True, num_threads=self.n_jobs or 0))

    @property
    def n_trees(self) -> int:
        """The number of trees: one a score and round."""
        return int(self._booster.num_trees())

    def _raw_predict(self, X: Any) -> NDArray[np.float64]:
        check_is_fitted(self)
        X = validate_data(self, X, **_ROWS, reset=False)
        return np.asarray(self._booster.predict(X, num_threads=self.n_jobs or 0))

    @property
    def n_outputs(self) -> int:
        """The number of scores: one for each class of more than two, else one."""
        n_classes = len(getattr(self, "classes_", ()))
        return n_classes if n_classes > 2 else 1

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_booster")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = tags.input_tags.allow_nan = True
        return tags

    def __sizeof__(self) -> int:
        # A tree takes about as many bytes as its text.
        return object.__sizeof__(self) + getattr(self, "_text_bytes", 0)

    def __getstate__(self) -> dict[str, Any]:
        state = {name: value for name, value in self.__dict__.items() if not name.startswith("_")}
        if hasattr(self, "_booster"):
            text = self.canonical(self._booster.model_to_string())
            state["text_"] = np.frombuffer(text.encode("ascii"), dtype=np.uint8)
        return state

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Restore a state that may be from outside: nothing of it reaches compiled code unchecked."""
        kind, names = type(self).__name__, {field.name for field in fields(self)}
        fitted = {name: value for name, value in state.items() if name not in names}
        self.__dict__.update({name: value for name, value in state.items() if name in names})
        if not fitted:
            return
        known = {"feature_names_in_", "classes_", "text_", "n_features_in_"}
        require({"n_features_in_", "text_"} <= fitted.keys() <= known, kind)
        text, classes = fitted.pop("text_"), fitted.get("classes_")
        require(type(fitted["n_features_in_"]) is int and fitted["n_features_in_"] > 0, kind)
        if isinstance(self, LightGBMClassifier):
            require(isinstance(classes, np.ndarray) and classes.ndim == 1 and len(classes) > 1, kind)
        else:
            require(classes is None, kind)
        require(isinstance(text, np.ndarray) and text.dtype == np.uint8 and text.ndim == 1, kind)
        self.__dict__.update(fitted)
        self.adopt(text.tobytes().decode("latin-1"))


@dataclass(kw_only=True, eq=False, repr=False)
class LightGBMClassifier(ClassifierMixin, _LightGBM):  # type: ignore[misc]
    """Boosted trees for two or more classes, see ``_LightGBM``; ``class_weight`` is that of scikit-learn."""

    class_weight: Any = None

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **_LightGBM._parameter_constraints,
        "class_weight": [StrOptions({"balanced"}), dict, None],
    }

    @property
    def _objective(self) -> str:
        return f"multiclass num_class:{self.n_outputs}" if self.n_outputs > 1 else "binary sigmoid:1"

    def predict(self, X: Any) -> NDArray[Any]:
        """The most probable class of each row, ``(n_rows,)``."""
        probabilities = self.predict_proba(X)
        labels: NDArray[Any] = self.classes_[probabilities.argmax(axis=1)]
        return labels

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Class probabilities ``(n_rows, n_classes)``, in the order of ``classes_``."""
        answer = self._raw_predict(X)
        return answer if self.n_outputs > 1 else np.column_stack([1.0 - answer, answer])

    def weights(self, target: NDArray[np.float64], sample_weight: Any = None) -> NDArray[np.float64] | None:
        """The weight of each row, that of its class included."""
        given = super().weights(target, sample_weight)
        if self.class_weight is None:
            return given
        by_class: NDArray[np.float64] = compute_sample_weight(self.class_weight, self.classes_[target.astype(np.intp)])
        return by_class if given is None else by_class * given

    def encode(self, y: NDArray[Any]) -> NDArray[np.float64]:
        """The number of each row's class, ``(n_rows,)``."""
        return np.searchsorted(self.classes_, y).astype(np.float64)

    def _set_classes(self, labels: NDArray[Any]) -> None:
        self.classes_ = np.unique(labels)
        if len(self.classes_) < 2:
            raise ValueError("the target has one class only")


@dataclass(kw_only=True, eq=False, repr=False)
class LightGBMRegressor(RegressorMixin, _LightGBM):  # type: ignore[misc]
    """Boosted trees for a number, by least squares, see ``_LightGBM``. LightGBM keeps targets as float32."""

    _objective = "regression"

    def predict(self, X: Any) -> NDArray[np.float64]:
        """The number of each row, ``(n_rows,)``."""
        return self._raw_predict(X)

    def encode(self, y: NDArray[Any]) -> NDArray[np.float64]:
        """The target as LightGBM can hold it, ``(n_rows,)``.

        Raises:
            ValueError: A number is too large.
        """
        target = np.asarray(y, dtype=np.float64)
        if not bool((np.abs(target) < _LARGEST).all()):
            raise ValueError(f"LightGBM takes targets below {_LARGEST:.1e} only")
        return target

    def _set_classes(self, labels: NDArray[Any]) -> None:
        """A number has none."""
