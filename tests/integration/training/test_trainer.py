"""``Trainer``: a run that ends, a version that answers, and nothing half-written."""

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from ml_core.data.processor import DataProcessor
from ml_core.domain.api_key import Scope
from ml_core.domain.principal import Principal
from ml_core.exceptions import (
    DataProcessingError,
    InvalidNameError,
    InvalidRequestError,
    ModelLoadError,
    ModelNotFoundError,
    ModelSaveError,
    ModelVersionConflictError,
    PermissionDeniedError,
    RequestTooLargeError,
    TrainingError,
    UnsafeArtifactError,
)
from ml_core.ids import ModelId, TenantId, VersionId
from ml_core.models import own_types
from ml_core.models.loading import load_version
from ml_core.models.model_factory import ModelFactory
from ml_core.models.store import LocalStore
from ml_core.registry.promotion.environments import PRODUCTION, EnvironmentRepository
from ml_core.registry.runs import RunRepository, RunStatus
from ml_core.registry.tenants import TenantRepository
from ml_core.registry.versions.models import ModelRepository
from ml_core.registry.versions.repository import VersionRepository
from ml_core.training.trainer import Trainer
from support.registry import TICKETS, register
from support.tables import measures, split_target, tickets

MODEL = ModelId("tickets")
FAST = {"algorithm": "logistic_regression"}
DATA = split_target(tickets(), "category")


@pytest.fixture
def trainer(db, tenant_id, tmp_path):
    return Trainer(db, tenant_id, storage_path=tmp_path, actor="tester")


def files_in(folder):
    return [path for path in Path(folder).rglob("*") if path.is_file()]


def last_run(db, tenant_id):
    runs = RunRepository(db, tenant_id)
    return runs.get(runs.search(MODEL).items[0].run_id)


def test_training_registers_a_version_that_answers(db, tenant_id, trainer, tmp_path):
    """The result names it, and what the registry holds loads and answers like the model that was returned."""
    result = trainer.train("tickets", "classification", DATA, hyperparameters=FAST)
    assert result.keys() >= {"model_id", "version", "metrics", "model_path", "run_id", "duration_s", "model"}
    assert (result["model_id"], result["version"]) == ("tickets", "1")
    assert result["metrics"].keys() == {"train", "validation"}
    assert files_in(tmp_path) == [Path(result["model_path"])]
    version = VersionRepository(db, tenant_id).get(MODEL, VersionId("1"))
    assert version.created_by == "tester"
    loaded = load_version(LocalStore(tmp_path), version.servable)
    np.testing.assert_array_equal(loaded.predict_frame(DATA[0]), result["model"].predict(DATA[0]))


def test_notes_that_are_too_large_are_refused_before_the_training(db, tenant_id, trainer):
    """What the registry would refuse at the end must not cost a training: there is not even a run."""
    with pytest.raises(RequestTooLargeError, match="metadata have 60,012 bytes"):
        trainer.train("tickets", "classification", DATA, hyperparameters=FAST, metadata={"notes": "x" * 60_000})
    assert RunRepository(db, tenant_id).search().items == []


def test_the_lineage_says_where_it_came_from(db, tenant_id, trainer):
    """Run, data and libraries; the metrics are in the run as well."""
    result = trainer.train("tickets", None, DATA, hyperparameters=FAST)
    version = VersionRepository(db, tenant_id).get(MODEL)
    assert version.lineage.run_id == result["run_id"]
    assert version.lineage.data_digest == result["fitted"].data_digest
    assert version.lineage.dataset_digest is None
    assert version.lineage.libraries["scikit-learn"]
    assert version.hyperparameters == FAST
    run = last_run(db, tenant_id)
    assert run.status is RunStatus.FINISHED
    assert run.metrics["validation/accuracy"].last_value == result["metrics"]["validation"]["accuracy"]


def test_training_again_makes_the_next_version_of_the_same_bytes(db, tenant_id, trainer, tmp_path):
    """Equal data gives an equal artifact, which is stored once, and equal diagnostics."""
    first = trainer.train("tickets", None, DATA, hyperparameters=FAST)
    second = trainer.train("tickets", None, DATA, hyperparameters=FAST)
    assert (first["version"], second["version"]) == ("1", "2")
    assert first["model_path"] == second["model_path"]
    kept = [RunRepository(db, tenant_id).artifacts.list(result["run_id"]) for result in (first, second)]
    assert [[file.name for file in files] for files in kept] == [["diagnostics.json", "training_profile.json"]] * 2
    assert kept[0][0].digest == kept[1][0].digest


