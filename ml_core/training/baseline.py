"""The baseline: an answer that ignores all columns, measured on the same held-out rows as the model."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml_core.domain.metric import HIGHER_IS_BETTER
from ml_core.domain.signature import OutputKind
from ml_core.evaluation import metrics
from ml_core.evaluation.metrics import Metrics

_NOISE = 1e-9  # between two metrics that are equal but for rounding
_FORESTS = ("random_forest", "extra_trees")


def baseline(y_train: NDArray[Any] | None, y_held_out: NDArray[Any] | None, output: OutputKind) -> Metrics:
    """Metrics on ``(n_held_out,)`` targets of the majority class of ``(n_train,)``, or of their mean.

    The probabilities of the majority class are the class shares. Empty for clustering and anomaly detection, which have
    no baseline.
    """
    if y_train is None or y_held_out is None:
        return {}
    n_rows = len(y_held_out)
    if output is OutputKind.CLASSES:
        classes, counts = np.unique(y_train, return_counts=True)
        shares = np.tile(counts / counts.sum(), (n_rows, 1))  # of all constants the least log loss
        majority = np.repeat(classes[counts.argmax()], n_rows)
        return metrics.classification(y_held_out, majority, shares, classes)
    if output is OutputKind.NUMBER:
        return metrics.regression(y_held_out, np.full(n_rows, y_train.mean()))
    return {}


def worse_than_baseline(
    held_out: Metrics, answer: Metrics, algorithm: str, output: OutputKind, *, was_selected: bool = False
) -> list[str]:
    """One sentence with the metrics in which a model is worse than the baseline's answer on the same rows, or none.

    It names what to try instead of the algorithm, unless that was selected from others.
    """
    worse = [
        f"{name} {held_out[name]:.4g} (baseline {value:.4g})"
        for name, value in answer.items()
        if name in held_out and name in HIGHER_IS_BETTER and _loses(held_out[name], value, HIGHER_IS_BETTER[name])
    ]
    if not worse:
        return []
    linear = "logistic_regression" if output is OutputKind.CLASSES else "ridge"
    tries = [] if was_selected else [f"algorithm={'gradient_boosting' if algorithm == linear else linear}"]
    if algorithm in _FORESTS and not was_selected:
        tries.append("min_samples_leaf=20")
    if output is OutputKind.CLASSES and all(name.startswith(("f1", "balanced")) for name in worse):
        tries.append("algorithm=auto with class_weight=balanced" if was_selected else "class_weight=balanced")
    hyperparameter = f"the hyperparameter {' or '.join(tries)}, " if tries else ""
    return [
        f"Worse than the baseline, which ignores all columns, on the held-out rows: {', '.join(worse)}. Try "
        f"{hyperparameter}more rows, or columns that are closer to the target."
    ]


def _loses(value: float, other: float, higher_is_better: bool) -> bool:
    lead = value - other if higher_is_better else other - value
    return lead < -_NOISE * max(abs(value), abs(other))
