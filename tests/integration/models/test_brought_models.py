"""A data scientist's own pipeline: registered with a sample, served over HTTP from raw rows as it answers a frame."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.cross_decomposition import PLSRegression
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.feature_extraction.text import HashingVectorizer, TfidfVectorizer
from sklearn.feature_selection import SelectKBest
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    OneHotEncoder,
    OrdinalEncoder,
    StandardScaler,
    TargetEncoder,
)
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeRegressor

from ml_core.data.reading import rows_from_frame
from ml_core.database.connection import DatabaseConnection
from ml_core.domain.api_key import Scope
from ml_core.exceptions import (
    DataProcessingError,
    ModelLoadError,
    ModelSaveError,
    RefusedArtifactError,
    UnsafeArtifactError,
)
from ml_core.ids import TenantId
from ml_core.manager import ModelManager
from ml_core.registry.model_registry import ModelRegistry
from ml_core.settings import ServingSettings
from support.inprocess_cell import make_cell, promote

pytestmark = pytest.mark.filterwarnings("ignore:.*unknown categories:UserWarning")


def customers(n_rows: int = 240) -> pd.DataFrame:
    """A text, categories of four dtypes, numbers with and without missing values, a boolean and a date."""
    random = np.random.default_rng(3)
    return pd.DataFrame(
        {
            "age": random.integers(18, 90, n_rows),
            "income": np.where(random.random(n_rows) < 0.1, np.nan, random.normal(3e4, 1e4, n_rows)).astype("float32"),
            "city": random.choice(np.array(["Berlin", "Rome", None], dtype=object), n_rows),
            "plan": pd.Categorical(random.choice(["free", "pro"], n_rows), categories=["pro", "free"]),
            "region": pd.Series(random.choice(["True", "1.0", "north"], n_rows), dtype="str"),
            "code": random.choice([1, 2, 3], n_rows),
            "visits": pd.array(random.choice([1, 2, None], n_rows), dtype="Int64"),
            "active": random.random(n_rows) > 0.5,
            "since": pd.date_range("2024-01-01", periods=n_rows, freq="7h"),
            "note": [f"please call {word} now" for word in random.choice(["me", "you", "him"], n_rows)],
        }
    )


FRAME = customers()
LABELS = np.where((FRAME.age > 50) ^ FRAME.active, "yes", "no")
VALUES = FRAME.age * 2.0 + FRAME.code


def prepared(*, sparse: bool = True) -> ColumnTransformer:
    """What most pipelines begin with."""
    numbers, categories = ["age", "income", "visits"], ["city", "plan", "region", "code"]
    encode = make_pipeline(
        SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore", sparse_output=sparse)
    )
    return ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(add_indicator=True), StandardScaler()), numbers),
            ("categories", encode, categories),
            ("text", TfidfVectorizer(max_features=5) if sparse else TfidfVectorizer(), "note"),
            ("rest", "passthrough", ["active"]),
        ],
        sparse_threshold=1.0 if sparse else 0.0,
    )


_NUMBERS = ["age", "income", "code"]
_TEXT = FeatureUnion([("words", TfidfVectorizer()), ("hashed", HashingVectorizer(n_features=64))])
_SOFT = VotingClassifier([("l", LogisticRegression(max_iter=2000)), ("f", RandomForestClassifier(5))], voting="soft")
MODELS: dict[str, tuple[Any, Any, Any]] = {
    "logistic regression": (make_pipeline(prepared(), LogisticRegression(max_iter=2000)), FRAME, LABELS),
    "forest": (make_pipeline(prepared(), RandomForestClassifier(20, random_state=0)), FRAME, LABELS),
    "boosted trees": (make_pipeline(prepared(sparse=False), GradientBoostingClassifier(n_estimators=5)), FRAME, LABELS),
    "support vectors on sparse": (make_pipeline(prepared(), SVC()), FRAME, LABELS),
    "neighbours": (make_pipeline(prepared(sparse=False), PCA(3), KNeighborsClassifier()), FRAME, LABELS),
    "search": (
        GridSearchCV(make_pipeline(prepared(), SGDClassifier(random_state=0)), {"sgdclassifier__alpha": [1e-4, 1e-2]}),
        FRAME,
        LABELS,
    ),
    "voting": (make_pipeline(prepared(), SelectKBest(k=8), _SOFT), FRAME, LABELS),
    "stack": (
        make_pipeline(prepared(), StackingClassifier([("l", LogisticRegression(max_iter=2000)), ("k", SVC())])),
        FRAME,
        LABELS,
    ),
    "categories of pandas": (
        HistGradientBoostingClassifier(categorical_features="from_dtype", max_iter=5),
        FRAME[["age", "income", "plan", "active"]],
        LABELS,
    ),
    "dates": (
        make_pipeline(
            ColumnTransformer(
                [
                    ("o", OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), ["since"]),
                    ("h", OneHotEncoder(), ["since"]),
                ]
            ),
            LogisticRegression(max_iter=2000),
        ),
        FRAME,
        LABELS,
    ),
    "columns by position": (
        make_pipeline(
            ColumnTransformer([("n", FunctionTransformer(np.log1p), [0]), ("m", KNNImputer(), [1])]),
            KBinsDiscretizer(3),
            LogisticRegression(),
        ),
        FRAME,
        LABELS,
    ),
    "ordinals and targets": (
        make_pipeline(
            ColumnTransformer(
                [
                    ("o", OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), ["region", "plan"]),
                    ("t", TargetEncoder(), ["city"]),
                ]
            ),
            LogisticRegression(),
        ),
        FRAME,
        LABELS,
    ),
    "a target's logarithm": (
        TransformedTargetRegressor(make_pipeline(SimpleImputer(), Ridge()), func=np.log1p, inverse_func=np.expm1),
        FRAME[_NUMBERS],
        VALUES,
    ),
    "a matrix": (make_pipeline(SimpleImputer(), StandardScaler(), Ridge()), FRAME[_NUMBERS].to_numpy(), VALUES),
    "a series of texts": (make_pipeline(_TEXT, TruncatedSVD(3), LogisticRegression()), FRAME["note"], LABELS),
    "clusters": (make_pipeline(StandardScaler(), KMeans(3, n_init=2, random_state=0)), FRAME[["age", "code"]], None),
    "anomalies": (IsolationForest(n_estimators=20, random_state=0), FRAME[["age", "code"]], None),
}
_TYPES = {"clusters": "clustering", "anomalies": "anomaly_detection", "a matrix": "regression"}
_TYPES["a target's logarithm"] = "regression"


@pytest.fixture
def manager(db: DatabaseConnection, tenant_id: TenantId, tmp_path: Path) -> ModelManager:
    return ModelManager(db, tmp_path / "store", tenant_id)


def table(sample: Any) -> pd.DataFrame:
    """A sample as the table whose rows a client would send."""
    if isinstance(sample, np.ndarray):
        return pd.DataFrame(sample, columns=[f"x{index}" for index in range(sample.shape[1])])
    return sample.to_frame() if isinstance(sample, pd.Series) else sample


@pytest.mark.parametrize("name", list(MODELS))
def test_raw_rows_are_answered_as_a_frame_is(manager: ModelManager, tmp_path: Path, name: str) -> None:
    """Every row of the training table over HTTP, with its missing values, dates, texts and categories."""
    model, data, target = MODELS[name]
    model.fit(data) if target is None else model.fit(data, target)
    joblib.dump(model, tmp_path / "m.joblib")
    manager.register_model("m", _TYPES.get(name, "classification"), tmp_path / "m.joblib", sample=data[:50])
    version = manager.get_model("m").servable
    assert len(version.self_test.rows) == 5
    cell = make_cell(manager.store, ServingSettings())
    promote(cell.table, version)
    key = cell.key(manager.tenant_id, Scope.PREDICT)
    path = f"/t/{manager.tenant_id}/models/m/predict"
    response = cell.ask("POST", path, key=key, json={"rows": rows_from_frame(table(data))})
    assert response.status_code == 200, response.text
    found, expected = response.json()["predictions"], model.predict(data).tolist()
    assert found == (pytest.approx(expected) if isinstance(expected[0], float) else expected)


def test_what_may_be_missing_is_asked_of_the_model(manager: ModelManager, tmp_path: Path) -> None:
    """An imputed column may be, whatever the sample holds; one that the estimator needs is refused by its name."""
    model = make_pipeline(
        ColumnTransformer([("i", SimpleImputer(), ["age"]), ("p", "passthrough", ["code"])]), LogisticRegression()
    ).fit(FRAME, LABELS)
    joblib.dump(model, tmp_path / "m.joblib")
    manager.register_model("m", "classification", tmp_path / "m.joblib", sample=FRAME.head(5))
    nullable = {c.name: c.nullable for c in manager.get_model("m").servable.signature.inputs}
    assert nullable["age"]
    assert not nullable["code"]


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (FRAME.drop(columns=["note"]), "'note'"),
        (FRAME.iloc[:0], "not a table with rows"),
        ("text", "not a table with rows"),
        (FRAME.assign(city=[object()] * len(FRAME)), "'city'"),
        (FRAME.assign(city=None), "'city'"),
        (FRAME.assign(note=1), "does not answer the sample"),
    ],
)
def test_a_sample_that_does_not_fit_is_refused(
    manager: ModelManager, tmp_path: Path, sample: Any, message: str
) -> None:
    """It says what is wrong with it, and nothing is registered."""
    joblib.dump(make_pipeline(prepared(), LogisticRegression(max_iter=2000)).fit(FRAME, LABELS), tmp_path / "m.joblib")
    with pytest.raises(DataProcessingError, match=message):
        manager.register_model("m", "classification", tmp_path / "m.joblib", sample=sample)
    assert manager.list_models() == []


@pytest.mark.parametrize("with_sample", [True, False])
@pytest.mark.parametrize(
    ("model", "model_type"),
    [
        (Ridge(), "regression"),
        (KNeighborsClassifier(), "classification"),
        (DecisionTreeRegressor(), "regression"),
        (RandomForestClassifier(3), "classification"),
        (MultiOutputClassifier(LogisticRegression()), "classification"),
        (make_pipeline(StandardScaler(), ClassifierChain(LogisticRegression())), "classification"),
        (PLSRegression(1), "regression"),
    ],
)
def test_several_targets_are_refused_by_name(
    manager: ModelManager, tmp_path: Path, model: Any, model_type: str, with_sample: bool
) -> None:
    """An answer is one label or number; the error says what to do instead."""
    X = FRAME[["age", "code"]]
    joblib.dump(model.fit(X, X.gt(X.median())), tmp_path / "m.joblib")
    with pytest.raises((DataProcessingError, UnsafeArtifactError), match="several targets") as caught:
        manager.register_model("m", model_type, tmp_path / "m.joblib", sample=X if with_sample else None)
    assert "a model for each target" in str(caught.value)
    assert manager.list_models() == []


@pytest.mark.parametrize("model", [LogisticRegression(), make_pipeline(StandardScaler(), RandomForestClassifier())])
@pytest.mark.parametrize("sample", [None, FRAME[["age"]]])
def test_what_was_never_fitted_is_refused(manager: ModelManager, tmp_path: Path, model: Any, sample: Any) -> None:
    """At registration, not when it is promoted."""
    joblib.dump(clone(model), tmp_path / "m.joblib")
    with pytest.raises(DataProcessingError, match="not fitted"):
        manager.register_model("m", "classification", tmp_path / "m.joblib", sample=sample)
    assert manager.list_models() == []


def test_what_does_not_predict_is_refused_by_name(manager: ModelManager, tmp_path: Path) -> None:
    """A transformer is no model; training it again would not help."""
    for model in (StandardScaler(), make_pipeline(SimpleImputer(), StandardScaler())):
        joblib.dump(model.fit(FRAME[["age"]]), tmp_path / "m.joblib")
        with pytest.raises(ModelLoadError, match="does not predict") as caught:
            manager.register_model("m", "classification", tmp_path / "m.joblib")
        assert "a pipeline that ends with one" in str(caught.value)


@pytest.mark.parametrize("said", ["classification", "regression", "clustering", "anomaly_detection"])
@pytest.mark.parametrize(
    ("model", "own"),
    [
        (LogisticRegression(), "classification"),
        (make_pipeline(StandardScaler(), Ridge()), "regression"),
        (KMeans(2), "clustering"),
        (IsolationForest(n_estimators=3), "anomaly_detection"),
    ],
)
@pytest.mark.parametrize("sample", [None, FRAME[["age"]]])
def test_a_model_of_another_type_is_refused(
    manager: ModelManager, tmp_path: Path, model: Any, own: str, said: str, sample: Any
) -> None:
    """A regression that was registered as a classification would answer -0.07 for a class."""
    joblib.dump(clone(model).fit(FRAME[["age"]], (FRAME.age > 50).astype(int)), tmp_path / "m.joblib")
    if said == own:
        manager.register_model("m", said, tmp_path / "m.joblib", sample=sample)
        return
    with pytest.raises(DataProcessingError, match=f"is of the type {own}, not {said}"):
        manager.register_model("m", said, tmp_path / "m.joblib", sample=sample)
    assert manager.list_models() == []


def test_texts_in_a_frame_are_not_a_series(manager: ModelManager, tmp_path: Path) -> None:
    """A vectorizer would read a frame's column names: the error says how to give the texts."""
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(FRAME["note"], LABELS)
    joblib.dump(model, tmp_path / "m.joblib")
    with pytest.raises(DataProcessingError, match="Series"):
        manager.register_model("m", "classification", tmp_path / "m.joblib", sample=FRAME)