def test_the_run_has_the_learning_curves(db, tenant_id, trainer):
    """One point a round, as boosting keeps them where it stops early; the version's metrics are not theirs."""
    result = trainer.train(
        "tickets", None, DATA, hyperparameters={"algorithm": "gradient_boosting", "early_stopping": True, "max_iter": 5}
    )
    run = last_run(db, tenant_id)
    points = {name: of.points for name, of in run.metrics.items() if name.startswith("rounds/")}
    assert points == {"rounds/train/loss": 6, "rounds/early_stopping/loss": 6}
    assert result["metrics"].keys() == {"train", "validation"}


@pytest.fixture
def unfitted(monkeypatch):
    """Fails the test if a core is spent."""

    def spent(*_, **__):
        raise AssertionError("a model was fitted")

    monkeypatch.setattr("ml_core.training.trainer.fit_model", spent)


@pytest.mark.parametrize("deleted", [False, True])
def test_a_name_that_is_taken_is_refused_before_the_training(db, tenant_id, trainer, deleted, request):
    """There is not even a run, whether the version is there or was deleted."""
    trainer.train("tickets", None, DATA, hyperparameters=FAST, version="1.0.0")
    if deleted:
        VersionRepository(db, tenant_id).delete(MODEL, VersionId("1.0.0"))
    request.getfixturevalue("unfitted")
    with pytest.raises(ModelVersionConflictError, match="was deleted" if deleted else "exists") as caught:
        trainer.train("tickets", None, DATA, hyperparameters=FAST, version="1.0.0")
    assert (caught.value.tenant_id, caught.value.model_id, caught.value.version) == (tenant_id, "tickets", "1.0.0")
    assert len(RunRepository(db, tenant_id).search(MODEL).items) == 1


@pytest.mark.parametrize("model_type", ["regression", None])
def test_another_type_of_model_is_refused_before_the_fit(db, tenant_id, trainer, model_type, request):
    """Named by the caller or found in the target: a model has one type."""
    trainer.train("tickets", None, DATA, hyperparameters=FAST)
    request.getfixturevalue("unfitted")
    with pytest.raises(ModelSaveError, match="is of type 'classification', not 'regression'"):
        trainer.train("tickets", model_type, (DATA[0], np.arange(len(DATA[1])) / 7))


def test_a_model_that_another_training_made_during_the_search_is_refused_before_the_fit(
    db, tenant_id, trainer, monkeypatch, request
):
    """It is looked at again, for a search takes long."""

    def search(*_):
        register(db, tenant_id, "1")
        request.getfixturevalue("unfitted")
        return SimpleNamespace(hyperparameters={}, note="", summary={})

    monkeypatch.setattr("ml_core.training.trainer.tune", search)
    target = (DATA[0], np.arange(len(DATA[1])) / 7)
    with pytest.raises(ModelSaveError, match="is of type 'classification', not 'regression'"):
        trainer.tune(TICKETS, "regression", target, cpus=1)


def test_an_archived_model_is_refused_before_the_training(db, tenant_id, trainer, request):
    """It would be at the end."""
    trainer.train("tickets", None, DATA, hyperparameters=FAST)
    ModelRepository(db, tenant_id).archive(MODEL)
    request.getfixturevalue("unfitted")
    with pytest.raises(ModelSaveError, match="is archived"):
        trainer.train("tickets", None, DATA, hyperparameters=FAST)


def test_a_key_that_may_not_train_is_refused_before_the_training(db, tenant_id, unfitted):
    """Its scope is asked for first."""
    reader = db.acting_as(Principal("reader", frozenset({Scope.READ}), tenant_id=tenant_id))
    with pytest.raises(PermissionDeniedError, match="scope 'train'"):
        Trainer(reader, tenant_id).train("tickets", None, DATA)


def test_hyperparameters_that_are_too_large_are_refused_before_the_training(db, tenant_id, trainer, unfitted):
    """What the registry would refuse at the end must not cost a training."""
    with pytest.raises(RequestTooLargeError, match="hyperparameters have 70,023 bytes"):
        trainer.train("tickets", None, DATA, hyperparameters={"class_weight": {"x" * 70_000: 1}})
    assert RunRepository(db, tenant_id).search().items == []


