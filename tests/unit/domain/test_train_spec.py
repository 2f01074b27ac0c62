"""``TrainSpec``: a training as JSON, checked field by field; ``RareClasses`` is tested with the training."""

import json

import pytest

from ml_core.domain.columns import ColumnKind
from ml_core.domain.train_spec import TrainSpec, needs_target
from ml_core.exceptions import (
    DataProcessingError,
    InvalidNameError,
    InvalidRequestError,
    MLFrameworkError,
    TrainingError,
)

WHOLE = {
    "model_type": "classification",
    "dataset": "tickets_2026@3",
    "target": "category",
    "validation_dataset": "held_out",
    "group": "customer",
    "time": None,
    "weight": "severity",
    "ignore": ["id"],
    "hyperparameters": {"algorithm": "random_forest", "class_weight": {"bug": 2.0}},
    "kinds": {"zip": "category"},
    "selection_seconds": 5.0,
    "rare_classes": "merge:other:5",
    "calibration": "sigmoid",
    "cross_validation": 5,
    "split_seed": 7,
    "version": "1.0.0",
    "parent_version": "0.9.0",
    "metadata": {"ticket": "ML-7"},
}


def test_a_spec_is_read_from_json_and_written_back():
    """Through text, to the last field."""
    spec = TrainSpec.from_json(json.loads(json.dumps(WHOLE)))
    assert spec.to_json() == WHOLE
    assert spec.kinds == {"zip": ColumnKind.CATEGORY}


def test_fields_that_are_left_out_or_null_have_their_defaults():
    """So that a form may send all of them."""
    assert TrainSpec.from_json({}) == TrainSpec.from_json(dict.fromkeys(WHOLE)) == TrainSpec()


@pytest.mark.parametrize(
    ("document", "error", "message"),
    [
        ({"hyperparameter": {}}, InvalidRequestError, "no field 'hyperparameter'.* Did you mean hyperparameters"),
        ({"colour": 1}, InvalidRequestError, "no field 'colour'.* Valid are: model_type, dataset"),
        ({"kinds": {"zip": "categroy"}}, DataProcessingError, "Did you mean category"),
        ({"kinds": {"zip": "prose"}}, DataProcessingError, "Valid are: number, boolean"),
        ({"kinds": ["zip"]}, InvalidRequestError, "an object of column name and kind"),
        ({"ignore": "id"}, InvalidRequestError, "a list of column names"),
        ({"hyperparameters": [1]}, InvalidRequestError, "an object of name and value"),
        ({"target": 3}, InvalidRequestError, "Give a string"),
        ({"version": "../x"}, InvalidNameError, "version"),
        ({"dataset": "t@0"}, InvalidRequestError, "is not a reference to a version of a dataset"),
        ({"validation_dataset": "a@b@c"}, InvalidRequestError, "is not a reference to a version of a dataset"),
        ({"group": "customer", "time": "opened"}, InvalidRequestError, "Hold rows out by one of them"),
        ({"selection_seconds": 0}, InvalidRequestError, "Give a number above 0, up to 86,400"),
        ({"rare_classes": "keep:3"}, TrainingError, "merge:other:5"),
        ({"calibration": "sigmod"}, InvalidRequestError, "Did you mean sigmoid"),
        ({"cross_validation": 1}, InvalidRequestError, "from 2 to 20"),
        ({"split_seed": -1}, InvalidRequestError, "from 0 to"),
        ({"metadata": {"training": {}}}, InvalidRequestError, "is reserved for the record"),
        ([], InvalidRequestError, "not a JSON object"),
    ],
)
def test_an_invalid_field_is_refused(document, error, message):
    """With its name, and the nearest valid ones where there are few."""
    with pytest.raises(error, match=message) as caught:
        TrainSpec.from_json(document)
    assert isinstance(caught.value, MLFrameworkError)
    assert caught.value.remedy


def test_only_classification_and_regression_need_a_target():
    """Also where the type is to be found from the target; a registered type decides for itself."""
    assert [needs_target(kind) for kind in (None, "classification", "regression")] == [True] * 3
    assert [needs_target(kind) for kind in ("clustering", "anomaly_detection", "custom")] == [False] * 3


def test_one_column_to_ignore_is_not_taken_for_its_characters() -> None:
    """It would be the columns x and y."""
    with pytest.raises(InvalidRequestError, match=r"ignore is one text. Give a list, such as \['xy'\]"):
        TrainSpec(dataset="d", ignore="xy")
    assert TrainSpec(dataset="d", ignore=[1, "xy"]).ignore == ("1", "xy")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hyperparameters", "algorithm=ridge"),
        ("hyperparameters", {1: 2}),
        ("kinds", "zip=category"),
        ("metadata", ["note"]),
        ("model_type", int),
        ("dataset", 3),
        ("validation_dataset", 3),
        ("rare_classes", 3),
        ("selection_seconds", "20"),
        ("cross_validation", "3"),
        ("ignore", 3),
        ("ignore", "id"),
    ],
)
def test_a_value_of_another_type_is_refused_by_its_name(field, value):
    """As Python gives it, where JSON is checked when it is read."""
    with pytest.raises(MLFrameworkError, match=field):
        TrainSpec(**{field: value})
