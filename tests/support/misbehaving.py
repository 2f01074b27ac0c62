"""Models that misbehave on marked rows, served by a running platform; see ``support.broken``."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import joblib
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ml_core.database.connection import DatabaseConnection
from ml_core.settings import ModelSettings
from ml_core.system import MLSystem
from support import acme
from support.running_platform import RunningPlatform, TestTenant
from support.tables import measures, split_target
from support.waiting import wait_until

X, y = split_target(measures(), "outcome")
ROW = X.iloc[0].to_dict()
BAD = {**ROW, "m0": -999.0}
"""A marked row."""


@contextmanager
def serving_broken(platform: RunningPlatform, folder: Path) -> Iterator[Callable[..., TestTenant]]:
    """Gives a function that has the tenant of a name serve models (``model=how``), each of which misbehaves so."""
    settings = dataclasses.replace(platform.settings, models=ModelSettings("acme_models"))
    path = folder / "broken.joblib"
    with acme.installed(folder / "site"), DatabaseConnection(settings=settings) as db:
        module = importlib.import_module("acme_models.broken")
        scaler = StandardScaler().fit(X)
        sound = LogisticRegression().fit(scaler.transform(X), y)

        def serve(name: str, **models: str) -> TestTenant:
            tenant = platform.tenant(name)
            system = MLSystem(db, tenant_id=tenant.tenant_id)
            for model, how in models.items():
                joblib.dump(make_pipeline(scaler, module.Broken(sound, how)), path)
                system.models.register_model(model, "classification", path, sample=X.head(10))
                version = system.registry.get_model_version(model)
                system.registry.promote_version(model, version.version, "production")
            wait_until(lambda: {tenant.predict(model, [ROW]).status_code for model in models} == {200}, 60)
            return tenant

        yield serve
