"""Training on a registered dataset: the lineage names it, and nothing else can."""

import pytest

from ml_core.domain.train_spec import TrainSpec
from ml_core.domain.training_report import TrainingReport
from ml_core.exceptions import DatasetInUseError, InvalidRequestError, ModelNotFoundError, TrainingError
from ml_core.system import MLSystem
from support.tables import split_target, tickets

FAST = {"algorithm": "logistic_regression"}


@pytest.fixture
def system(db, tenant_id):
    with MLSystem(db, tenant_id=tenant_id) as system:
        yield system


def test_a_dataset_is_training_data(system):
    """The model is the one that the table itself gives, and the lineage, the run and the dataset know of each other."""
    made = system.datasets.create("tickets_2026", tickets())
    result = system.train_model("tickets", None, dataset="tickets_2026@1", target="category", hyperparameters=FAST)
    direct = system.train_model("tickets", None, split_target(tickets(), "category"), hyperparameters=FAST)
    assert result["metrics"] == direct["metrics"]
    lineage = system.registry.get_lineage("tickets", result["version"])
    assert (lineage["dataset_digest"], lineage["datasets"]) == (made.digest, ["tickets_2026@1"])
    assert system.runs.get(result["run_id"]).parameters["dataset"] == "tickets_2026@1"
    with pytest.raises(DatasetInUseError):
        system.datasets.delete("tickets_2026", 1)


def test_the_same_table_is_the_same_data(system):
    """Whether it comes as a file's frame, as a frame that is registered too, or as a dataset; other data is told."""
    made = system.datasets.create("tickets_2026", tickets())
    pair = split_target(tickets(), "category")
    system.train_model("tickets", None, pair, hyperparameters=FAST)
    system.train_model("tickets", None, pair, hyperparameters=FAST, dataset=made.reference)
    system.train_model("tickets", None, dataset=made.reference, target="category", hyperparameters=FAST)
    system.train_model("tickets", None, split_target(tickets(seed=9), "category"), hyperparameters=FAST)
    compared = {pair: system.registry.compare_versions("tickets", *pair)["data"]["same"] for pair in ("12", "23", "14")}
    assert compared == {"12": True, "23": True, "14": False}


def test_data_of_a_dataset_may_be_prepared_by_the_caller(system):
    """The pair is trained on, the dataset is recorded; without a number it is the newest at that moment."""
    system.datasets.create("t", tickets(seed=1))
    newest = system.datasets.create("t", tickets())
    result = system.train_model("tickets", None, split_target(tickets(), "category"), hyperparameters=FAST, dataset="t")
    assert system.registry.get_model_version("tickets", result["version"]).lineage.dataset_digest == newest.digest
    assert system.runs.get(result["run_id"]).parameters["dataset"] == "t@2"


def test_a_dataset_that_does_not_exist_is_refused(system):
    """Before anything is trained or a run begins."""
    with pytest.raises(InvalidRequestError, match="dataset none does not exist") as caught:
        system.train_model("tickets", None, dataset="none", target="category")
    assert caught.value.field == "dataset"
    assert system.runs.search().items == []


def test_a_target_is_a_column_of_the_dataset(system):
    """The error names the columns that there are."""
    system.datasets.create("t", tickets())
    with pytest.raises(TrainingError, match="no column 'categroy'") as caught:
        system.train_model("tickets", None, dataset="t", target="categroy")
    assert (caught.value.stage, caught.value.column) == ("validate", "categroy")
    assert "category" in caught.value.remedy


@pytest.mark.parametrize("names", [range(6), [("t", i) for i in range(6)]])
def test_a_target_may_be_called_by_a_number_or_tuple(system, names):
    """As in the frame that was registered, or by the text that the dataset made of it."""
    system.datasets.create("t", tickets().set_axis(list(names), axis=1))
    for target in (names[5], str(names[5])):
        made = system.train_model("tickets", None, dataset="t", target=target, hyperparameters=FAST)
        version = system.registry.get_model_version("tickets", made["version"])
        assert version.servable.signature.output.classes == ("account", "billing", "bug")


def test_a_target_without_a_dataset_means_nothing(system):
    """So it is not passed over in silence."""
    with pytest.raises(InvalidRequestError, match="target"):
        system.train_model("tickets", None, split_target(tickets(), "category"), target="category")


def test_neither_data_nor_dataset_is_refused(system):
    """As data that is no pair."""
    with pytest.raises(TrainingError, match="training_data"):
        system.train_model("tickets", None)


