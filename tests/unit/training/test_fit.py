"""``fit_model``: what trains, how well, and what the result holds."""

import json
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.dummy import DummyClassifier

from ml_core.data.processor import DataProcessor
from ml_core.domain.columns import ColumnKind
from ml_core.domain.metric import HIGHER_IS_BETTER
from ml_core.domain.signature import OutputKind
from ml_core.exceptions import TrainingError
from ml_core.ids import ModelId
from ml_core.inference.inputs import read_input
from ml_core.models.formats import skops_format
from ml_core.models.model_factory import ModelFactory
from ml_core.training.fit import fit_model
from ml_core.training.request import TrainingRequest
from support.tables import measures, split_target, tickets


def fit(data, model_type=None, validation=None, **options):
    """Fit with a small forest unless told otherwise."""
    hyperparameters = options.pop("hyperparameters", {"n_estimators": 5})
    return fit_model(
        TrainingRequest(ModelId("m"), model_type, data, validation, hyperparameters=hyperparameters, **options)
    )


def measures_with(labels):
    """The table of measures with its two outcomes renamed."""
    X, y = split_target(measures(), "outcome")
    return X, [labels[value == "yes"] for value in y]


def test_raw_columns_need_no_configuration():
    """Text, dates, categories, booleans and missing numbers; better than the baseline on held-out rows."""
    fitted = fit(split_target(tickets(), "category"), hyperparameters={"algorithm": "logistic_regression"})
    assert fitted.model_type == "classification"
    kinds = {column.name: column.kind for column in fitted.signature.inputs}
    assert kinds == {
        "subject": ColumnKind.TEXT,
        "opened": ColumnKind.DATETIME,
        "priority": ColumnKind.CATEGORY,
        "minutes_open": ColumnKind.NUMBER,
        "is_paying": ColumnKind.BOOLEAN,
    }
    assert fitted.metrics["validation"]["accuracy"] > 0.9 > fitted.baseline["accuracy"] + 0.3
    assert fitted.n_rows == {"train": 192, "validation": 48}


@pytest.mark.parametrize(
    ("index", "said"),
    [
        (pd.RangeIndex(200), False),
        (pd.RangeIndex(1_000, 1_200), True),
        (pd.Index(range(150)).append(pd.Index(range(50))), True),
        (pd.MultiIndex.from_arrays([range(200), ["a"] * 200]), True),
    ],
)
def test_targets_with_another_index_are_said(index, said):
    """They are paired as they stand; the same index in another order is refused."""
    X, y = split_target(measures(), "outcome")
    notes = fit((X, y.set_axis(index))).notes
    assert any("targets have another index than the rows" in note for note in notes) == said
    shuffled = y.set_axis(y.index[::-1])
    with pytest.raises(TrainingError, match="validation targets have the index of the rows in another order"):
        fit((X, y), validation=(X, shuffled))
    assert fit((X.to_numpy(), shuffled)).n_rows == {"train": 160, "validation": 40}  # an array has none


def test_the_held_out_rows_are_not_trained_on():
    """A tree that learns by heart is perfect on its own rows and a guess on the others."""
    X, _ = split_target(measures(), "outcome")
    y = np.random.default_rng(5).choice(["a", "b"], len(X))
    fitted = fit((X, y), hyperparameters={"algorithm": "decision_tree"})
    assert fitted.metrics["train"]["accuracy"] == 1.0
    assert fitted.metrics["validation"]["accuracy"] < 0.75


