"""The data processor."""

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

from ml_core.data.canonical import columns_from_frame
from ml_core.data.encoding.number import SCALINGS
from ml_core.data.encoding.table import TableEncoder
from ml_core.data.kinds import infer_columns
from ml_core.data.processor import DataProcessor
from ml_core.exceptions import DataProcessingError, InvalidNameError


@pytest.fixture
def frame():
    """Forty rows of every kind, each column with missing values; and a constant."""
    rows = range(40)
    return pd.DataFrame(
        {
            "age": [None if i % 10 == 0 else float(i) for i in rows],
            "paid": pd.Series([None if i % 8 == 0 else i % 3 > 0 for i in rows], dtype=object),
            "seen": [None if i % 9 == 0 else f"2026-01-{i % 28 + 1:02d}T08:00:00Z" for i in rows],
            "plan": [None if i % 7 == 0 else "ab"[i % 2] for i in rows],
            "body": [None if i % 6 == 0 else f"printer {i} is not working today" for i in rows],
            "source": "web",
        }
    ).set_axis([f"r{i}" for i in rows])


def test_preprocess_cleans_every_column(frame):
    """No missing value is left; rows, index and columns stay."""
    clean = DataProcessor().preprocess(frame)
    assert not clean.isna().any().any()
    assert clean.index.equals(frame.index)
    assert list(clean.columns) == list(frame.columns)
    assert clean["age"].iloc[0] == frame["age"].median()
    assert clean["paid"].iloc[0] == 1.0
    assert str(clean["seen"].dt.tz) == "UTC"
    assert clean["plan"].iloc[0] == "missing"
    assert clean["body"].iloc[0] == ""
    assert frame["age"].isna().sum() == 4


def test_inference_applies_what_training_fitted(frame):
    """One row is filled with the training data's median, not its own."""
    processor = DataProcessor()
    processor.preprocess(frame)
    row = pd.DataFrame({"age": [None], "plan": ["a"], "unknown": [1]})
    clean = processor.preprocess(row, is_training=False)
    assert clean["age"].tolist() == [frame["age"].median()]
    assert "unknown" not in clean.columns


def test_inference_before_training_is_an_error(frame):
    """It says what to call."""
    with pytest.raises(DataProcessingError, match="not fitted"):
        DataProcessor().preprocess(frame, is_training=False)


def test_extract_features(frame):
    """Of texts and datetimes; missing stays missing."""
    extended = DataProcessor().extract_features(frame)
    assert extended.loc["r1", ["body_words", "body_characters", "seen_year", "seen_month", "seen_hour"]].tolist() == [
        *(6, len("printer 1 is not working today")),
        *(2026, 0, 8),
    ]
    assert np.isnan(extended.loc["r0", "body_words"])
    assert np.isnan(extended.loc["r0", "seen_year"])
    assert set(frame.columns) < set(extended.columns)


@pytest.mark.parametrize(
    ("config", "added"),
    [
        ({"include_text_features": False}, "seen_"),
        ({"include_datetime_features": False}, "body_"),
    ],
)
def test_features_can_be_left_out(frame, config, added):
    """Each of the two sorts."""
    extended = DataProcessor().extract_features(frame, config)
    new = set(extended.columns) - set(frame.columns)
    assert new
    assert all(name.startswith(added) for name in new)


def test_an_unknown_feature_is_an_error(frame):
    """A typing mistake is not ignored."""
    with pytest.raises(DataProcessingError, match="include_txt"):
        DataProcessor().extract_features(frame, {"include_txt": True})


@pytest.mark.parametrize("transform_type", SCALINGS)
@pytest.mark.parametrize("is_preprocessed", [False, True])
def test_transform_features_makes_every_column_a_number(frame, transform_type, is_preprocessed):
    """Whatever ``extract_features`` left: categories, texts, dates, missing values, in training and after it."""
    processor = DataProcessor()
    raw = processor.preprocess(frame) if is_preprocessed else frame
    learned = processor.transform_features(processor.extract_features(raw), transform_type)
    assert set(learned.dtypes) == {np.dtype("float64")}
    assert np.isfinite(learned.to_numpy()).all()
    assert learned.index.equals(frame.index)
    assert {"age", "paid", "plan = a", "seen time", "source = web"} <= set(learned.columns)
    assert any(name.startswith("body") and "printer" in name for name in learned.columns)
    again = processor.transform_features(processor.extract_features(raw), transform_type, is_training=False)
    pd.testing.assert_frame_equal(again, learned)
    if transform_type == "minmax":
        assert (learned.min().min(), learned.max().max()) == (0.0, 1.0)


