"""Versions with real bytes, and somebody who acts while gates are evaluated: for tests of gates."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.api_key import Scope
from ml_core.domain.principal import Principal
from ml_core.domain.version import VersionDraft
from ml_core.ids import Digest, EnvironmentName, ModelId, TenantId, VersionId
from ml_core.models.formats import skops_format
from ml_core.models.store import LocalStore, platform_store
from ml_core.registry.versions.repository import VersionRepository
from ml_core.training.fit import FittedModel, fit_model
from ml_core.training.request import TrainingRequest

PEOPLE = ModelId("people")


class WatchedStore(LocalStore):
    """A store that calls back while an artifact is verified: in the middle of an evaluation."""

    def __init__(self, db: DatabaseConnection, meanwhile: Callable[[], Any]) -> None:
        super().__init__(db.settings.platform.artifact_root)
        self._meanwhile = meanwhile

    def verify(self, tenant_id: TenantId, digest: Digest, size_bytes: int) -> None:
        super().verify(tenant_id, digest, size_bytes)
        self._meanwhile()


def somebody(
    db: DatabaseConnection, name: str, *scopes: Scope, promotes: tuple[EnvironmentName, ...] = ()
) -> DatabaseConnection:
    """The registry, as somebody with these scopes."""
    return db.acting_as(Principal(name, frozenset(scopes), frozenset(promotes)))


def people(n_rows: int, seed: int, *, noise: float = 0.0) -> tuple[pd.DataFrame, pd.Series[Any]]:
    """Two numbers, and a label that follows from them except for a share of the rows."""
    random = np.random.default_rng(seed)
    frame = pd.DataFrame(random.normal(size=(n_rows, 2)).round(3), columns=["height", "weight"])
    is_tall = (frame["height"] + frame["weight"] > 0).to_numpy() ^ (random.random(n_rows) < noise)
    return frame, pd.Series(np.where(is_tall, "tall", "small"), name="size")


@cache
def logistic(seed: int, noise: float) -> FittedModel:
    """A logistic regression of such people; with much noise a bad one."""
    data = people(300, seed, noise=noise)
    request = TrainingRequest(PEOPLE, "classification", data, hyperparameters={"algorithm": "logistic_regression"})
    return fit_model(request)


def publish(db: DatabaseConnection, tenant_id: TenantId, version: str, model: FittedModel, **fields: Any) -> VersionId:
    """Register a model with its bytes."""
    given = {"signature": model.signature, "self_test": model.self_test, "metrics": model.metrics, **fields}
    draft = VersionDraft(model_id=model.model_id, model_type=model.model_type, version=VersionId(version), **given)
    publisher = VersionRepository(db, tenant_id, platform_store(db.settings))
    return publisher.publish(draft, skops_format.dump(model.pipeline), skops_format.FORMAT).version