@pytest.mark.parametrize(
    "labels", [("no", "yes"), (3, 7), (False, True), (0.0, 1.0)], ids=["str", "int", "bool", "float"]
)
@pytest.mark.parametrize(
    ("container", "hyperparameters"),
    [
        (list, {"algorithm": "logistic_regression"}),
        (np.array, {"algorithm": "random_forest", "n_estimators": 5}),
        (pd.Series, {"algorithm": "gradient_boosting", "max_iter": 5}),
    ],
)
def test_labels_keep_their_type(labels, container, hyperparameters):
    """In the signature's classes and in the answers, whatever holds them and whatever learns them."""
    X, y = measures_with(labels)
    fitted = fit((X, container(y)), "classification", hyperparameters=hyperparameters)
    assert fitted.signature.output.classes == labels
    answers = [*fitted.signature.output.classes, *fitted.self_test.predictions]
    assert {type(answer) for answer in answers} == {type(labels[0])}
    assert set(fitted.self_test.predictions) <= set(labels)


def test_equal_data_gives_an_equal_model():
    """The seed is fixed."""
    one, other = fit(split_target(measures(), "outcome")), fit(split_target(measures(), "outcome"))
    assert one.metrics == other.metrics
    assert one.self_test == other.self_test
    assert one.data_digest == other.data_digest


def test_other_data_has_another_digest():
    """One changed value is enough, so is another target."""
    X, y = split_target(measures(), "outcome")
    digests = {fit((X, y)).data_digest, fit((X, y[::-1].to_numpy())).data_digest}
    X.iloc[3, 2] += 1e-9
    digests.add(fit((X, y)).data_digest)
    assert len(digests) == 3


def test_a_quantity_is_a_regression():
    """A numeric target of more than twenty distinct values."""
    X, _ = split_target(measures(), "outcome")
    fitted = fit((X, 3 * X["m0"] + X["m1"]), hyperparameters={"algorithm": "ridge"})
    assert fitted.model_type == "regression"
    assert fitted.signature.output.kind is OutputKind.NUMBER
    assert fitted.signature.output.classes == ()
    assert fitted.metrics["validation"]["r2"] > 0.99 > 0.1 > fitted.baseline["r2"]
    assert all(isinstance(answer, float) for answer in fitted.self_test.predictions)


def test_few_numbers_are_classes():
    """Up to twenty distinct whole numbers."""
    X, _ = split_target(measures(), "outcome")
    assert fit((X, np.arange(len(X)) % 5)).model_type == "classification"


@pytest.mark.parametrize("y", [None, "outcome"])
@pytest.mark.parametrize(
    ("model_type", "kind", "metric"),
    [("clustering", OutputKind.CLUSTER, "silhouette"), ("anomaly_detection", OutputKind.ANOMALY, "anomaly_rate")],
)
def test_types_without_a_target(model_type, kind, metric, y):
    """A target is optional; with one there are metrics against it."""
    X, outcome = split_target(measures(), "outcome")
    fitted = fit((X, None if y is None else outcome), model_type, hyperparameters={})
    assert fitted.signature.output.kind is kind
    assert metric in fitted.metrics["validation"]
    assert bool({"adjusted_rand", "roc_auc"} & fitted.metrics["validation"].keys()) == (y is not None)
    assert fitted.baseline == {}
    assert all(isinstance(answer, int) for answer in fitted.self_test.predictions)


@pytest.mark.parametrize("algorithm", ["gradient_boosting", "naive_bayes"])
def test_text_is_made_dense_where_an_estimator_needs_it(algorithm):
    """Those that take no sparse matrix work on a table with text too."""
    fitted = fit(split_target(tickets(120), "category"), hyperparameters={"algorithm": algorithm})
    assert fitted.metrics["validation"]["accuracy"] > fitted.baseline["accuracy"] + 0.3


@pytest.mark.parametrize("scoring", ["loss", None, "accuracy", "neg_log_loss"])
@pytest.mark.parametrize("hyperparameters", [{"early_stopping": True}, {"categorical_features": [0]}, {}])
def test_a_boosting_that_was_fitted_can_be_saved(scoring, hyperparameters):
    """Whatever stopped it; what is read back answers the same."""
    X, y = split_target(measures(), "outcome")
    boosting = {"algorithm": "gradient_boosting", "scoring": scoring, "max_iter": 9}
    fitted = fit((X, y), hyperparameters=boosting | hyperparameters)
    read = skops_format.load(skops_format.dump(fitted.pipeline))
    np.testing.assert_array_equal(read.predict_proba(X), fitted.pipeline.predict_proba(X))


