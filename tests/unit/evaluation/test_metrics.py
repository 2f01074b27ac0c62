"""Metrics of held-out rows: scikit-learn's definitions, and what is left out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics as sk

from ml_core.evaluation import metrics


@st.composite
def answered(draw):
    """Labels, answers and probabilities: rows of one class, ties, and labels that were never trained on or answered."""
    classes = np.array(draw(st.sampled_from([["a", "b"], ["a", "b", "c"], [0, 1], [False, True], [-1, 2, 7]])))
    rows = draw(st.integers(1, 60))
    unseen = {"U": ["x"], "i": [99], "b": []}[classes.dtype.kind]
    labels = np.append(classes, np.array(unseen, dtype=classes.dtype))
    truth, predicted = (
        labels[draw(arrays(np.intp, rows, elements=st.integers(0, n - 1)))] for n in map(len, (labels, classes))
    )
    shares = draw(arrays(np.intp, (rows, len(classes)), elements=st.integers(1, 20)))
    return truth, predicted, shares / shares.sum(axis=1, keepdims=True), classes


@settings(deadline=None)
@given(answered())
def test_classification_agrees_with_scikit_learn(drawn):
    """The definitions are theirs."""
    truth, predicted, probabilities, classes = drawn
    expected = {
        "accuracy": sk.accuracy_score(truth, predicted),
        "balanced_accuracy": sk.recall_score(truth, predicted, average="macro", labels=np.unique(truth)),
        "f1_macro": sk.f1_score(truth, predicted, average="macro", zero_division=0.0),
    }
    known = np.isin(truth, classes)
    if known.any():
        expected["log_loss"] = sk.log_loss(truth[known], probabilities[known], labels=classes)
    if len(classes) == len(np.unique(truth[known])) == 2:
        expected["roc_auc"] = sk.roc_auc_score(truth[known], probabilities[known][:, 1])
    assert metrics.classification(truth, predicted, probabilities, classes) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("predicted", [np.array([0, 1]), np.array(["a", "b", "a"]), np.array([0.5, 1.5])])
def test_answers_that_are_no_labels_of_the_rows_are_refused(predicted):
    """Numbers for strings, or more answers than rows."""
    with pytest.raises((ValueError, IndexError)):
        metrics.classification(np.array(["a", "b"]), predicted, None, np.array(["a", "b"]))


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_a_score_that_is_not_finite_is_refused(broken):
    """It can't be ranked."""
    probabilities = np.array([[0.5, 0.5], [1.0, broken]])
    with pytest.raises(ValueError, match="NaN"):
        metrics.classification(np.array(["a", "b"]), np.array(["a", "b"]), probabilities, np.array(["a", "b"]))


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
