"""The direction of each metric, for training, comparison and gates."""

from __future__ import annotations

from collections.abc import Mapping

# Metric → whether a higher value is better. Descriptive metrics without a direction, such as ``clusters``, are absent.
HIGHER_IS_BETTER: Mapping[str, bool] = {
    "accuracy": True,
    "adjusted_rand": True,
    "average_precision": True,
    "balanced_accuracy": True,
    "brier_score": False,
    "davies_bouldin": False,
    "f1": True,
    "f1_macro": True,
    "f1_weighted": True,
    "log_loss": False,
    "loss": False,
    "mae": False,
    "mape": False,
    "max_error": False,
    "mse": False,
    "precision": True,
    "r2": True,
    "recall": True,
    "rmse": False,
    "roc_auc": True,
    "silhouette": True,
}
