"""Each promised class, called as the contract says, on real data."""

import asyncio
import inspect
import pickle

import joblib
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from ml_core import DataProcessor, MLSystem, ModelManager, ModelRegistry, Predictor, Trainer, functions
from ml_core.cache import CacheConfig, CacheMechanism
from ml_core.exceptions import (
    DataProcessingError,
    ModelNotFoundError,
    ModelVersionConflictError,
    PromotionConflictError,
    SignatureMismatchError,
    TrainingError,
)
from ml_core.models.model_factory import ModelFactory
from support.tables import split_target, tickets


@pytest.fixture
def system(db, tenant_id):
    return MLSystem(db, CacheMechanism(CacheConfig()), max_memory_mb=256, tenant_id=tenant_id)


@pytest.fixture
def trained(system, tumours):
    X, y = tumours
    result = system.train_model("tumours", "classification", (X, y), None, {"n_estimators": 20})
    return system, result


def test_train_compare_promote_predict(system, tumours):
    """The five lines, with a second version and a comparison between."""
    X, y = tumours
    first = system.train_model(
        "tumours", "classification", training_data=(X[:400], y[:400]), validation_data=(X[400:], y[400:])
    )
    second = system.train_model(
        "tumours",
        "classification",
        training_data=(X[:400], y[:400]),
        validation_data=(X[400:], y[400:]),
        hyperparameters={"algorithm": "logistic_regression"},
    )
    assert {"model_id", "version", "metrics", "model_path", "run_id", "duration_s"} <= first.keys()
    assert first["metrics"].keys() == {"train", "validation"}
    comparison = system.registry.compare_versions("tumours", first["version"], second["version"])
    assert "hyperparameters" in comparison
    system.promote("tumours", second["version"])
    assert system.predict("tumours", X.iloc[0]) in ("malignant", "benign")
    answers = system.predict("tumours", X)
    assert np.mean(answers == y.to_numpy()) > 0.93


@pytest.mark.parametrize("shape", ["dict", "series", "frame", "array"])
def test_one_row_gives_one_prediction(trained, tumours, shape):
    """Whatever one row is written as."""
    system, _ = trained
    row = tumours[0].iloc[3]
    given = {"dict": row.to_dict(), "series": row, "frame": tumours[0].iloc[[3]], "array": row.to_numpy()}[shape]
    assert isinstance(system.predict("tumours", given), str)


@pytest.mark.parametrize("shape", ["dicts", "frame", "array"])
def test_many_rows_give_as_many_predictions(trained, tumours, shape):
    """In their order."""
    system, _ = trained
    rows = tumours[0].iloc[:50]
    given = {"dicts": rows.to_dict("records"), "frame": rows, "array": rows.to_numpy()}[shape]
    answers = system.predict("tumours", given)
    assert list(answers) == [system.predict("tumours", rows.iloc[i]) for i in range(50)]


def test_a_model_of_one_column_takes_its_values(system, tumours):
    """Four values are four rows, by each way to ask; a row without the column is refused by each."""
    X, y = tumours
    area = X["mean area"]
    system.train_model("area", "classification", (area, y), None, {"n_estimators": 5})
    four = area.iloc[[0, 19, 100, 21]]
    expected = list(system.predict("area", four.to_frame()))
    assert set(expected) == {"malignant", "benign"}
    for values in (four, four.to_numpy(), four.tolist(), pa.array(four)):
        assert list(system.predict("area", values)) == expected
        assert system.predict_batch("area", values, batch_size=3) == expected
        assert len(system.predict_proba("area", values)) == 4
    for ask in (system.predict, system.predict_proba, system.predict_batch):
        for row in ({"area": 1001.0}, pd.Series({"Mean Area": 1001.0}), X[["mean radius"]], [{}]):
            with pytest.raises(SignatureMismatchError):
                ask("area", row)


