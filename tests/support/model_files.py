"""Small fitted models as files, for tests of the registry and of the model manager."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import Pipeline

from ml_core.data.encoding.table import TableEncoder
from ml_core.models.formats import skops_format


def platform_pipeline(seed: int = 0) -> Any:
    """A pipeline as the platform's training makes it: raw columns in, one of two classes out."""
    rng = np.random.default_rng(seed)
    text = np.array(["router is down", "invoice is wrong"] * 10, dtype=object)
    columns = {"text": text, "age": rng.normal(size=20)}
    labels = np.array(["network", "billing"] * 10)
    encoder = TableEncoder(columns=(("text", "text"), ("age", "number")))
    return Pipeline([("encode", encoder), ("estimate", LogisticRegression())]).fit(columns, labels)


def foreign_regressor() -> Any:
    """An estimator that a caller fitted on a bare matrix."""
    return LinearRegression().fit(np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0]]), np.array([1.0, 2.0, 3.0]))


def save(model: Any, path: Path) -> Path:
    """Write a model as skops, or as joblib if the path says so."""
    if path.suffix == ".joblib":
        joblib.dump(model, path)
    else:
        path.write_bytes(skops_format.dump(model))
    return path
