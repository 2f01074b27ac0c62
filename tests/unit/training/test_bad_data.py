"""Data that can't train: one error each, that names the column and says what to do."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ml_core.exceptions import TrainingError
from ml_core.ids import ModelId
from ml_core.training.fit import fit_model
from ml_core.training.request import TrainingRequest
from ml_core.training.targets import model_type_of, read_target
from support.tables import measures, split_target

X, Y = split_target(measures(), "outcome")
# A lone surrogate, which pandas keeps in columns of Python objects only.
OBJECTS = pd.Series(["a", "b\ud800"] * 100, dtype=object)


def with_column(**columns):
    return X.assign(**columns)


def labels(**counts):
    """A target of 200 rows with so many of each label."""
    values = [label for label, count in counts.items() for _ in range(count)]
    return pd.Series(values + ["rest"] * (200 - len(values)), name="outcome")


@pytest.mark.parametrize(
    ("data", "model_type", "message", "column"),
    [
        ((X, ["yes"] * 200), None, r"one class only, 'yes', in all 200 rows", None),
        ((X, pd.Series(["yes"] * 200, name="churn")), None, "'churn' has one class only", "churn"),
        ((X.head(0), Y.head(0)), None, "training data has no rows", None),
        ((X.head(9), Y.head(9)), None, "9 rows to train on, fewer than 10", None),
        ((X, Y.head(199)), None, "200 rows but 199 target values", "outcome"),
        ((X, Y.sample(frac=1.0, random_state=0)), None, "training targets have the index of the rows in another", None),
        ((with_column(empty=None), Y), None, "'empty' has no value in any", "empty"),
        ((with_column(empty=np.nan), Y), None, "'empty' has no value in any", "empty"),
        ((X, labels(rare=1)), None, r"1 class\(es\) with one row: 'rare'", "outcome"),
        ((X, [f"ticket {i}" for i in range(200)]), None, "200 different values in 200 rows, most once", None),
        ((X, [None] * 200), None, "is missing in every row", None),
        ((X, ["a"] * 100 + [1] * 100), None, r"mixes types: 100 of str \('a'\) and 100 of int \(1\)", None),
        ((X, [True] * 100 + ["no"] * 100), None, "mixes types", None),
        ((X, X["m0"]), "classification", "fractions", "m0"),
        ((X, Y), "regression", "'.*', which is not a number", "outcome"),
        ((X, ["1"] * 199 + ["one"]), "regression", "'one', which is not a number", None),
        ((X, [5] * 200), "regression", "is 5 in every row", None),
        ((X, [np.inf, *range(199)]), "regression", "infinity", None),
        ((X, pd.date_range("2026-01-01", periods=200)), None, "Timestamp", None),
        ((X, None), None, "no target to infer", None),
        ((X, None), "classification", "no target", None),
        ((X, np.zeros((200, 2))), None, r"shape \(200, 2\)", None),
        ((with_column(mixed=[*range(150), *(f"about {i}" for i in range(50))]), Y), None, "mixed", "mixed"),
        ((with_column(code=["a", "b\0"] * 100), Y), None, r"'code'.*'b\\x00', with a NUL", "code"),
        ((with_column(code=OBJECTS), Y), None, r"'code'.*'b\\ud800', with a NUL", "code"),
        ((with_column(note=pd.Categorical([f"one two three four {i}\0" for i in range(200)])), Y), None, "NUL", "note"),
        ((with_column(**{"m\0": range(200)}), Y), None, "is called", r"m\x00"),
        ((X, pd.Series(["a", "b\0"] * 100, name="label")), None, "'label' holds.*NUL", "label"),
        ((X[[]], Y), None, "training data has no column besides the target", None),
        (X, None, "not a pair", None),
        ((pd.DataFrame({"same": ["a"] * 200}), Y), None, "No column can be used", None),
        ((3.5, Y), None, "not a table", None),
    ],
)
def test_data_that_can_not_train_is_refused(data, model_type, message, column):
    """Stage ``validate``, the offending column where there is one, and a remedy."""
    with pytest.raises(TrainingError, match=message) as caught:
        fit_model(TrainingRequest(ModelId("m"), model_type, data, hyperparameters={}))
    assert caught.value.stage == "validate"
    assert caught.value.column == column
    assert caught.value.model_id == "m"
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("validation", "message"),
    [
        ((X.head(0), Y.head(0)), "validation data has no rows"),
        ((X.head(5), Y.head(4)), "5 rows but 4"),
        ((X.head(5), [1, 2, 3, 4, 5]), "str.* in the training data and int64"),
        ((X.head(5).assign(m0="text"), Y.head(5)), "column 'm0'"),
        ((X.head(5).assign(note="\0"), Y.head(5)), "'note' of the validation data"),
        ((X.head(5).drop(columns=["m2", "m5"]), Y.head(5)), "validation data .*'m2', 'm5', which the model reads"),
    ],
)
def test_validation_data_is_checked_too(validation, message):
    """Before the fit."""
    with pytest.raises(TrainingError, match=message) as caught:
        fit_model(TrainingRequest(ModelId("m"), None, (X, Y), validation, hyperparameters={}))
    assert caught.value.stage == "validate"


def test_a_class_of_one_row_trains_when_nothing_is_held_out():
    """Given validation rows, every training row is used."""
    fitted = fit_model(
        TrainingRequest(
            ModelId("m"), None, (X, labels(rare=1, some=80)), (X, labels(some=100)), hyperparameters={"n_estimators": 3}
        )
    )
    assert "rare" in fitted.signature.output.classes


@pytest.mark.parametrize(
    ("y", "expected"),
    [
        ([1, 2, 3] * 20, "classification"),
        (list(range(20)) * 2, "classification"),
        (list(range(21)) * 2, "regression"),
        (list(range(1947, 1963)), "regression"),
        ([0, 1], "classification"),
        ([0.5, 1.5] * 10, "regression"),
        ([1.0, 2.0] * 10, "classification"),
        (["a", "b"], "classification"),
        ([str(i) for i in range(50)], "classification"),
        ([True, False], "classification"),
    ],
)
def test_the_model_type_follows_from_the_target(y, expected):
    """Numbers of more than twenty distinct values, or with fractions, are quantities."""
    assert model_type_of(read_target(y)) == expected


CELLS = {
    "strings": st.sampled_from(["a", "B", "1", "1.0", "True", "NA", "é", " a", "a" * 40, "", " ", "\t"])
    | st.text(max_size=3),
    "booleans": st.booleans(),
    "whole numbers": st.integers(-3, 3),
    "numbers": st.integers(-3, 3) | st.sampled_from([0.0, -0.0, 1.0, 2.5]),
}


@pytest.mark.parametrize("kind", CELLS)
@given(data=st.data())
def test_each_row_keeps_its_own_label(kind, data):
    """Rows without one are left out; equal values are one label, and no others are."""
    cells = data.draw(st.lists(CELLS[kind] | st.none(), min_size=1, max_size=30))
    kept = [cell is not None and not (isinstance(cell, str) and not cell.strip()) for cell in cells]
    expected = [cell for cell, is_kept in zip(cells, kept, strict=True) if is_kept]
    assume(expected and not any("\0" in cell for cell in expected if isinstance(cell, str)))
    forms = [pd.Series(cells, dtype=object), cells]
    if kind == "strings":
        forms += [pd.Series(cells, dtype="str"), pd.Series(cells, dtype="string")]
    for form in forms:
        read = read_target(form)
        assert read.kept.tolist() == kept
        assert read.values.tolist() == expected