def test_labels_that_training_had_not_count_as_wrong():
    """The metrics stay numbers, and a note says so."""
    X, y = split_target(measures(), "outcome")
    fitted = fit((X, y), validation=(X.head(10), ["never"] * 5 + y.head(10).tolist()[5:]))
    assert fitted.metrics["validation"]["accuracy"] <= 0.5
    assert "log_loss" in fitted.metrics["validation"]
    assert any("5 of 10 validation rows" in note and "'never'" in note for note in fitted.notes)


def test_given_validation_rows_are_the_ones_measured_on():
    """Then every training row is trained on, and a value missing only there is accepted."""
    X, y = split_target(measures(), "outcome")
    held = X.head(20).copy()
    held.loc[0, "m3"] = np.nan
    fitted = fit((X, y), validation=(held, y.head(20)))
    assert fitted.n_rows == {"train": 200, "validation": 20}
    assert {column.name for column in fitted.signature.inputs if column.nullable} == {"m3"}


def test_rows_without_a_target_are_left_out():
    """Counted in a note; integers that missing values had made floats are integers again."""
    X, y = measures_with((0, 1))
    y = pd.Series(y, dtype="float64")
    y.iloc[:10] = np.nan
    fitted = fit((X, y))
    assert sum(fitted.n_rows.values()) == 190
    assert "10 of 200 training rows have no target and were left out." in fitted.notes
    assert fitted.signature.output.classes == (0, 1)
    assert {type(label) for label in fitted.signature.output.classes} == {float}  # as with no label missing


def test_a_blank_target_is_no_target_and_a_word_is_a_class():
    """``None`` may be an answer; an empty cell is none."""
    X, y = measures_with(("None", "some"))
    y[:10] = [""] * 5 + ["  "] * 5
    fitted = fit((X, y))
    assert fitted.signature.output.classes == ("None", "some")
    assert "10 of 200 training rows have no target and were left out." in fitted.notes


def test_zero_padded_targets_are_classes():
    """Answered as they are written."""
    fitted = fit(measures_with(("001", "002")))
    assert (fitted.model_type, fitted.signature.output.classes) == ("classification", ("001", "002"))


def test_zero_padded_targets_are_numbers_where_a_regression_is_asked_for():
    """A file keeps the zeros; the model type says that they mean nothing."""
    X, _ = split_target(measures(), "outcome")
    fitted = fit((X, [f"{i:04}" for i in range(len(X))]), "regression")
    assert fitted.signature.output.kind is OutputKind.NUMBER


@pytest.mark.parametrize("processor", [None, DataProcessor(), "own"])
def test_the_order_of_dates_is_known_to_the_whole_pipeline(processor):
    """Raw frames and rows are read alike, with a processor of the caller's own too."""
    X, y = split_target(measures(), "outcome")
    days = pd.date_range("2026-01-01", periods=len(X)).strftime("%d/%m/%Y")
    X = X.assign(when=days)
    fitted = fit((X, y), processor=_Summing() if processor == "own" else processor)
    rows = X.head(40).to_dict("records")
    answers = fitted.pipeline.predict(fitted.signature.columns_from_rows(rows))
    assert fitted.pipeline.predict(X.head(40)).tolist() == answers.tolist()
    assert "when time" in fitted.pipeline.named_steps["encode"].get_feature_names_out()


def test_words_for_missing_in_given_validation_rows_are_missing():
    """Where the column is a number."""
    X, y = split_target(measures(), "outcome")
    held = X.head(20).astype({"m3": object})
    held.loc[0, "m3"] = "NA"
    fitted = fit((X, y), validation=(held, y.head(20)))
    assert {column.name for column in fitted.signature.inputs if column.nullable} == {"m3"}


