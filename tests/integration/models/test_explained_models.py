"""Explanations by the Python library, of trained versions and of a data scientist's own pipelines."""

from __future__ import annotations

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import RandomForestRegressor, StackingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from ml_core.exceptions import DataProcessingError, ModelNotFoundError, SignatureMismatchError
from ml_core.system import MLSystem
from support.tables import split_target, tickets

X, Y = split_target(tickets().assign(size=1.0), "category")
NUMBER = np.log1p(X["minutes_open"].fillna(9.0)) + (X["priority"] == "high")


@pytest.fixture
def system(db, tenant_id):
    with MLSystem(db, tenant_id=tenant_id) as system:
        yield system


def test_versions_and_environments_are_explained(system):
    """As they answer ``predict``: one row or many, the version or environment that is named."""
    for algorithm in ("logistic_regression", "random_forest"):
        system.train_model("m", "classification", (X, Y), hyperparameters={"algorithm": algorithm})
    system.promote("m", "1")
    assert system.explain("m", X.iloc[0]).method == "linear"
    found = system.explain("m", X.head(7), version="2")
    assert found.method == "tree"
    assert list(found.predictions) == list(system.predict("m", X.head(7), version="2"))
    probabilities = [list(each.values()) for each in system.predict_proba("m", X.head(7), version="2")]
    np.testing.assert_allclose(found.scores, probabilities, atol=1e-9)
    assert found.to_frame().shape == (7, len(found.columns))
    loaded = system.models.load_model("m", "2")
    np.testing.assert_array_equal(system.predictor.explain(loaded, X.head(7)).contributions, found.contributions)


def test_what_is_not_a_row_is_refused(system):
    """As predict does, and an empty table too."""
    system.train_model("m", "classification", (X, Y), hyperparameters={"algorithm": "decision_tree"})
    with pytest.raises(DataProcessingError, match="no row to explain"):
        system.explain("m", X.head(0))
    with pytest.raises(SignatureMismatchError):
        system.explain("m", {"unknown": 1})
    with pytest.raises(ModelNotFoundError):
        system.explain("nothing", X)


_COLUMNS = ColumnTransformer(
    [
        ("numbers", StandardScaler(), ["size"]),
        ("one-hot", OneHotEncoder(handle_unknown="ignore"), ["priority"]),
        ("words", TfidfVectorizer(), "subject"),
    ]
)
_OWN = {
    "probabilities": (
        make_pipeline(_COLUMNS, StackingClassifier([("t", DecisionTreeClassifier(max_depth=3))], LogisticRegression())),
        Y,
        "probability",
    ),
    "answers only": (make_pipeline(_COLUMNS, SVC()), Y, "agreement"),
    "a wrapped target": (
        make_pipeline(
            _COLUMNS,
            TransformedTargetRegressor(RandomForestRegressor(5, random_state=0), func=np.log1p, inverse_func=np.expm1),
        ),
        NUMBER,
        "target",
    ),
}


@pytest.mark.parametrize("name", _OWN)
def test_own_pipelines_are_sampled(system, tmp_path, name):
    """By raw column, in the unit of the answer; a column that does not vary in the model's eyes adds nothing."""
    pipeline, target, unit = _OWN[name]
    frame = X[["size", "priority", "subject"]]
    file = tmp_path / "own.joblib"
    joblib.dump(pipeline.fit(frame, target), file)
    model_type = "regression" if unit == "target" else "classification"
    system.create_model("own", model_type, str(file), sample=frame.head(20))
    rows = pd.concat([frame.head(2), frame.head(1).assign(priority="unheard of", subject="no such words")])
    found = system.explain("own", rows)
    assert (found.method, found.unit, found.columns) == ("permutation", unit, ("size", "priority", "subject"))
    if unit == "probability":
        expected = pipeline.predict_proba(rows)
    elif unit == "target":
        expected = pipeline.predict(rows)[:, None]
    else:
        expected = np.ones((3, 1))
    np.testing.assert_allclose(found.scores, expected, atol=1e-6)
    np.testing.assert_allclose(found.contributions[:, 0], 0.0, atol=1e-12)