def test_a_table_of_another_library_trains_and_predicts(system, tumours):
    """Of whatever has the Arrow interface, such as polars; the answers are those of the pandas frame."""
    X, y = tumours
    table = pa.Table.from_pandas(X)
    system.train_model("arrow", "classification", (table, pa.chunked_array([y])), None, {"n_estimators": 5})
    assert list(system.predict("arrow", table)) == list(system.predict("arrow", X))
    assert system.predict("arrow", table.slice(3, 1)) == system.predict("arrow", X.iloc[3])


def test_batches_async_and_probabilities(trained, tumours):
    """The other ways to ask give the same answers."""
    system, _ = trained
    rows = tumours[0].iloc[:70]
    expected = list(system.predict("tumours", rows))
    assert system.predict_batch("tumours", rows.to_dict("records"), batch_size=32) == expected
    assert list(asyncio.run(system.predict_async("tumours", rows))) == expected
    probabilities = system.predict_proba("tumours", rows)
    assert [max(row, key=row.get) for row in probabilities] == expected


def test_production_decides_and_a_version_can_be_named(trained, tumours):
    """Without a pointer the newest answers; with one, the version that it names."""
    system, first = trained
    X, y = tumours
    row = X.iloc[0]
    flipped = y.map({"malignant": "benign", "benign": "malignant"})
    second = system.train_model("tumours", "classification", (X, flipped), None, {"n_estimators": 20})
    assert system.predict("tumours", row) == "benign"  # the newest, which learned the opposite
    system.promote("tumours", first["version"])
    assert system.predict("tumours", row) == "malignant"
    assert system.predict("tumours", row, version=second["version"]) == "benign"
    with pytest.raises(ModelNotFoundError, match="staging"):
        system.predict("tumours", row, environment="staging")
    system.promote("tumours", second["version"])
    assert system.predict("tumours", row) == "benign"  # not remembered from before
    system.rollback("tumours")
    assert system.predict("tumours", row) == "malignant"


def test_a_stale_promotion_is_refused(trained):
    """Compare and swap, also here."""
    system, result = trained
    pointer = system.promote("tumours", result["version"])
    with pytest.raises(PromotionConflictError) as caught:
        system.promote("tumours", result["version"], expected_generation=pointer.generation - 1)
    assert pickle.loads(pickle.dumps(caught.value)).actual_generation == pointer.generation


def test_the_manager_takes_files_lists_updates_hides_and_deletes(db, tenant_id, tmp_path, tumours):
    """A fitted pipeline as a joblib file, through its whole life."""
    X, y = tumours
    path = tmp_path / "model.joblib"
    joblib.dump(DecisionTreeClassifier(max_depth=3).fit(X, y), path)
    manager = ModelManager(db, tmp_path / "models", tenant_id=tenant_id)
    assert manager.register_model("tumours", "classification", str(path), {"team": "a"}, version="1.0.0") == "tumours"
    manager.register_model("tumours", "classification", str(path), {"team": "a"}, version="1.0.0")  # idempotent
    other = tmp_path / "other.joblib"
    joblib.dump(DecisionTreeClassifier(max_depth=2).fit(X, y), other)
    with pytest.raises(ModelVersionConflictError):
        manager.register_model("tumours", "classification", str(other), version="1.0.0")
    assert [model.model_id for model in manager.list_models("classification")] == ["tumours"]
    assert manager.list_models("regression") == []
    manager.update_model("tumours", {"stage": "trial"}, "1.0.0")
    assert {"team": "a", "stage": "trial"}.items() <= manager.get_model("tumours", "1.0.0").metadata.items()
    loaded = manager.load_model("tumours")
    predictor = Predictor(manager, tenant_id=tenant_id)
    assert len(predictor.predict(loaded, X)) == len(X)
    assert predictor.predict_batch(model=loaded, input_batch=[X.iloc[0], X.iloc[1]]) == list(
        predictor.predict("tumours", X[:2])
    )
    manager.archive_model("tumours", "1.0.0")
    with pytest.raises(ModelNotFoundError):
        manager.load_model("tumours", "1.0.0")
    manager.restore_model("tumours", "1.0.0")
    manager.delete_model("tumours", "1.0.0")
    assert [p for p in (tmp_path / "models").rglob("*") if p.is_file()] == []