@pytest.mark.parametrize(
    "container", [list, pd.Series, lambda y: pd.Series(y, dtype=pd.ArrowDtype(pa.decimal128(30, 4)))]
)
def test_decimals_are_the_numbers_that_they_hold(container):
    """A quantity of a database's NUMERIC column trains as its floats do; so do features."""
    X, _ = split_target(measures(), "outcome")
    numbers = (3 * X["m0"] + X["m1"]).round(4)
    decimals = [Decimal(f"{number:.4f}") for number in numbers]
    fitted = fit((X.assign(m0=[Decimal(str(v)) for v in X["m0"]]), container(decimals)))
    assert fitted.model_type == "regression"
    assert fitted.metrics == fit((X, numbers)).metrics


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ((Decimal("0"), Decimal("1")), (0, 1)),
        ((Decimal("0.00"), Decimal("1.00")), (0, 1)),
        ((Decimal("1E+2"), Decimal("200.0")), (100, 200)),
        ((Decimal(2**53 + 1), Decimal(2**53 + 3)), (2**53 + 1, 2**53 + 3)),
        ((Decimal("0"), 1), (0, 1)),
        ((Decimal("0"), 1.0), (0.0, 1.0)),
        ((np.longdouble(3), np.longdouble(4)), (3.0, 4.0)),
    ],
)
def test_decimal_classes_are_whole_numbers(labels, classes):
    """By their value, not by how many zeros are written."""
    fitted = fit(measures_with(labels))
    assert fitted.signature.output.classes == classes
    assert {type(label) for label in fitted.signature.output.classes} == {type(classes[0])}


def test_a_missing_decimal_is_no_target():
    """None and the Decimal that is no number."""
    X, y = measures_with((Decimal("0"), Decimal("1")))
    y[:10] = [None] * 5 + [Decimal("NaN")] * 5
    fitted = fit((X, y))
    assert "10 of 200 training rows have no target and were left out." in fitted.notes
    assert fitted.signature.output.classes == (0, 1)


@pytest.mark.parametrize("number", [int, Decimal])
def test_a_quantity_beyond_64_bits_is_a_regression(number):
    """Amounts in the smallest unit of a currency; as labels rounding would merge them, so those are refused."""
    X, _ = split_target(measures(), "outcome")
    amounts = [number(10**20 + i * 10**15) for i in range(len(X))]
    assert fit((X, amounts)).model_type == "regression"
    with pytest.raises(TrainingError, match="beyond 64 bits"):
        fit(measures_with((number(10**20), number(10**20 + 1))))


def test_decimal_fractions_are_no_classes():
    """As other fractions."""
    with pytest.raises(TrainingError, match=r"fractions such as 0\.5"):
        fit(measures_with((Decimal("0.5"), Decimal("1.5"))), "classification")


@pytest.mark.parametrize("names", [range(12), [("m", i) for i in range(12)], [*range(11), "11"]])
def test_columns_may_be_called_by_numbers_or_tuples(names):
    """Their names are texts in the signature; the target's name is no different."""
    X, y = split_target(measures(), "outcome")
    X = X.set_axis(list(names), axis=1)
    fitted = fit((X, y.rename(("the", "outcome"))))
    assert [column.name for column in fitted.signature.inputs] == list(map(str, names))
    assert (
        fitted.pipeline.predict(X.head(3)).tolist()
        == fitted.pipeline.predict(X.set_axis(map(str, names), axis=1).head(3)).tolist()
    )


def test_the_result_is_json_safe():
    """Signature, self-test, metrics and baseline go into the registry as JSON."""
    fitted = fit(split_target(tickets(120), "category"))
    for part in (fitted.signature.to_json(), fitted.self_test.to_json(), fitted.metrics, fitted.baseline):
        assert json.loads(json.dumps(part, allow_nan=False)) == part
    assert len(fitted.self_test.rows) == 5