def test_data_that_can_not_train_ends_the_run_as_failed(db, tenant_id, trainer, tmp_path):
    """With the error; there is no version and no file."""
    X, y = DATA
    with pytest.raises(TrainingError, match="one class") as caught:
        trainer.train("tickets", None, (X, ["a"] * len(y)))
    assert (caught.value.tenant_id, caught.value.model_id, caught.value.stage) == (tenant_id, "tickets", "validate")
    run = last_run(db, tenant_id)
    assert run.status is RunStatus.FAILED
    assert "one class" in run.error
    assert files_in(tmp_path) == []
    with pytest.raises(ModelNotFoundError):
        VersionRepository(db, tenant_id).get(MODEL)


def test_a_full_disk_leaves_no_version(db, tenant_id, trainer, tmp_path, monkeypatch):
    """The run failed, and says why."""

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(ModelSaveError, match="No space left on device"):
            trainer.train("tickets", None, DATA, hyperparameters=FAST)
    assert files_in(tmp_path) == []
    assert last_run(db, tenant_id).status is RunStatus.FAILED
    assert trainer.train("tickets", None, DATA, hyperparameters=FAST)["version"] == "1"


def test_the_tenant_is_created_with_its_first_training(db, tmp_path):
    """A program on a laptop creates no tenant first."""
    name = TenantId("first-training")
    assert not TenantRepository(db).exists(name)
    Trainer(db, name, storage_path=tmp_path).train("tickets", None, DATA, hyperparameters=FAST)
    assert TenantRepository(db).exists(name)


@pytest.mark.parametrize("name", ["../x", "Tickets", "ü", "x" * 300])
def test_a_bad_model_name_is_refused_before_anything_is_written(db, tenant_id, trainer, name):
    """No run, no file."""
    with pytest.raises(InvalidNameError):
        trainer.train(name, None, DATA)
    assert RunRepository(db, tenant_id).search().items == []


def test_an_unknown_kind_is_refused(trainer):
    """The message names the kinds there are."""
    with pytest.raises(DataProcessingError, match="number, boolean"):
        trainer.train("tickets", None, DATA, kinds={"subject": "prose"})


@pytest.mark.parametrize("names", [range(5), [("t", i) for i in range(5)]])
def test_kinds_are_told_by_the_names_of_the_frame(trainer, names):
    """Numbers and tuples too."""
    names = list(names)
    X = DATA[0].set_axis(names, axis=1)
    fitted = trainer.train("tickets", None, (X, DATA[1]), hyperparameters=FAST, kinds={names[3]: "category"})["fitted"]
    assert {column.name: column.kind for column in fitted.columns}[str(names[3])] == "category"


def test_a_type_outside_the_list_predicts_here_and_is_refused_by_a_server(db, tenant_id, trainer, tmp_path, caplog):
    """The older extension keeps working; the result, the version and the log say what it costs."""
    ModelFactory.register("custom", lambda parameters: OwnRegression(**parameters))
    try:
        result = trainer.train("tickets", "custom", split_target(measures(), "outcome"))
    finally:
        ModelFactory.unregister("custom")
    version = VersionRepository(db, tenant_id).get(MODEL)
    assert version.servable.model_type == "custom"
    assert result["notes"] == version.metadata["training"]["notes"]
    assert "so it can't be promoted: it uses" in result["notes"][-1]
    assert result["notes"][-1] in caplog.text
    assert result["algorithm"] == "OwnRegression"
    with pytest.raises(UnsafeArtifactError, match="OwnRegression"):
        load_version(LocalStore(tmp_path), version.servable)
    loaded = load_version(LocalStore(tmp_path), version.servable, own_types.known(db.settings))
    frame = measures().drop(columns=["outcome"])
    np.testing.assert_array_equal(loaded.predict_frame(frame), result["model"].predict(frame))


def test_a_processor_of_the_callers_own_is_stored_with_the_model(db, tenant_id, trainer, tmp_path):
    """What it does in training it does in every prediction of a loaded copy."""
    result = trainer.train("tickets", None, split_target(measures(), "outcome"), hyperparameters=FAST, processor=Sums())
    version = VersionRepository(db, tenant_id).get(MODEL)
    assert any(name.endswith(".Sums") for name in version.outside_types)
    assert "test_trainer is of no installed distribution" in result["notes"][-1]
    with pytest.raises(InvalidRequestError, match="Sums, which no server loads"):
        EnvironmentRepository(db, tenant_id).promote(MODEL, version.version, PRODUCTION, actor="me")
    loaded = load_version(LocalStore(tmp_path), version.servable, own_types.known(db.settings))
    frame = measures(20, seed=1).drop(columns=["outcome"])
    np.testing.assert_array_equal(loaded.predict_frame(frame), result["model"].predict(frame))