@pytest.mark.parametrize("as_sample", [pd.DataFrame.copy, pa.Table.from_pandas], ids=["pandas", "arrow"])
def test_a_pipeline_of_the_users_own_is_a_version_like_any(db, tenant_id, tmp_path, as_sample):
    """Registered with a sample, promoted, and asked with raw rows: the answers are those of the pipeline itself."""
    X, y = split_target(tickets().drop(columns=["opened", "is_paying"]), "category")
    categories = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))
    columns = ColumnTransformer(
        [
            ("text", TfidfVectorizer(), "subject"),
            ("category", categories, ["priority"]),
            ("number", make_pipeline(SimpleImputer(), StandardScaler()), ["minutes_open"]),
        ]
    )
    own = make_pipeline(columns, LogisticRegression(max_iter=2000)).fit(X, y)
    joblib.dump(own, tmp_path / "own.joblib")
    manager = ModelManager(db, tmp_path / "models", tenant_id=tenant_id)
    sample = as_sample(X.head(50))
    manager.register_model("tickets", "classification", tmp_path / "own.joblib", {"by": "me"}, sample=sample)
    system = MLSystem(db, tenant_id=tenant_id)
    system.promote("tickets", system.versions("tickets")[0].version)
    expected = own.predict(X).tolist()
    assert list(system.predict("tickets", X)) == expected
    assert system.predict_batch("tickets", X.to_dict("records"), batch_size=7) == expected
    assert system.predict("tickets", X.iloc[0]) == expected[0]
    chances = dict(zip(own.classes_, own.predict_proba(X[:1])[0], strict=True))
    assert system.predict_proba("tickets", X.iloc[0].to_dict()) == pytest.approx(chances)


def test_the_registry_versions_promotes_compares_and_traces(db, tenant_id, system, tumours):
    """From training's own versions: lineage, comparison, history, rollback."""
    X, y = tumours
    one = system.train_model("m", "classification", (X, y), None, {"n_estimators": 5})
    two = system.train_model("m", "classification", (X, y), None, {"n_estimators": 50})
    registry = ModelRegistry(db, tenant_id=tenant_id)
    assert [v.version for v in registry.list_versions("m")] == [two["version"], one["version"]]
    assert registry.get_model_version("m").version == two["version"]
    registry.promote_version("m", one["version"], "production")
    registry.promote_version("m", two["version"], "production")
    registry.rollback("m", "production")
    assert [entry.version for entry in registry.history("m", "production")] == [
        one["version"],
        two["version"],
        one["version"],
    ]
    lineage = registry.get_lineage("m", two["version"])
    assert lineage["run_id"] == two["run_id"]
    comparison = registry.compare_versions("m", one["version"], two["version"])
    assert "n_estimators" in str(comparison["hyperparameters"])


def test_a_file_registered_by_the_registry_can_be_promoted(db, tenant_id, trained):
    """``register_version`` takes the path that training returned."""
    _, result = trained
    registry = ModelRegistry(db, tenant_id=tenant_id)
    version = registry.register_version("copy", "2.0.0", result["model_path"], {"accuracy": 0.9}, {"n_estimators": 20})
    registry.promote_version("copy", version, "staging")
    assert registry.get_model_version("copy", "2.0.0").servable.digest in result["model_path"]


def test_the_trainer_refuses_what_can_not_train(db, tenant_id, tumours):
    """Each with its stage, and the nearest name for a misspelling."""
    trainer = Trainer(db, tenant_id=tenant_id)
    X, y = tumours
    for data in ((X, y.map(lambda _: "same")), (X.head(0), y.head(0)), (X, y[:-1]), (X.assign(empty=np.nan), y)):
        with pytest.raises(TrainingError) as caught:
            trainer.train("m", "classification", data)
        assert caught.value.stage == "validate"
    with pytest.raises(TrainingError, match="n_estimators"):
        trainer.train("m", "classification", (X, y), hyperparameters={"n_estimatrs": 5})


