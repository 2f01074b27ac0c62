"""Gates as values: which settings make one, and what follows from numbers and names."""

import pytest

from ml_core.domain.gates import (
    Interval,
    NotWorse,
    evaluate_approvals,
    evaluate_difference,
    evaluate_metric,
    parse_gate,
)
from ml_core.exceptions import InvalidNameError, InvalidRequestError

NOT_WORSE = {"dataset": "held_out", "target": "label", "metric": "accuracy", "margin": 0.02}


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("min_metric", {"metric": "accuracy", "value": 0.75}),
        ("min_metric", {"metric": "own", "value": 1, "split": "train", "higher_is_better": False}),
        ("not_worse", {**NOT_WORSE, "number": 3, "confidence": 0.9, "resamples": 1000, "seed": 7, "max_rows": 500}),
        ("signature_compatible", {}),
        ("digest_verified", {}),
        ("approval", {"count": 2}),
    ],
)
def test_settings_survive_being_stored(kind, settings):
    """What a gate writes down makes the same gate again, defaults filled in."""
    gate = parse_gate("quality", kind, settings)
    assert gate.kind == kind
    assert settings.items() <= gate.settings.items()
    assert parse_gate("quality", kind, gate.settings) == gate


@pytest.mark.parametrize(
    ("kind", "settings", "field", "words"),
    [
        ("best", {}, "kind", "Kinds are: min_metric"),
        ("min_metrc", {}, "kind", "Did you mean min_metric?"),
        ("min_metric", {}, "settings.metric", "A gate of the kind min_metric needs metric and value."),
        ("min_metric", {"value": 1.0}, "settings.metric", "A gate of the kind min_metric needs metric."),
        ("not_worse", {}, "settings.dataset", "needs dataset, target, metric and margin."),
        ("min_metric", {"metric": "accuracy", "valeu": 1.0}, "settings.valeu", "Did you mean value?"),
        ("min_metric", {"metric": "acuracy", "value": 1.0}, "settings.metric", "Did you mean accuracy?"),
        ("min_metric", {"metric": "accuracy", "value": "0.7"}, "settings.value", "a finite number"),
        ("min_metric", {"metric": "accuracy", "value": True}, "settings.value", "a finite number"),
        ("min_metric", {"metric": "accuracy", "value": float("nan")}, "settings.value", "a finite number"),
        ("min_metric", {"metric": "own", "value": 1.0}, "settings.higher_is_better", "Set it to true or false."),
        ("not_worse", {**NOT_WORSE, "metric": "roc_auc"}, "settings.metric", "log_loss"),
        ("not_worse", {**NOT_WORSE, "margin": -0.1}, "settings.margin", "0 or more"),
        ("not_worse", {**NOT_WORSE, "confidence": 1.0}, "settings.confidence", "0.5 to 0.999"),
        ("not_worse", {**NOT_WORSE, "resamples": 10**9}, "settings.resamples", "1000 to 20000"),
        ("not_worse", {**NOT_WORSE, "max_rows": 10**9}, "settings.max_rows", "100 to 100000"),
        ("not_worse", {**NOT_WORSE, "resamples": 20_000, "max_rows": 100_000}, "settings.resamples", "2000 or fewer"),
        ("not_worse", {**NOT_WORSE, "number": 0}, "settings.number", "1 or more"),
        ("not_worse", {**NOT_WORSE, "seed": 1.5}, "settings.seed", "a whole number"),
        ("approval", {"count": 0}, "settings.count", "1 to 20"),
        ("approval", {"cuont": 1}, "settings.cuont", "A gate of the kind approval has the setting count."),
        ("digest_verified", {"count": 1}, "settings.count", "A gate of the kind digest_verified has no setting."),
    ],
)
def test_what_can_not_be_used_is_named(kind, settings, field, words):
    """The error has the setting's path and says what to give instead."""
    with pytest.raises(InvalidRequestError) as caught:
        parse_gate("quality", kind, settings)
    assert caught.value.field == field
    assert words in str(caught.value)


