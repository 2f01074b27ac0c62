"""``MLSystem`` and ``ModelRegistry`` as a data scientist meets them: the main job, and where the rest is."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from pathlib import Path

import joblib
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

import ml_core
from ml_core import DataProcessor, MLSystem, ModelManager, ModelRegistry, Predictor, Trainer
from ml_core.cache import CacheConfig
from ml_core.client import MLClient
from ml_core.database.connection import DatabaseConnection
from ml_core.domain.api_key import Scope
from ml_core.domain.gates import RULES
from ml_core.domain.principal import Principal
from ml_core.domain.train_spec import TrainSpec
from ml_core.domain.tune_spec import TuneSpec
from ml_core.exceptions import (
    InvalidRequestError,
    MLFrameworkError,
    ModelNotFoundError,
    PromotionRefusedError,
    RunNotFoundError,
    TrainingError,
)
from ml_core.ids import TenantId
from ml_core.registry.promotion.gates import GateRepository
from support.registry import register
from support.tables import split_target, tickets

FAST = {"algorithm": "logistic_regression"}


@pytest.fixture
def system(db: DatabaseConnection, tenant_id: TenantId) -> Iterator[MLSystem]:
    """Three versions of ``tickets`` with rising accuracy, the first promoted, then the third."""
    for number in (1, 2, 3):
        register(
            db,
            tenant_id,
            str(number),
            content=str(number),
            metrics={"validation": {"accuracy": number / 10}},
            tags={"team": "support" if number % 2 else "sales"},
        )
    with MLSystem(db, tenant_id=tenant_id) as system:
        system.promote("tickets", "1")
        system.promote("tickets", "3", reason="better")
        yield system


def test_the_main_job_needs_no_other_object(system: MLSystem) -> None:
    """Versions and history are methods of the system itself; its registry compares, searches and tags versions."""
    assert [version.version for version in system.versions("tickets")] == ["3", "2", "1"]
    versions = system.registry.versions
    assert versions.compare("tickets", "1", "3")["metrics"]["validation"]["accuracy"]["better"] == "3"
    assert [(move.version, move.reason) for move in system.history("tickets")] == [("3", "better"), ("1", "")]
    assert versions.lineage("tickets", "3")["environments"] == ["production"]
    assert versions.set_tags("tickets", "2", {"stage": "pilot"}).tags == {"team": "sales", "stage": "pilot"}
    assert [version.version for version in versions.search(tags={"stage": "pilot"}).items] == ["2"]
    assert system.rollback("tickets").version == "1"


def test_the_rest_is_in_attributes_that_say_what_they_are(system: MLSystem) -> None:
    """Each attribute that the docstring names is there, and each method of it explains itself."""
    assert MLSystem.__doc__ is not None
    for name in ("models", "registry", "datasets", "runs", "environments", "rollouts", "gates", "holds", "predictions"):
        assert f"        {name}: " in inspect.cleandoc(MLSystem.__doc__).replace("\n    ", "\n        ")
        part = getattr(system, name)
        public = [each for each in dir(part) if not each.startswith("_") and callable(getattr(part, each))]
        assert public
        assert all(inspect.getdoc(getattr(type(part), each, None) or getattr(part, each)) for each in public)


@pytest.mark.parametrize(
    ("criteria", "found"),
    [
        ({"model_id": "tickets"}, "321"),
        ({"model_type": "regression"}, ""),
        ({"tags": {"team": "support"}}, "31"),
        ({"metrics": ["accuracy>=0.2", "validation/accuracy<=0.25"]}, "2"),
        ({"metrics": "accuracy>=0.2"}, "32"),
        ({"text": "sales"}, "2"),
        ({"sort": "validation/accuracy", "descending": False}, "123"),
    ],
)
def test_versions_are_searched_by_keywords(system: MLSystem, criteria: dict, found: str) -> None:
    """No query object has to be made, and bounds are written as on the command line."""
    assert "".join(version.version for version in system.registry.versions.search(**criteria).items) == found


def test_a_search_for_a_model_that_is_not_there(system: MLSystem) -> None:
    """An empty page would read as if it had no such version."""
    with pytest.raises(ModelNotFoundError, match="Did you mean tickets"):
        system.registry.versions.search("tikets")


def test_a_search_goes_on_by_its_cursor(system: MLSystem) -> None:
    """As every list of the registry."""
    first = system.registry.versions.search(limit=2)
    second = system.registry.versions.search(limit=2, cursor=first.next_cursor)
    assert [version.version for version in (*first.items, *second.items)] == ["3", "2", "1"]


def test_a_search_by_an_unknown_keyword_is_refused(system: MLSystem) -> None:
    """Rather than finding everything."""
    with pytest.raises(TypeError, match="unexpected keyword argument 'tag'"):
        system.registry.versions.search(tag={"team": "sales"})  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"no keyword 'x'. Valid are: kind, status"):
        system.runs.search(x={"team": "sales"})  # type: ignore[call-arg]


def test_runs_are_searched_by_keywords(system: MLSystem) -> None:
    """By status, tag, parameter and bounds of a metric."""
    good = system.runs.start("tickets", tags={"team": "a"}, parameters={"C": 1})
    poor, worst = (system.runs.start("tickets", parameters={"C": C}) for C in (2, 3))
    for run_id, value in ((good, 0.9), (poor, 0.4), (worst, 0.1)):
        system.runs.log_metrics(run_id, {"validation/accuracy": value})
    system.runs.finish(good)
    for criteria, found in (
        ({"status": "finished"}, [good]),
        ({"tags": {"team": "a"}}, [good]),
        ({"parameters": {"C": 2}}, [poor]),
        ({"metrics": ["validation/accuracy>=0.3", "validation/accuracy<=0.5"]}, [poor]),
        ({"metrics": "validation/accuracy>=0.3"}, [poor, good]),
    ):
        assert [run.run_id for run in system.runs.search("tickets", **criteria).items] == found
    with pytest.raises(InvalidRequestError, match="running, finished, failed, cancelled, dead"):
        system.runs.search(status="done")


def test_holds_and_gates_are_reached_by_plain_names(system: MLSystem) -> None:
    """Placed, listed and ended; set, listed, approved and removed."""
    system.holds.place("tickets", "2", "legal", "a court asked for it")
    assert [hold.name for hold in system.registry.holds.list("tickets").items] == ["legal"]
    system.holds.release("tickets", "2", "legal")
    assert system.holds.list().items == []
    system.gates.set("tickets", "production", "quality", "min_metric", {"metric": "accuracy", "value": 0.25})
    assert [record.name for record in system.gates.list("tickets")] == ["quality"]
    with pytest.raises(PromotionRefusedError) as caught:
        system.promote("tickets", "2")
    assert caught.value.details == {"refused_by": ["quality"]}
    assert [approval.reason for approval in (system.gates.approve("tickets", "2", reason="seen"),)] == ["seen"]
    assert len(system.gates.approvals("tickets", "2")) == 1
    system.gates.remove("tickets", "production", "quality")
    assert system.promote("tickets", "2").version == "2"
    system.environments.protect("production")
    assert [each.environment for each in system.environments.policies() if each.is_protected] == ["production"]
    assert not system.environments.unprotect("production").is_protected


def test_setting_a_gate_explains_the_kinds_and_their_settings() -> None:
    """Whoever asks for help need look nowhere else."""
    told = inspect.getdoc(GateRepository.set) or ""
    for kind, rule in RULES.items():
        assert f"``{kind.value}``" in told
        assert all(f"``{name}``" in told for name in rule.__dataclass_fields__ if name != "kind")


def test_what_is_kept_of_predictions_is_read_and_set(system: MLSystem) -> None:
    """By its word; another word is refused with those that there are."""
    system.predictions.set_policy("digest")
    assert system.predictions.policy() == "digest"
    with pytest.raises(InvalidRequestError, match="nothing, digest, inputs"):
        system.predictions.set_policy("all")
    assert system.predictions.list("tickets").items == []


def test_who_moves_a_pointer_is_the_connections_principal(db: DatabaseConnection, system: MLSystem) -> None:
    """The operating system's user in its own process, the key of whoever acts with one; no made-up name."""
    assert system.history("tickets")[0].actor == db.principal.name
    key = db.acting_as(Principal("key:1", frozenset({Scope.PROMOTE})))
    other = MLSystem(key, tenant_id=system.tenant_id)
    assert other.rollback("tickets").updated_by == "key:1"
    assert other.promote("tickets", "2", actor="somebody else").updated_by == "key:1"
    assert system.promote("tickets", "1", actor="somebody else").updated_by == "somebody else"