def test_checkpoints(db, tenant_id):
    """What was saved is what is loaded, by its path."""
    trainer = Trainer(db, tenant_id=tenant_id)
    path = trainer.save_checkpoint({"weights": [1, 2]}, "m", 3)
    assert trainer.load_checkpoint(path) == {"weights": [1, 2]}


def test_the_processor(tenant_id, tumours):
    """Splits, features, scaling; not fitted is an error of its own."""
    X, y = tumours
    processor = DataProcessor(tenant_id=tenant_id)
    with pytest.raises(DataProcessingError, match="not fitted"):
        processor.preprocess(X, is_training=False)
    processed = processor.preprocess(X, model_type="classification", is_training=True)
    assert len(processed) == len(X)
    features = processor.extract_features(
        pd.DataFrame({"text": ["hello world", "good bye"], "at": pd.to_datetime(["2026-01-01", "2026-06-01"])}),
        feature_config={"include_text_features": True, "include_datetime_features": True},
    )
    assert len(features) == 2
    for kind in ("standard", "minmax", "robust", "none"):
        assert len(processor.transform_features(X, transform_type=kind)) == len(X)
    parts = processor.split_data(X, y, test_size=0.2, val_size=0.1, random_state=42)
    X_train, X_val, X_test, _, _, y_test = parts
    assert len(X_train) + len(X_val) + len(X_test) == len(X)
    assert len(X_test) == pytest.approx(0.2 * len(X), abs=2)
    assert abs((y_test == "benign").mean() - (y == "benign").mean()) < 0.02
    assert len(processor.postprocess(np.array(["a", "b"]), model_type="classification")) == 2


class Doubled(DataProcessor):
    """A processor of the caller's own."""

    def preprocess(self, data, model_type=None, is_training=True):
        changed = data.assign(doubled=data["worst radius"] * 2)
        return super().preprocess(changed, model_type, is_training)


def test_an_overridden_processor_is_used_in_training_and_prediction(db, tenant_id, tumours):
    """The caller's column is made on both sides."""
    X, y = tumours
    system = MLSystem(db, tenant_id=tenant_id)
    result = system.train_model("own", "classification", (X, y), processor=Doubled(tenant_id=tenant_id))
    assert result["metrics"]["validation"]["accuracy"] > 0.9
    assert system.predict("own", X.iloc[0]) in ("malignant", "benign")


def test_model_types_can_be_added_both_ways(system, tumours, monkeypatch):
    """By registering a builder, and by the older assignment to ``create_model``."""
    X, y = tumours
    monkeypatch.setattr(ModelFactory, "_builders", dict(getattr(ModelFactory, "_builders", {})), raising=False)
    ModelFactory.register("extra", lambda hyperparameters: ExtraTreesClassifier(n_estimators=5, random_state=0))
    assert system.train_model("a", "extra", (X, y))["metrics"]["validation"]["accuracy"] > 0.8

    def create(model_type, hyperparameters):
        if model_type == "mine":
            return ExtraTreesClassifier(n_estimators=7, random_state=0)
        return ModelFactory._create_standard_model(model_type, hyperparameters)

    monkeypatch.setattr(ModelFactory, "create_model", create)
    assert system.train_model("b", "mine", (X, y))["metrics"]["validation"]["accuracy"] > 0.8
    assert system.train_model("c", "classification", (X, y), None, {"n_estimators": 5})["version"] == "1"


@pytest.mark.parametrize(
    ("model_type", "kinds"), [("regression", {float}), ("clustering", {int}), ("anomaly_detection", {int})]
)
def test_the_other_standard_types(system, tumours, model_type, kinds):
    """Numbers, clusters and anomalies."""
    X, _ = tumours
    y = X["mean area"] if model_type == "regression" else None
    system.train_model("m", model_type, (X.drop(columns=["mean area"]), y))
    answer = system.predict("m", X.drop(columns=["mean area"]).iloc[0])
    assert type(answer) in kinds