def test_every_metric_has_a_direction():
    """Those that compare; a rate only describes."""
    X, y = split_target(measures(), "outcome")
    found = set(fit((X, y)).metrics["validation"]) | set(fit((X, X["m0"] + X["m1"])).metrics["validation"])
    found |= set(fit((X, y), "clustering", hyperparameters={}).metrics["validation"])
    found |= set(fit((X, y), "anomaly_detection", hyperparameters={}).metrics["validation"])
    assert found - {"anomaly_rate", "clusters"} <= set(HIGHER_IS_BETTER)


def test_a_kind_can_be_given():
    """Numbers that are names."""
    X, y = split_target(measures(), "outcome")
    X["zip"] = np.arange(len(X)) % 7
    fitted = fit((X, y), kinds={"zip": ColumnKind.CATEGORY})
    assert {c.name: c.kind for c in fitted.signature.inputs}["zip"] is ColumnKind.CATEGORY


def test_a_matrix_and_rows_are_tables_too():
    """The columns of a matrix are called x0, x1, …"""
    X, y = split_target(measures(), "outcome")
    fitted = fit((X.to_numpy(), y))
    assert [column.name for column in fitted.signature.inputs] == [f"x{index}" for index in range(12)]
    assert fit((X.to_dict("records"), y.tolist())).metrics == fit((X, y)).metrics


def test_every_table_that_trains_predicts():
    """Of pandas, of another library, as columns or as rows: one model of all of them, and each asks it the same."""
    X, y = split_target(tickets(), "category")
    arrow = pa.Table.from_pandas(X)
    reader = pa.RecordBatchReader.from_batches(arrow.schema, arrow.to_batches())
    tables = {"arrow": arrow, "stream": reader, "columns": X.to_dict("list"), "rows": X.to_dict("records")}
    expected = fit((X, y))
    for data in tables.values():
        fitted = fit((data, pa.array(y)))
        assert fitted.signature == expected.signature
        asked = arrow if isinstance(data, pa.RecordBatchReader) else data  # a stream can be read once
        found = fitted.pipeline.predict(read_input(asked, fitted.signature).columns)
        assert found.tolist() == expected.pipeline.predict(X).tolist()


def test_a_fit_that_did_not_converge_is_noted():
    """A warning is not lost, and is no error."""
    fitted = fit(
        split_target(measures(), "outcome"), hyperparameters={"algorithm": "logistic_regression", "max_iter": 1}
    )
    assert any("ConvergenceWarning" in note for note in fitted.notes)


def test_an_estimator_that_fails_is_a_training_error():
    """With the stage, the model and the cause."""

    class Failing(DummyClassifier):
        def fit(self, X, y, sample_weight=None):
            raise RuntimeError("no luck")

    ModelFactory.register("failing", lambda _: Failing())
    try:
        with pytest.raises(TrainingError, match=r"Failing failed: RuntimeError: no luck") as caught:
            fit(split_target(measures(), "outcome"), "failing")
    finally:
        ModelFactory.unregister("failing")
    assert (caught.value.stage, caught.value.model_id) == ("fit", "m")


def test_a_processor_of_the_callers_own_is_part_of_the_pipeline():
    """Its preprocess runs in training and in every prediction."""
    X, y = split_target(measures(), "outcome")
    fitted = fit((X, y), processor=_Summing())
    assert fitted.pipeline.steps[0][0] == "process"
    assert "total" in fitted.pipeline.named_steps["encode"].get_feature_names_out()
    assert fitted.metrics["validation"]["accuracy"] > 0.9


class _Summing(DataProcessor):
    """Adds the sum that decides."""

    def preprocess(self, data, model_type=None, is_training=True):
        frame = super().preprocess(data, model_type, is_training)
        return frame.assign(total=frame["m0"] + frame["m1"])
