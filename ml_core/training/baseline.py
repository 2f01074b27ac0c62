"""What a model must beat: an answer that looks at no column, measured on the same held-out rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml_core.domain.signature import OutputKind
from ml_core.training import metrics
from ml_core.training.metrics import Metrics


def baseline(y_train: NDArray[Any] | None, y_held_out: NDArray[Any] | None, output: OutputKind) -> Metrics:
    """Metrics of the majority class (its probabilities are the class shares), or of the mean.

    Empty for clustering and anomaly detection, which have no such answer.

    Args:
        y_train: ``(n_train,)`` what the answer is taken from.
        y_held_out: ``(n_held_out,)`` what it is measured on.
        output: What the model answers.
    """
    if y_train is None or y_held_out is None:
        return {}
    n_rows = len(y_held_out)
    if output is OutputKind.CLASSES:
        classes, counts = np.unique(y_train, return_counts=True)
        shares = np.tile(counts / counts.sum(), (n_rows, 1))
        majority = np.repeat(classes[counts.argmax()], n_rows)
        return metrics.classification(y_held_out, majority, shares, classes)
    if output is OutputKind.NUMBER:
        return metrics.regression(y_held_out, np.full(n_rows, y_train.mean()))
    return {}