def test_columns_that_are_numbered_can_be_asked_by_number(system):
    """A frame that was made from a matrix: its own row as a dict has integers for keys."""
    X = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 3)))
    system.train_model("m", "classification", (X, np.where(X[0] > 0, "yes", "no")))
    assert system.predict("m", X.iloc[0].to_dict()) == system.predict("m", X.iloc[0])


def test_a_closed_system_frees_its_models_and_goes_on(trained, tumours):
    """Closing is for memory and threads; asking again loads again."""
    system, _ = trained
    system.predict("tumours", tumours[0].iloc[0])
    assert system._table.describe()["loaded"] == 1
    system.close()
    assert system._table.describe()["loaded"] == 0
    assert system.predict("tumours", tumours[0].iloc[0]) == "malignant"


SIX = {
    functions.create_ml_system: MLSystem,
    functions.create_model_manager: ModelManager,
    functions.create_trainer: Trainer,
    functions.create_predictor: Predictor,
    functions.create_data_processor: DataProcessor,
    functions.create_model_registry: ModelRegistry,
}


@pytest.mark.parametrize(("create", "kind"), SIX.items(), ids=lambda one: one.__name__)
def test_each_function_makes_its_class(db, tenant_id, create, kind):
    """All six are called alike, with the class's own default tenant; what else the class takes goes by keyword."""
    for made in (create(db, tenant_id=tenant_id), create(db, tenant_id)):
        assert (type(made), str(made.tenant_id)) == (kind, tenant_id)
    assert str(create(db).tenant_id) == "default"
    given = {name for name in inspect.signature(create).parameters if name not in ("db", "tenant_id")}
    taken = inspect.signature(kind).parameters.keys() | {"cache", "storage_path"}
    assert given <= taken
    assert all(inspect.signature(create).parameters[name].kind.name == "KEYWORD_ONLY" for name in given)


def test_the_parts_that_the_functions_make_work_together(db, tenant_id, tumours):
    """Prepare, train, register, promote and predict, without the system; it then sees the same."""
    X, y = tumours
    processor = functions.create_data_processor(db, tenant_id=tenant_id, scaling="robust")
    assert not processor.preprocess(X).isna().any().any()
    result = functions.create_trainer(db, tenant_id=tenant_id).train(
        "m", "classification", (X, y), None, {"max_depth": 3}
    )
    functions.create_model_registry(db, tenant_id=tenant_id).promote_version("m", result["version"], "production")
    loaded = functions.create_model_manager(db, tenant_id=tenant_id).load_model("m")
    predictor = functions.create_predictor(db, tenant_id=tenant_id, cache=CacheMechanism(CacheConfig()))
    system = functions.create_ml_system(db, tenant_id=tenant_id, max_memory_mb=64)
    expected = list(system.predict("m", X))
    assert list(predictor.predict(loaded, X)) == list(predictor.predict("m", X)) == expected


def test_notes_of_a_model_are_seen_with_each_of_its_versions(db, tenant_id, system, tumours):
    """Without a version they are the model's; with one, that version's."""
    for _ in range(2):
        system.train_model("m", "classification", tumours, None, {"n_estimators": 5})
    manager = ModelManager(db, tenant_id=tenant_id)
    manager.update_model("m", metadata={"owner": "support"})
    manager.update_model("m", {"stage": "trial"}, version="1")
    seen = [manager.get_model("m", version=version).metadata for version in ("1", "2", None)]
    assert [notes["owner"] for notes in seen] == ["support"] * 3
    assert [notes.get("stage") for notes in seen] == ["trial", None, None]


def test_models_are_bounded_in_memory(db, tenant_id, tumours):
    """Two forests do not fit into the bound at once; both answer all the same."""
    X, y = tumours
    system = MLSystem(db, max_memory_mb=1, tenant_id=tenant_id)
    for name in ("a", "b", "c"):
        system.train_model(name, "classification", (X, y), None, {"n_estimators": 60})
    for name in ("a", "b", "c", "a"):
        assert system.predict(name, X.iloc[0]) == "malignant"
