"""Intervals of trained regressions hold the truth of rows that were not seen as often as they say."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_diabetes, load_linnerud

from ml_core.domain.signature import OutputKind
from ml_core.evaluation.diagnostics import interval_coverage
from ml_core.ids import ModelId
from ml_core.training.fit import fit_model
from ml_core.training.request import TrainingRequest

Table = tuple[pd.DataFrame, pd.Series]
SPLITS = 15


def diabetes() -> Table:
    """442 patients (Efron et al., 2004)."""
    return load_diabetes(return_X_y=True, as_frame=True)


def heteroscedastic() -> Table:
    """Rents whose spread grows with the area, and a category."""
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"area": random.gamma(4, 25, 800), "city": random.choice(["a", "b", "c"], 800)})
    rent = frame["area"] * 12 + frame["city"].map({"a": 0, "b": 90, "c": 300})
    return frame, rent + random.normal(size=800) * (20 + frame["area"])


def heavy_tailed() -> Table:
    """Residuals with a variance that hardly exists."""
    random = np.random.default_rng(1)
    frame = pd.DataFrame(random.normal(size=(600, 4)), columns=list("abcd"))
    return frame, frame["a"] * 2 + random.standard_t(2.1, size=600)


@pytest.mark.parametrize("algorithm", ["ridge", "decision_tree"])
@pytest.mark.parametrize("table", [diabetes, heteroscedastic, heavy_tailed])
def test_coverage_on_future_rows(table: Callable[[], Table], algorithm: str) -> None:
    """On average over splits, within three binomial errors, although a tree fits its own rows nearly exactly."""
    frame, target = table()
    frame, target = frame.reset_index(drop=True), target.reset_index(drop=True)
    held: dict[float, list[float]] = {0.8: [], 0.9: []}
    n_future = len(frame) // 4
    for seed in range(SPLITS):
        order = np.random.default_rng(seed).permutation(len(frame))
        future, known = order[:n_future], order[n_future:]
        request = TrainingRequest(
            ModelId("m"),
            "regression",
            (frame.iloc[known], target.iloc[known]),
            hyperparameters={"algorithm": algorithm},
        )
        fitted = fit_model(request)
        predicted = fitted.pipeline.predict(frame.iloc[future])
        for coverage, shares in held.items():
            low, high = fitted.signature.output.intervals(predicted, coverage).T
            truth = target.iloc[future].to_numpy()
            shares.append(float(np.mean((low <= truth) & (truth <= high))))
    for coverage, shares in held.items():
        # A split's coverage varies with its calibration rows and with its future rows: both are binomial.
        rows = fitted.n_rows["validation"]
        error = 3 * math.sqrt(coverage * (1 - coverage) * (1 / rows + 1 / n_future) / SPLITS)
        assert abs(np.mean(shares) - coverage) <= error + 1.5 / rows


def test_the_report_of_a_training_measures_it() -> None:
    """By halves of the held-out rows; a coverage for which half is too few is left out."""
    random = np.random.default_rng(5)
    truth = random.normal(size=400)
    found = interval_coverage(truth, np.zeros(400))
    assert [each.coverage for each in found] == [0.5, 0.8, 0.9, 0.95]
    assert all(each.measured == pytest.approx(each.coverage, abs=0.03) for each in found)
    assert [each.coverage for each in interval_coverage(truth[:12], np.zeros(12))] == [0.5, 0.8]
    assert interval_coverage(truth[:1], np.zeros(1)) == ()


def test_only_a_regression_has_intervals() -> None:
    """The signature of a classifier is what it was."""
    data = load_linnerud(return_X_y=True, as_frame=True)[0]
    label = pd.Series(["a", "b"] * (len(data) // 2))
    request = TrainingRequest(ModelId("m"), None, (data, label), hyperparameters={"algorithm": "ridge"})
    signature = fit_model(request).signature
    assert signature.output.kind is OutputKind.CLASSES
    assert signature.to_json()["output"] == {"kind": "classes", "classes": ["a", "b"]}