def test_a_run_is_reported_as_over_http(system: MLSystem, tmp_path: Path) -> None:
    """With what the training found on its held-out rows, into a new file."""
    frame, target = split_target(tickets(), "category")
    result = system.train_model("tickets", None, (frame, target), hyperparameters=FAST)
    page = system.report_run(result["run_id"], tmp_path / "report.html").read_text(encoding="utf-8")
    assert all(text in page for text in (result["run_id"], "Confusion matrix", "Importances", "minutes_open"))
    with pytest.raises(RunNotFoundError):
        system.report_run("run_0", tmp_path / "other.html")


def test_objects_say_whose_they_are_and_no_password(tenant_id: TenantId, db: DatabaseConnection) -> None:
    """Printed, each names the tenant and the database."""
    remote = DatabaseConnection("postgresql://app:secret@registry.example/mlcore", settings=db.settings)
    for made in (
        MLSystem(remote, tenant_id=tenant_id),
        ModelRegistry(remote, tenant_id),
        ModelManager(remote, tenant_id=tenant_id),
        Trainer(remote, tenant_id),
        Predictor(ModelManager(remote, tenant_id=tenant_id), tenant_id=tenant_id),
    ):
        printed = repr(made)
        assert printed.startswith(f"{type(made).__name__}(")
        assert f"tenant_id='{tenant_id}'" in printed
        assert "registry.example" in printed
        assert "secret" not in printed


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"versoin": "1"}, TypeError),
        ({"parent_version": "99"}, ModelNotFoundError),
        ({"metadata": {"when": object()}}, InvalidRequestError),
        ({"version": "no version"}, MLFrameworkError),
        ({"dataset": "nowhere@1"}, InvalidRequestError),
    ],
)
def test_what_can_not_be_meant_is_refused_before_any_work(system: MLSystem, wrong: dict, error: type) -> None:
    """No run is begun, so none fails, and nothing is fitted for nothing."""
    with pytest.raises(error):
        system.train_model("tickets", "classification", split_target(tickets(), "category"), None, FAST, **wrong)
    assert system.runs.search("tickets").items == []