def test_names_are_parsed():
    """Of the gate and of the dataset."""
    with pytest.raises(InvalidNameError, match="gate"):
        parse_gate("No good", "approval", {})
    with pytest.raises(InvalidNameError, match="dataset"):
        parse_gate("quality", "not_worse", {**NOT_WORSE, "dataset": "../x"})


def metric_result(value, measured, **settings):
    gate = parse_gate("quality", "min_metric", {"metric": "accuracy", "value": value, **settings})
    return evaluate_metric(gate, gate.rule, {"validation": {gate.rule.metric: measured}, "train": {"accuracy": 1.0}})


@pytest.mark.parametrize(
    ("settings", "measured", "passed", "message"),
    [
        ({}, 0.75, True, "accuracy 0.75 is at least 0.75"),
        ({}, 0.71, False, "accuracy 0.71 is 0.04 below the 0.75 that gate 'quality' requires"),
        ({"metric": "mae"}, 0.75, True, "mae 0.75 is at most 0.75"),
        ({"metric": "mae"}, 1.0, False, "mae 1 is 0.25 above the 0.75 that gate 'quality' requires"),
        ({"metric": "own", "higher_is_better": True}, 0.5, False, "own 0.5 is 0.25 below the 0.75"),
        ({"metric": "accuracy", "higher_is_better": False}, 0.5, True, "at most"),
    ],
)
def test_a_metric_is_held_against_its_value_the_right_way(settings, measured, passed, message):
    """Lower is better where the table of metrics or the gate says so; the message says by how much it fails."""
    result = metric_result(0.75, measured, **settings)
    assert (result.passed, result.measured, result.required) == (passed, measured, 0.75)
    assert message in result.message


def test_a_missing_metric_fails_and_says_which_there_are():
    """It is not taken for good, nor is another split's."""
    gate = parse_gate("quality", "min_metric", {"metric": "accuracy", "value": 0.5})
    result = evaluate_metric(gate, gate.rule, {"train": {"accuracy": 1.0}, "validation": {"f1": 0.9}})
    assert not result.passed
    assert "train/accuracy, validation/f1" in result.message
    assert "its metrics are: none" in evaluate_metric(gate, gate.rule, {}).message


def test_approvals_of_others_count_once_and_the_author_never():
    """Two people are two; the author and a double are none."""
    gate = parse_gate("signed", "approval", {"count": 2})
    assert evaluate_approvals(gate, gate.rule, ["ben", "cleo"], "anna").passed
    result = evaluate_approvals(gate, gate.rule, ["anna", "ben", "ben"], "anna")
    assert (result.passed, result.measured, result.required) == (False, 1.0, 2.0)
    assert "1 of 2 approvals (by ben)" in result.message
    assert "anna" in result.message


@pytest.mark.parametrize(("low", "passed"), [(-0.02, True), (-0.0201, False), (0.01, True), (0.98 - 1.0, True)])
def test_the_lower_end_of_the_interval_decides(low, passed):
    """Not the difference itself: it may be zero and the rows too few to tell. What a float rounds is no loss."""
    gate = parse_gate("no_worse", "not_worse", NOT_WORSE)
    result = evaluate_difference(gate, gate.rule, Interval(0.0, low, 0.03, 0.8, 0.8), "50 rows")
    assert result.passed is passed
    assert (result.measured, result.required) == (low, -0.02)
    if not passed:
        assert "0.0001 below the -0.02 that gate 'no_worse' allows" in result.message


def test_a_result_is_json_compatible():
    """Histories and errors carry it."""
    assert metric_result(0.75, 0.8).to_json() == {
        "name": "quality",
        "kind": "min_metric",
        "passed": True,
        "message": "accuracy 0.8 is at least 0.75",
        "measured": 0.8,
        "required": 0.75,
    }


def test_the_defaults_are_those_documented():
    """A gate that says nothing of its statistics has these."""
    rule = NotWorse(**NOT_WORSE)
    assert (rule.confidence, rule.resamples, rule.seed, rule.max_rows, rule.number) == (0.95, 2000, 0, 10_000, None)