NEW_ROWS = {
    "new category": {"plan": ["z"]},
    "new text": {"body": ["words that nobody wrote before"]},
    "dates far off": {"seen": ["1999-12-31", "2099-01-01T00:00:00+02:00"]},
    "numbers far off": {"age": [-1e300, 1e300]},
    "all missing": {"age": [None], "paid": [None], "seen": [None], "plan": [None], "body": [None], "source": [None]},
    "NaN": {"age": [float("nan")], "plan": [float("nan")]},
    "columns that training had not": {"age": [3.0], "further": ["x"]},
    "no row": {"age": []},
}


@pytest.mark.parametrize("transform_type", SCALINGS)
@pytest.mark.parametrize("name", NEW_ROWS)
def test_rows_that_training_had_not_are_transformed(frame, name, transform_type):
    """To the same columns, all finite, within 0 and 1 where that was asked for."""
    processor = DataProcessor()
    learned = processor.transform_features(processor.extract_features(frame), transform_type)
    rows = pd.DataFrame(NEW_ROWS[name])
    made = processor.transform_features(rows, transform_type, is_training=False)
    assert list(made.columns) == list(learned.columns)
    assert np.isfinite(made.to_numpy()).all()
    assert len(made) == len(rows)
    if transform_type == "minmax":
        assert made.to_numpy().min(initial=0.0) >= 0.0
        assert made.to_numpy().max(initial=0.0) <= 1.0


def test_a_new_category_is_another_value(frame):
    """And no value of training."""
    processor = DataProcessor()
    processor.transform_features(frame, "none")
    row = processor.transform_features(pd.DataFrame({"plan": ["z"]}), "none", is_training=False).iloc[0]
    assert (row["plan is another value"], row["plan = a"], row["plan = b"], row["plan is missing"]) == (1, 0, 0, 0)


def test_transform_features_uses_the_scale_of_training(frame):
    """A row alone is what it is among the others."""
    processor = DataProcessor()
    scaled = processor.transform_features(frame, "standard")
    assert scaled["age"].mean() == pytest.approx(0)
    assert scaled["age"].std(ddof=0) == pytest.approx(1)
    one = processor.transform_features(frame.iloc[[5]], "standard", is_training=False)
    pd.testing.assert_series_equal(one.iloc[0], scaled.iloc[5])


@pytest.mark.parametrize("row", [5, 12, 0])
def test_a_row_alone_has_the_features_that_it_had_among_the_others(frame, row):
    """Its kinds are those of training: one text or date alone would be a category."""
    processor = DataProcessor()
    among = processor.transform_features(processor.extract_features(frame), "minmax")
    alone = processor.transform_features(processor.extract_features(frame.iloc[[row]]), "minmax", is_training=False)
    pd.testing.assert_series_equal(alone.iloc[0], among.iloc[row])


@pytest.mark.parametrize("values", [["a"] * 5, [None, "a", "a", "a", "a"], [7] * 5, [f"id-{i:09}" for i in range(5)]])
def test_a_column_that_says_nothing_is_encoded_too(values):
    """A constant and an identifier: whether a model uses it is not this method's question."""
    made = DataProcessor().transform_features(pd.DataFrame({"x": values}), "minmax")
    assert made.shape[1] >= 1
    assert np.isfinite(made.to_numpy()).all()


@pytest.mark.parametrize("transform_type", ["minmax", "robust", "none"])
def test_other_transforms(transform_type):
    """The range, the quartiles, or nothing."""
    frame = pd.DataFrame({"x": [0.0, 1.0, 2.0, 3.0, 4.0]})
    expected = {"minmax": [0, 0.25, 0.5, 0.75, 1], "robust": [-1, -0.5, 0, 0.5, 1], "none": [0, 1, 2, 3, 4]}
    assert DataProcessor().transform_features(frame, transform_type)["x"].tolist() == expected[transform_type]


def test_transform_errors(frame):
    """An unknown transform, and a scale that was not learned."""
    with pytest.raises(DataProcessingError, match="Use one of standard"):
        DataProcessor().transform_features(frame, "log")
    processor = DataProcessor()
    with pytest.raises(DataProcessingError, match="'standard' is not fitted"):
        processor.transform_features(frame, is_training=False)
    processor.transform_features(frame, "minmax")
    with pytest.raises(DataProcessingError, match="'standard' is not fitted"):
        processor.transform_features(frame, is_training=False)
    with pytest.raises(DataProcessingError, match="training data has no rows"):
        processor.transform_features(frame.head(0))