def test_training_on_a_dataset_asks_for_the_target(system: MLSystem) -> None:
    """The error names the argument and the columns; what has no target needs none."""
    system.datasets.create("numbers", pd.DataFrame({"a": range(40), "b": [row % 7 for row in range(40)]}))
    for model_type in (None, "classification", "regression"):
        with pytest.raises(TrainingError, match="Give the target, one of: a, b") as caught:
            system.train_model("groups", model_type, dataset="numbers")
        assert caught.value.stage == "validate"
    assert system.train_model("groups", "clustering", dataset="numbers")["version"] == "1"


def test_a_dataset_is_got_by_the_name_that_training_takes(system: MLSystem) -> None:
    """``name@number`` wherever a version of a dataset is asked for."""
    made = system.datasets.create("wine", pd.DataFrame({"x": [1]}))
    system.datasets.create("wine", pd.DataFrame({"x": [1, 2]}))
    assert system.datasets.get("wine@1") == made == system.datasets.get("wine@1", 1)
    assert len(system.datasets.read("wine@1")) == 1
    assert system.datasets.get("wine").number == 2
    with pytest.raises(InvalidRequestError, match="Say the number once"):
        system.datasets.get("wine@1", 2)


@pytest.mark.parametrize("read", ["predict", "history", "get"])
def test_a_typo_in_an_environment_is_told(system: MLSystem, read: str) -> None:
    """Reading says that there is no such environment, rather than that nothing is in it."""
    calls = {
        "predict": lambda: system.predict("tickets", {"text": "hello"}, environment="stging"),
        "history": lambda: system.history("tickets", "stging"),
        "get": lambda: system.environments.get("tickets", "stging"),
    }
    with pytest.raises(InvalidRequestError, match=r"no environment stging.* Did you mean staging"):
        calls[read]()


