"""Metrics of held-out rows: scikit-learn's definitions, and what is left out."""

import numpy as np
import pytest
from sklearn import metrics as sk

from ml_core.evaluation import metrics


def test_classification_agrees_with_scikit_learn():
    """The definitions are theirs."""
    random = np.random.default_rng(0)
    classes = np.array(["a", "b"])
    truth = random.choice(classes, 200)
    share = random.uniform(0.05, 0.95, 200)
    probabilities = np.column_stack([1 - share, share])
    predicted = classes[probabilities.argmax(axis=1)]
    found = metrics.classification(truth, predicted, probabilities, classes)
    assert found == pytest.approx(
        {
            "accuracy": sk.accuracy_score(truth, predicted),
            "balanced_accuracy": sk.balanced_accuracy_score(truth, predicted),
            "f1_macro": sk.f1_score(truth, predicted, average="macro"),
            "log_loss": sk.log_loss(truth, probabilities),
            "roc_auc": sk.roc_auc_score(truth, share),
        }
    )


def test_regression_agrees_with_scikit_learn():
    """The definitions are theirs."""
    random = np.random.default_rng(0)
    truth, predicted = random.normal(size=(2, 50))
    assert metrics.regression(truth, predicted) == pytest.approx(
        {
            "mae": sk.mean_absolute_error(truth, predicted),
            "rmse": sk.root_mean_squared_error(truth, predicted),
            "r2": sk.r2_score(truth, predicted),
        }
    )


def test_what_is_not_defined_is_left_out():
    """r2 of a constant, ROC AUC of one class, log loss of unknown labels only."""
    assert set(metrics.regression(np.ones(3), np.zeros(3))) == {"mae", "rmse"}
    classes, share = np.array(["a", "b"]), np.full((2, 2), 0.5)
    one = metrics.classification(np.array(["a", "a"]), np.array(["a", "b"]), share, classes)
    assert set(one) == {"accuracy", "balanced_accuracy", "f1_macro", "log_loss"}
    none = metrics.classification(np.array(["x", "y"]), np.array(["a", "b"]), share, classes)
    assert "log_loss" not in none
    assert none["accuracy"] == 0.0