def test_split_data_keeps_types_and_pairs(frame):
    """X and y of a part belong to the same rows."""
    y = pd.Series(["a", "b"] * 20, index=frame.index)
    x_train, x_val, x_test, y_train, y_val, y_test = DataProcessor().split_data(frame, y)
    assert (len(x_train), len(x_val), len(x_test)) == (28, 4, 8)
    for x_part, y_part in ((x_train, y_train), (x_val, y_val), (x_test, y_test)):
        assert isinstance(x_part, pd.DataFrame)
        assert x_part.index.equals(y_part.index)


def test_split_data_takes_arrays():
    """And gives arrays."""
    x_train, *_ = DataProcessor().split_data(np.zeros((20, 2)), [0, 1] * 10)
    assert isinstance(x_train, np.ndarray)


@pytest.mark.parametrize(("n_rows", "column"), [(40, "nobody"), (39, None)])
def test_split_errors(frame, n_rows, column):
    """An unknown column to split by, and a length mismatch."""
    with pytest.raises(DataProcessingError):
        DataProcessor().split_data(frame, [0] * n_rows, group=column)


def test_split_by_a_column(frame):
    """The latest rows are the test part."""
    order = frame.assign(t=range(40))
    _, _, x_test, *_ = DataProcessor().split_data(order, [0] * 40, time="t")
    assert x_test["t"].tolist() == list(range(32, 40))


def test_postprocess():
    """One value a row, whatever shape the estimator gave."""
    processor = DataProcessor()
    assert processor.postprocess([[1], [2]], "regression").tolist() == [1.0, 2.0]
    assert processor.postprocess("a", "classification").tolist() == ["a"]
    with pytest.raises(DataProcessingError, match="Prediction 1 is not a finite number"):
        processor.postprocess([1.0, float("nan")], "regression")
    with pytest.raises(DataProcessingError, match="one value a row"):
        processor.postprocess([[1, 2]])


def test_the_tenant_is_parsed():
    """A name that can't be a tenant's is refused."""
    with pytest.raises(InvalidNameError):
        DataProcessor(tenant_id="../etc")


class Doubling(DataProcessor):
    """A user's own processor: counts how it was called, adds a column."""

    def preprocess(self, data, model_type=None, is_training=True):
        self.calls = [*getattr(self, "calls", []), (model_type, is_training)]
        clean = super().preprocess(data, model_type, is_training)
        return clean.assign(double=clean["age"] * 2)


def test_the_plain_processor_is_no_step(frame):
    """So no data frame is built for a request."""
    steps = DataProcessor(scaling="robust").build_steps([("age", "number")], max_text_features=5)
    assert [name for name, _ in steps] == ["encode"]
    assert isinstance(steps[0][1], TableEncoder)
    assert (steps[0][1].scaling, steps[0][1].max_text_features) == ("robust", 5)


def test_an_overridden_preprocess_runs_in_training_and_inference(frame):
    """Its column is a feature in both, from frames and from canonical columns alike."""
    inputs = [column.input for column in infer_columns(frame) if column.input]
    steps = Doubling().build_steps([(c.name, c.kind.value) for c in inputs], "classification")
    pipeline = Pipeline([*steps, ("estimate", LogisticRegression(max_iter=1000))])
    pipeline.fit(frame, ["x", "y"] * 20)
    assert "double" in pipeline["encode"].get_feature_names_out()
    columns = columns_from_frame(frame, inputs)
    np.testing.assert_array_equal(pipeline.predict_proba(frame), pipeline.predict_proba(columns))
    calls = pipeline["process"].processor.calls
    assert calls[0] == ("classification", True)
    assert set(calls[1:]) == {("classification", False)}


class Dropping(DataProcessor):
    """Loses rows, which no processor of a prediction may."""

    def preprocess(self, data, model_type=None, is_training=True):
        return super().preprocess(data, model_type, is_training).iloc[1:]


def test_a_processor_that_loses_rows_is_an_error(frame):
    """Predictions could no longer be told apart."""
    [(_, step), _] = Dropping().build_steps([("age", "number")])
    with pytest.raises(DataProcessingError, match=r"Dropping\.preprocess made 39 rows of 40"):
        step.fit(frame)