@pytest.mark.parametrize("names", [("firm", "firmm"), ("building-1", "building-2"), ("solo",)])
def test_a_tenant_that_is_created_on_first_use_is_logged(
    db: DatabaseConnection, caplog: pytest.LogCaptureFixture, names: tuple[str, ...]
) -> None:
    """Once, with the near name if there is one; the next of a series is no typo."""
    for name in names:
        MLSystem(db, tenant_id=name).datasets.create("d", pd.DataFrame({"x": [1]}))
    said = caplog.records[-1]
    assert (said.levelname, names[-1] in said.getMessage()) == ("WARNING", True)
    assert ("Did you mean firm?" in said.getMessage()) == (names[-1] == "firmm")
    caplog.clear()
    MLSystem(db, tenant_id=names[-1]).datasets.create("d", pd.DataFrame({"x": [2]}))
    assert caplog.records == []


def test_nobody_learns_the_names_of_other_tenants(db: DatabaseConnection, caplog: pytest.LogCaptureFixture) -> None:
    """A principal that acts for a tenant with a key sees no near name."""
    MLSystem(db, tenant_id="hidden").datasets.create("d", pd.DataFrame({"x": [1]}))
    admin = db.acting_as(Principal("key:1", frozenset({Scope.ADMIN})))
    MLSystem(admin, tenant_id="hiddenn").datasets.create("d", pd.DataFrame({"x": [1]}))
    assert "hiddenn did not exist" in caplog.text
    assert "Did you mean" not in caplog.text


def test_a_version_is_reported_whatever_became_of_its_data(system: MLSystem, tmp_path: Path) -> None:
    """Its card, data with the profile, quality, moves and lineage; also without run and dataset, or as a bare file."""
    table = tickets()
    dataset = system.datasets.create("tickets_2026", table)
    result = system.train_model("tickets", None, dataset=dataset.reference, target="category", hyperparameters=FAST)
    system.update_model("tickets", {"card": {"limitations": "Only English."}}, result["version"])
    system.promote("tickets", result["version"], "staging", reason="a look")
    page = system.report_version("tickets", result["version"], tmp_path / "a.html").read_text(encoding="utf-8")
    assert all(
        text in page for text in ("Limitations", "Only English.", "Confusion matrix", "a look", "tickets_2026@1")
    )
    assert f"normal ({(table['priority'] == 'normal').sum()})" in page
    system.runs.artifacts.delete(result["run_id"], "diagnostics.json")
    later = system.report_version("tickets", None, tmp_path / "b.html").read_text(encoding="utf-8")
    assert "Confusion matrix" not in later
    assert "accuracy" in later
    brought = system.report_version("tickets", "1", tmp_path / "c.html").read_text(encoding="utf-8")
    assert "tickets, version 1" in brought
    with pytest.raises(ModelNotFoundError):
        system.report_version("tickets", "9", tmp_path / "d.html")


def test_versions_are_a_data_frame(system: MLSystem) -> None:
    """Of a model, and of all; with metrics and environments as columns, and as a table in a notebook."""
    frame = system.versions("tickets").to_frame()
    assert list(frame["version"]) == ["3", "2", "1"]
    assert list(frame["validation/accuracy"]) == [0.3, 0.2, 0.1]
    assert list(frame["environments"]) == ["production", "", ""]
    assert list(system.versions.to_frame()["model_id"]) == ["tickets"] * 3
    assert "0.3" in system.versions("tickets")._repr_html_()
    assert "0.3 ✓" in system.registry.compare_versions("tickets", "1", "3")._repr_html_()
    assert len(system.versions("absent").to_frame()) == 0


def test_a_column_has_a_name_of_a_bounded_length_at_every_door(system: MLSystem, tmp_path: Path) -> None:
    """In memory, in a file and in a model of one's own; the message shows how the name begins."""
    longest, too_long = "q" * 250, "q" * 251
    frame, labels = split_target(tickets(), "category")
    good, bad = (frame.rename(columns={"subject": name}) for name in (longest, too_long))
    bad.to_csv(tmp_path / "t.csv", index=False)
    bad.to_parquet(tmp_path / "t.parquet")
    own = make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression())
    joblib.dump(own.fit(bad[[too_long]], labels), tmp_path / "own.joblib")
    doors = [
        lambda: system.train_model("t", "classification", (bad, labels), None, FAST),
        lambda: system.train_model("t", "classification", (bad.to_dict("records"), labels), None, FAST),
        lambda: system.datasets.create("t", bad),
        lambda: system.datasets.from_file("t", tmp_path / "t.csv"),
        lambda: system.datasets.from_file("t", tmp_path / "t.parquet"),
        lambda: system.models.register_model("t", "classification", tmp_path / "own.joblib", sample=bad.head()),
    ]
    for door in doors:
        with pytest.raises(MLFrameworkError, match=r"'q{60}…' has 251 characters; 250 are allowed. Rename"):
            door()
    with pytest.raises(MLFrameworkError, match="Read the file first"):
        system.datasets.create("t", tmp_path / "t.csv")
    assert system.datasets.list().items == []
    result = system.train_model("t", "classification", (good, labels), None, FAST)
    assert system.predict("t", good.iloc[0].to_dict(), version=result["version"]) in set(labels)


