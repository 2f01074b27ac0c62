"""Own code of an installed module from training to an answer over HTTP."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.api_key import Scope
from ml_core.domain.version import ModelVersion, RequiredModule
from ml_core.exceptions import InvalidRequestError, RefusedArtifactError, TrainingError, UnsafeArtifactError
from ml_core.ids import TenantId
from ml_core.models import own_types
from ml_core.models.loading import load_version
from ml_core.models.model_factory import ModelFactory
from ml_core.models.store import platform_store
from ml_core.settings import ModelSettings, ServingSettings, Settings
from ml_core.system import MLSystem
from support import acme
from support.inprocess_cell import make_cell, promote
from support.registry import settings_for
from support.tables import measures

DATA = (measures().drop(columns=["outcome"]), measures()["outcome"])
ROW = DATA[0].iloc[0].to_dict()
NEEDED = RequiredModule("acme_models", "acme-models", "1.2")


@pytest.fixture
def module(tmp_path: Path) -> Iterator[Any]:
    """The module, installed in this process, which trained with none of its classes."""
    with acme.installed(tmp_path / "site"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(own_types, "_types", set())
        yield importlib.import_module("acme_models")


def settings(home: Path, modules: str = "acme_models") -> Settings:
    return dataclasses.replace(settings_for(home), models=ModelSettings(modules))


@pytest.fixture
def system(db: DatabaseConnection, embedded_home: Path, tenant_id: TenantId) -> Iterator[MLSystem]:
    """A process of a platform that trusts the module."""
    with DatabaseConnection(settings=settings(embedded_home)) as connection:
        yield MLSystem(connection, tenant_id=tenant_id)


@pytest.fixture
def distrusting(db: DatabaseConnection, tenant_id: TenantId) -> MLSystem:
    """A process of a platform that trusts no module."""
    return MLSystem(db, tenant_id=tenant_id)


def trained(system: MLSystem, how: str, module: Any) -> str:
    """Train with own code in one of its ways; the version's name."""
    if how == "processor":
        return str(
            system.train_model("own", "classification", training_data=DATA, processor=module.Totals())["version"]
        )
    if how == "registered":
        ModelFactory.register("custom", module.build)
    else:
        ModelFactory.create_model = lambda model_type, hyperparameters: (
            module.build(hyperparameters)
            if model_type == "custom"
            else ModelFactory._create_standard_model(model_type, hyperparameters)
        )
    result = system.train_model("own", "custom", training_data=DATA, hyperparameters={"power": 1.5})
    assert result["hyperparameters"] == {"power": 1.5}
    return str(result["version"])


@pytest.fixture(autouse=True)
def standard_factory() -> Iterator[None]:
    """What a test adds to the factory goes with it."""
    create = ModelFactory.create_model
    yield
    ModelFactory.unregister("custom")
    ModelFactory.create_model = create


def answers_over_http(system: MLSystem, version: ModelVersion, trusted: Settings) -> list[Any]:
    """What a cell with these settings answers to the rows of the table."""
    store = platform_store(trusted)
    loader = functools.partial(load_version, store, trust=own_types.trusted(trusted))
    cell = make_cell(store, ServingSettings(), loader)
    promote(cell.table, version.servable)
    key = cell.key(version.tenant_id, Scope.PREDICT)
    body = {"rows": DATA[0].head(50).to_dict("records")}
    answer = cell.ask("POST", f"/t/{version.tenant_id}/models/own/predict", key=key, json=body)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["predictions"])


@pytest.mark.parametrize("how", ["registered", "assigned", "processor"])
def test_own_code_is_trained_promoted_and_served(system: MLSystem, embedded_home: Path, module: Any, how: str) -> None:
    """Answers over HTTP are those of the process that trained; the version names what it needs."""
    name = trained(system, how, module)
    here = system.predict("own", DATA[0].head(50), version=name)
    version = system.registry.get_model_version("own", name)
    assert version.modules == (NEEDED,)
    assert not any("No server loads" in note for note in version.training["notes"])
    assert system.registry.get_lineage("own", name)["modules"] == [NEEDED.to_json()]
    system.registry.promote_version("own", name, "production")
    assert answers_over_http(system, version, settings(embedded_home)) == here.tolist()


def test_an_untrusted_module_is_named_at_training_promotion_and_loading(distrusting: MLSystem, module: Any) -> None:
    """With the distribution, its version and the setting; the version predicts where it was trained."""
    name = trained(distrusting, "registered", module)
    version = distrusting.registry.get_model_version("own", name)
    (note,) = [each for each in version.training["notes"] if "No server" in each]
    said = r"acme_models of acme-models 1\.2 is not named in MLCORE_TRUSTED_MODULES"
    with pytest.raises(InvalidRequestError, match=rf"holds acme_models\.Scorer, which no server loads: {said}\. Let"):
        distrusting.registry.promote_version("own", name, "production")
    with pytest.raises(UnsafeArtifactError, match=said):
        load_version(distrusting.models.store, version.servable)
    assert "acme_models of acme-models 1.2 is not named in MLCORE_TRUSTED_MODULES" in note
    assert len(distrusting.predict("own", DATA[0], version=name)) == len(DATA[0])