def test_a_model_of_the_platform_needs_no_sample(manager: ModelManager, tmp_path: Path) -> None:
    """It knows its columns."""
    from support.model_files import platform_pipeline, save

    with pytest.raises(DataProcessingError, match="already"):
        manager.register_model("m", "classification", save(platform_pipeline(), tmp_path / "m.skops"), sample=FRAME)


class OfScript(BaseEstimator, TransformerMixin):
    """A step that a test defines as if it were in a script."""

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return X


def test_a_class_of_a_script_is_refused_with_where_to_put_it(manager, tmp_path, monkeypatch):
    """No other process has it: it belongs into a module."""
    monkeypatch.setattr(OfScript, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "OfScript", OfScript, raising=False)
    model = make_pipeline(OfScript(), LogisticRegression()).fit(FRAME[["code"]], LABELS)
    joblib.dump(model, tmp_path / "m.joblib")
    with pytest.raises(RefusedArtifactError, match=r"__main__\.OfScript.*put it as a class into a module"):
        manager.register_model("m", "classification", tmp_path / "m.joblib", sample=FRAME.head(5))


def test_a_model_in_the_place_of_its_file_is_refused(manager, db):
    """The message says how it becomes a file."""
    for register in (manager.register_model, ModelRegistry(db, manager.tenant_id).register_version):
        with pytest.raises(ModelSaveError, match=r"is a LogisticRegression\. Write the model with joblib\.dump"):
            register("m", "1", LogisticRegression())
