"""Training on a registered dataset: the lineage names it, and nothing else can."""

import pytest

from ml_core.exceptions import DatasetInUseError, InvalidRequestError, TrainingError
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