def test_a_model_that_can_not_be_saved_safely_is_refused(db, tenant_id, trainer, tmp_path):
    """A function among its attributes: nothing is stored, the run failed."""
    ModelFactory.register("custom", lambda _: WithFunction())
    try:
        with pytest.raises(ModelSaveError, match="Train it on this platform"):
            trainer.train("tickets", "custom", DATA)
    finally:
        ModelFactory.unregister("custom")
    assert files_in(tmp_path) == []
    assert last_run(db, tenant_id).status is RunStatus.FAILED


def test_hyperparameters_of_numpy_are_recorded(db, tenant_id, trainer):
    """As JSON numbers."""
    trainer.train("tickets", None, DATA, hyperparameters={"n_estimators": np.int64(2), "max_features": np.float64(0.5)})
    recorded = {"n_estimators": 2, "max_features": 0.5}
    assert VersionRepository(db, tenant_id).get(MODEL).hyperparameters == recorded


def test_what_was_given_and_what_was_in_force_are_recorded(db, tenant_id, trainer):
    """In the result, the version and the run alike: the algorithm, the caller's values and the defaults."""
    result = trainer.train("tickets", None, DATA, hyperparameters={"n_estimators": 3})
    assert (result["algorithm"], result["hyperparameters"]) == ("random_forest", {"n_estimators": 3})
    effective = result["effective_hyperparameters"]
    assert effective.items() >= {"n_estimators": 3, "max_depth": None, "min_samples_leaf": 1}.items()
    version = VersionRepository(db, tenant_id).get(MODEL)
    assert version.hyperparameters == {"n_estimators": 3}
    told = version.metadata["training"]
    assert (told["algorithm"], told["effective_hyperparameters"]) == ("random_forest", effective)
    parameters = last_run(db, tenant_id).parameters
    assert (parameters["algorithm"], parameters["hyperparameters"]) == ("random_forest", {"n_estimators": 3})
    assert parameters["effective_hyperparameters"] == effective


def test_a_model_that_is_worse_than_the_baseline_says_so(trainer):
    """With the figures and what to try, in the result."""
    X, _ = split_target(measures(), "outcome")
    labels = np.random.default_rng(3).choice(["a", "b"], len(X), p=[0.9, 0.1])
    notes = trainer.train("noise", None, (X, labels), hyperparameters={"algorithm": "gradient_boosting"})["notes"]
    assert any(note.startswith("Worse than the baseline") and "log_loss" in note for note in notes)


def test_checkpoints_are_the_tenants_own(db, tenant_id, other_tenant_id, trainer):
    """Saved and loaded by path; another tenant's trainer refuses the path."""
    path = trainer.save_checkpoint({"epoch": 3}, "tickets", 3)
    assert trainer.load_checkpoint(path) == {"epoch": 3}
    with pytest.raises(ModelLoadError, match="not one of this tenant's"):
        Trainer(db, other_tenant_id).load_checkpoint(path)


class Sums(DataProcessor):
    """Adds a column."""

    def preprocess(self, data, model_type=None, is_training=True):
        frame = super().preprocess(data, model_type, is_training)
        return frame.assign(total=frame["m0"] + frame["m1"])


class OwnRegression(LogisticRegression):
    """An estimator of the caller's own."""


class WithFunction(DummyClassifier):
    """Keeps a function."""

    def fit(self, X, y, sample_weight=None):
        self.hook_ = os.getcwd
        return super().fit(X, y, sample_weight)


@pytest.mark.parametrize(
    ("model_type", "options"),
    [("classification", {"algorithm": "gradient_boosting", "max_iter": 5}), ("clustering", {"algorithm": "kmeans"})],
)
def test_the_number_of_threads_changes_no_byte(db, tenant_id, model_type, options):
    """These estimators add up floats in an order that depends on it, and each door has another."""
    X, y = split_target(measures(3_000), "outcome")
    data = (X, y if model_type == "classification" else None)
    digests = set()
    for threads in (1, 2):
        with threadpool_limits(threads, "openmp"):
            made = Trainer(db, tenant_id).train("threads", model_type, data, hyperparameters=options)
        digests.add(VersionRepository(db, tenant_id).get("threads", made["version"]).digest)
    assert len(digests) == 1