def test_a_spec_trains_and_its_report_can_be_had_again(system, tmp_path):
    """From a CSV of cells, as a remote client sends it: what is shown after a training is stored with the version."""
    frame = tickets().assign(number=[f"T-{i:05}" for i in range(len(tickets()))])
    frame.to_csv(tmp_path / "t.csv", index=False)
    system.datasets.from_csv("t", tmp_path / "t.csv")
    system.datasets.create("held", tickets(seed=7).head(40))
    spec = TrainSpec.from_json(
        {"dataset": "t", "target": "category", "validation_dataset": "held@1", "ignore": ["number"]}
        | {"hyperparameters": FAST, "version": "a", "metadata": {"ticket": "ML-7"}}
    )
    report = system.trainer.train_spec("tickets", spec)
    version = system.registry.get_model_version("tickets", "a")
    assert (report.dataset, report.run_id, report.version) == ("t@1", version.lineage.run_id, "a")
    assert (report.algorithm, report.n_rows["validation"]) == ("logistic_regression", 40)
    assert report.baseline["accuracy"] < report.metrics["validation"]["accuracy"]
    assert "number" not in {column.name for column in report.columns}
    assert all(column.reason for column in report.columns)
    assert system.predict("tickets", dict(report.example), version="a") in version.servable.signature.output.classes
    assert version.metadata["ticket"] == "ML-7"

    def by_name(found):
        return {**found.to_json(), "columns": sorted(found.to_json()["columns"], key=lambda column: column["name"])}

    assert by_name(TrainingReport.of_version(version)) == by_name(report)
    assert TrainingReport.from_json(report.to_json()) == report


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dataset": "t"}, "to predict is not named.* one of: subject"),
        ({"dataset": "t", "target": "category", "ignore": ["nmae"]}, "no column 'nmae'"),
        ({"dataset": "t", "target": "category", "ignore": ["SUBJECT"]}, "Did you mean subject"),
        (
            {"dataset": "t", "target": "category", "kinds": {"subjct": "text"}},
            "no column 'subjct'. Did you mean subject",
        ),
        ({"dataset": "t", "target": "category", "ignore": ["category"]}, "both the target and ignored"),
        ({"dataset": "t", "target": "category", "validation_dataset": "t2"}, "t2@1 has no column 'category'"),
    ],
)
def test_columns_of_a_spec_are_checked_before_a_run_begins(system, fields, message):
    """Of the dataset to train on and of the one to measure on."""
    system.datasets.create("t", tickets())
    system.datasets.create("t2", tickets().drop(columns=["category"]))
    for door in (system.trainer.check_spec, system.trainer.train_spec):
        with pytest.raises(TrainingError, match=message) as caught:
            door("tickets", TrainSpec(**fields))
        assert (caught.value.stage, caught.value.tenant_id) == ("validate", system.tenant_id)
    assert system.runs.search().items == []


def test_a_spec_is_checked_before_it_is_queued(system):
    """Hyperparameters and names too; a spec that can train passes, and nothing is written."""
    system.datasets.create("t", tickets())
    spec = {"dataset": "t", "target": "category", "model_type": "classification"}
    system.trainer.check_spec("tickets", TrainSpec(**spec, hyperparameters=FAST))
    with pytest.raises(TrainingError, match="Did you mean n_estimators"):
        system.trainer.check_spec("tickets", TrainSpec(**spec, hyperparameters={"n_estimator": 3}))
    with pytest.raises(ModelNotFoundError):
        system.trainer.check_spec("tickets", TrainSpec(**spec, parent_version="9"))
    assert system.runs.search().items == []


def test_fields_about_a_dataset_need_one(system):
    """They would be ignored otherwise; and a spec brings no data of its own."""
    with pytest.raises(InvalidRequestError, match="names no dataset"):
        system.trainer.train_spec("tickets", TrainSpec(model_type="clustering"))
    for fields in ({"ignore": ["id"]}, {"validation_dataset": "t"}):
        with pytest.raises(InvalidRequestError, match=next(iter(fields))):
            system.train_model("tickets", None, split_target(tickets(), "category"), **fields)


def test_the_options_of_a_training_are_recorded(system):
    """With the run and the version; what a cross-validation found is in the report, also of the stored version."""
    system.datasets.create("t", tickets().assign(weight=1.5))
    options = {"weight": "weight", "calibration": "sigmoid", "cross_validation": 3, "split_seed": 7}
    result = system.train_model("m", None, dataset="t", target="category", hyperparameters=FAST, **options)
    assert result["cross_validation"]["folds"] == 3
    version = system.registry.get_model_version("m", result["version"])
    assert TrainingReport.of_version(version).cross_validation == result["cross_validation"]
    assert version.training["calibration"] == "sigmoid"
    parameters = system.runs.get(result["run_id"]).parameters
    assert {name: parameters[name] for name in options} == options
