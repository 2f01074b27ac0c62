"""The baseline that a model must beat."""

import numpy as np
import pytest

from ml_core.domain.signature import OutputKind
from ml_core.training.baseline import baseline, worse_than_baseline


def test_the_baseline_is_the_majority_class():
    """Its log loss is that of the class shares."""
    found = baseline(np.array(["a", "a", "a", "b"]), np.array(["a", "b"]), OutputKind.CLASSES)
    assert found["accuracy"] == 0.5
    assert found["log_loss"] == pytest.approx(-np.log(0.75 * 0.25) / 2)


def test_the_baseline_of_a_number_is_the_mean():
    """Of the training part."""
    assert baseline(np.array([1.0, 3.0]), np.array([4.0]), OutputKind.NUMBER) == {"mae": 2.0, "rmse": 2.0}


@pytest.mark.parametrize(
    ("held_out", "answer", "output", "told"),
    [
        ({"accuracy": 0.93}, {"accuracy": 0.94}, OutputKind.CLASSES, "accuracy 0.93 (baseline 0.94)"),
        ({"log_loss": 0.4}, {"log_loss": 0.2}, OutputKind.CLASSES, "log_loss 0.4 (baseline 0.2)"),
        ({"r2": -0.5, "mae": 1.0}, {"r2": 0.0, "mae": 2.0}, OutputKind.NUMBER, "rows: r2 -0.5 (baseline 0). Try"),
        ({"rmse": 3.0, "mae": 3.0}, {"rmse": 2.0, "mae": 2.5}, OutputKind.NUMBER, "rmse 3 (baseline 2), mae 3"),
    ],
)
@pytest.mark.parametrize("algorithm", ["random_forest", "logistic_regression", "ridge", "SomebodysOwn"])
def test_worse_than_the_baseline_is_said(held_out, answer, output, told, algorithm):
    """With both figures, and with another algorithm to try."""
    [note] = worse_than_baseline(held_out, answer, algorithm, output)
    assert note.startswith("Worse than the baseline")
    assert told in note
    assert "hyperparameter algorithm=" in note
    assert f"algorithm={algorithm}" not in note


@pytest.mark.parametrize("held_out", [{"accuracy": 0.94}, {"accuracy": 0.95}, {"accuracy": 0.94 - 1e-12}, {}])
def test_as_good_as_the_baseline_needs_no_word(held_out):
    """Nor does a metric that was not measured."""
    assert worse_than_baseline(held_out, {"accuracy": 0.94}, "random_forest", OutputKind.CLASSES) == []