def test_a_version_whose_module_is_gone_names_it(system: MLSystem, tmp_path: Path) -> None:
    """What the registry recorded is named, since nothing here knows the distribution."""
    with acme.installed(tmp_path / "site"):
        name = trained(system, "registered", importlib.import_module("acme_models"))
    version = system.registry.get_model_version("own", name)
    with pytest.raises(
        UnsafeArtifactError, match=r"acme_models of acme-models 1\.2 is trusted, but not installed here"
    ):
        load_version(system.models.store, version.servable, own_types.Trust(("acme_models",)))
    with pytest.raises(InvalidRequestError, match="is trusted, but not installed here"):
        system.registry.promote_version("own", name, "production")


@pytest.mark.parametrize("is_same", [True, False])
def test_the_self_test_decides_on_another_version_of_the_distribution(
    system: MLSystem, tmp_path: Path, caplog: pytest.LogCaptureFixture, is_same: bool
) -> None:
    """It serves with a warning if it predicts the same; else the error names both versions."""
    with acme.installed(tmp_path / "site"):
        name = trained(system, "registered", importlib.import_module("acme_models"))
    version = system.registry.get_model_version("own", name).servable
    source = acme.MODULE if is_same else acme.MODULE.replace("far.argmin", "far.argmin").replace("1 / (1 + far)", "far")
    trust = own_types.Trust(("acme_models",))
    said = "acme_models of acme-models 1.2 is of acme-models 2.0 here"
    with acme.installed(tmp_path / "newer", version="2.0", module=source), caplog.at_level(logging.WARNING):
        if is_same:
            load_version(system.models.store, version, trust)
            assert said in caplog.text
        else:
            with pytest.raises(Exception, match=f"failed its self-test.*{said}"):
                load_version(system.models.store, version, trust)


def test_a_pipeline_of_joblib_with_steps_of_its_own_is_served(
    system: MLSystem, distrusting: MLSystem, embedded_home: Path, module: Any, tmp_path: Path
) -> None:
    """Where the module is trusted; elsewhere the file is refused with the setting."""
    X, y = DATA
    steps = importlib.import_module("acme_models.steps")
    pipeline = make_pipeline(steps.Spread(), LogisticRegression()).fit(X, y)
    joblib.dump(pipeline, tmp_path / "own.joblib")
    with pytest.raises(RefusedArtifactError, match=r"acme_models\.steps\.Spread.*MLCORE_TRUSTED_MODULES"):
        distrusting.models.register_model("own", "classification", tmp_path / "own.joblib", sample=X.head(10))
    system.models.register_model("own", "classification", tmp_path / "own.joblib", sample=X.head(10))
    version = system.registry.get_model_version("own")
    assert [each.module for each in version.modules] == ["acme_models.steps"]
    answers = answers_over_http(system, version, settings(embedded_home))
    np.testing.assert_array_equal(answers, pipeline.predict(X.head(50)))


def test_a_plug_in_is_used_where_its_module_is_trusted(
    system: MLSystem, module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its name; the message for an unknown type lists it."""
    with pytest.raises(TrainingError, match=r"'acme_scorer' is a plug-in of acme-models 1\.2, and acme_models"):
        ModelFactory.create_model("acme_scorer", {})
    monkeypatch.setenv("MLCORE_TRUSTED_MODULES", "acme_models")
    with pytest.raises(TrainingError, match="Did you mean acme_scorer"):
        ModelFactory.create_model("acme_scorers", {})
    result = system.train_model("own", "acme_scorer", training_data=DATA)
    assert result["algorithm"] == "Scorer"
    with pytest.raises(TrainingError, match=r"plug-in 'acme_scorer' of acme-models 1\.2 failed.*'powers'") as caught:
        system.train_model("own", "acme_scorer", training_data=DATA, hyperparameters={"powers": 3})
    assert caught.value.stage == "validate"


@pytest.mark.parametrize(
    ("entry_points", "message"),
    [
        ("acme_scorer = acme_models:nothing", r"The plug-in 'acme_scorer' of acme-models 1\.2 can't be loaded"),
        ("acme_scorer = acme_models.absent:build", r"The plug-in 'acme_scorer' of acme-models 1\.2 can't be loaded"),
        ("acme_scorer = acme_models:Scorer", r"of acme-models 1\.2 names acme_models:Scorer, which is no function"),
        (
            "acme_scorer = acme_models:os",
            r"of acme-models 1\.2 names acme_models:os, which is not defined in a trusted",
        ),
        ("acme_scorer = acme_models:erase", r"of acme-models 1\.2 made a NoneType without fit"),
    ],
)
def test_a_broken_plug_in_names_its_distribution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry_points: str, message: str
) -> None:
    """Whatever is wrong with it, and the process goes on."""
    monkeypatch.setenv("MLCORE_TRUSTED_MODULES", "acme_models")
    monkeypatch.setenv(acme.TRACE, "")  # and gone afterwards
    with (
        acme.installed(tmp_path, entry_points=f"[ml_core.model_types]\n{entry_points}\n"),
        pytest.raises(TrainingError, match=message),
    ):
        ModelFactory.create_model("acme_scorer", {})