def numeric_arguments() -> set[tuple[str, str]]:
    """``(method, argument)`` of each number that a public class takes."""
    found = set()
    for public in (*(getattr(ml_core, name) for name in ml_core.__all__), CacheConfig, MLClient):
        for name, method in inspect.getmembers(public, inspect.isfunction):
            if not name.startswith("_") or name == "__init__":
                for argument, given in inspect.signature(method).parameters.items():
                    if {"int", "float"} & {*str(given.annotation).split(" | ")}:
                        found.add((f"{public.__name__}.{name}", argument))
    return found


def test_a_number_out_of_range_is_refused_at_once(db: DatabaseConnection, system: MLSystem) -> None:
    """By each argument of the public classes, with its name; a constructor does not wait for the first use."""
    frame, labels = split_target(tickets(), "category")
    trained, rows = system.train_model("m", None, (frame, frame["minutes_open"])), frame.head(2).to_dict("records")
    model = system.models.load_model("m", trained["version"])
    trainer, split = system.trainer, DataProcessor().split_data
    spec = TrainSpec(dataset="t", target="category")
    calls = {
        ("MLSystem.__init__", "max_memory_mb"): lambda n: MLSystem(db, max_memory_mb=n),
        ("MLSystem.history", "limit"): lambda n: system.history("tickets", limit=n),
        ("MLSystem.predict_batch", "batch_size"): lambda n: system.predict_batch("m", rows, batch_size=n),
        ("MLSystem.predict_interval", "coverage"): lambda n: system.predict_interval("m", rows, n),
        ("ModelRegistry.history", "limit"): lambda n: system.registry.history("tickets", "production", limit=n),
        ("ModelRegistry.list_versions", "limit"): lambda n: system.registry.list_versions("tickets", limit=n),
        ("Predictor.predict_batch", "batch_size"): lambda n: system.predictor.predict_batch(model, rows, batch_size=n),
        ("Predictor.predict_interval", "coverage"): lambda n: system.predictor.predict_interval(model, rows, n),
        ("DataProcessor.split_data", "test_size"): lambda n: split(frame, labels, test_size=n),
        ("DataProcessor.split_data", "val_size"): lambda n: split(frame, labels, val_size=n),
        ("DataProcessor.split_data", "random_state"): lambda n: split(frame, labels, random_state=n),
        ("Trainer.choose", "cores"): lambda n: trainer.choose("m", spec, n),
        ("Trainer.choose", "available_cores"): lambda n: trainer.choose("m", spec, 1, n),
        ("Trainer.save_checkpoint", "epoch"): lambda n: trainer.save_checkpoint(object(), "m", n),
        ("Trainer.tune", "cpus"): lambda n: trainer.tune("m", None, (frame, labels), cpus=n),
        ("Trainer.tune_spec", "cpus"): lambda n: trainer.tune_spec("m", spec, TuneSpec(), n),
        ("CacheConfig.__init__", "max_entries"): lambda n: CacheConfig(max_entries=n),
        ("CacheConfig.__init__", "max_bytes"): lambda n: CacheConfig(max_bytes=n),
        ("CacheConfig.__init__", "ttl_s"): lambda n: CacheConfig(ttl_s=n),
        ("MLClient.__init__", "timeout_s"): lambda n: MLClient("http://127.0.0.1:1", timeout_s=n),
        ("MLClient.predict", "interval"): None,  # the platform checks it
    }
    assert calls.keys() == numeric_arguments()
    for (method, argument), call in calls.items():
        for number in (-1, math.nan) if call else ():
            with pytest.raises(MLFrameworkError) as caught:
                call(number)
            assert any(word in str(caught.value) for word in argument.split("_")), (method, str(caught.value))
