"""Small fitted models, one of each kind of compiled code, each made once in a process."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from ml_core.domain.version import ServableVersion
from ml_core.ids import ModelId, TenantId, VersionId, VersionRef
from ml_core.models.formats import skops_format
from ml_core.models.store import ArtifactStore
from ml_core.training.fit import FittedModel, fit_model
from ml_core.training.request import TrainingRequest


def table(n_rows: int = 120) -> tuple[pd.DataFrame, pd.Series[Any]]:
    """Numbers, a category and a text, and a target that follows from them."""
    random = np.random.default_rng(7)
    size = random.normal(size=n_rows)
    color = random.choice(["red", "green", "blue"], n_rows)
    words = np.where(size > 0, "please refund my last payment now", "the printer does not print at all")
    frame = pd.DataFrame({"size": size, "color": color, "note": [f"{w} {i % 9}" for i, w in enumerate(words)]})
    return frame, pd.Series(np.where(size > 0, "money", "machine"), name="topic")


def fitted(**hyperparameters: Any) -> FittedModel:
    """A model of that table."""
    return fit_model(TrainingRequest(ModelId("m"), "classification", table(), hyperparameters=hyperparameters))


@cache
def linear() -> FittedModel:
    """A logistic regression."""
    return fitted(algorithm="logistic_regression")


@cache
def forest() -> FittedModel:
    """A forest of five trees."""
    return fitted(algorithm="random_forest", n_estimators=5)


@cache
def boosting() -> FittedModel:
    """Gradient boosting of three rounds."""
    return fitted(algorithm="gradient_boosting", max_iter=3)


def stored(model: FittedModel, store: ArtifactStore) -> ServableVersion:
    """A version of the model, its bytes in the store."""
    artifact = store.put(TenantId("acme"), skops_format.dump(model.pipeline), skops_format.FORMAT)
    return ServableVersion(
        VersionRef(TenantId("acme"), model.model_id, VersionId("1")),
        model.model_type,
        artifact.digest,
        artifact.size_bytes,
        artifact.format,
        model.signature,
        model.self_test,
    )
