"""Rare classes: left out or merged as told, in training and validation data alike, and never silently."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_core.domain.train_spec import RareClasses
from ml_core.exceptions import Action, TrainingError
from ml_core.ids import ModelId
from ml_core.training.fit import fit_model
from ml_core.training.request import TrainingRequest
from ml_core.training.targets import rare_classes_of, read_target, without_rare_classes
from support.tables import measures, split_target

X, OUTCOME = split_target(measures(), "outcome")
FAST = {"algorithm": "logistic_regression"}


def fit(y, rare_classes, validation=None, model_type=None):
    """Train on the measures with another target."""
    return fit_model(
        TrainingRequest(ModelId("m"), model_type, (X, y), validation, hyperparameters=FAST, rare_classes=rare_classes)
    )


def labels(*rare):
    """The outcomes, the first of which are other labels."""
    return [*rare, *OUTCOME.tolist()[len(rare) :]]


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("drop", RareClasses(None, 2)),
        ("keep", RareClasses(None, is_kept=True)),
        ("drop:5", RareClasses(None, 5)),
        ("merge:other", RareClasses("other", 2)),
        ("merge:other:5", RareClasses("other", 5)),
        ("merge:a:b:12", RareClasses("a:b", 12)),
        ("merge:7:3", RareClasses("7", 3)),
    ],
)
def test_the_rule_is_one_word(text, meant):
    """The same on the command line and in Python."""
    assert RareClasses.parse(text) == meant


@pytest.mark.parametrize(
    "text", ["", "keep:", "keep:3", "drop:", "drop:x", "drop:1", "drop:-3", "merge", "merge:", "merge::5"]
)
def test_other_words_are_refused(text):
    """With the forms that there are."""
    with pytest.raises(TrainingError, match="merge:other:5"):
        RareClasses.parse(text)


def test_without_a_rule_a_class_of_one_row_is_refused_and_the_rule_is_named():
    """In the remedy, and as an action for every door."""
    remedy = r"rare_classes, which is drop, merge:LABEL or keep; .*validation data"
    with pytest.raises(TrainingError, match=remedy) as caught:
        fit(labels("a"), None)
    assert caught.value.stage == "validate"
    assert caught.value.action == Action.of("jobs.submit", rare_classes="drop")


def test_rare_classes_are_left_out():
    """Their rows are in no part, and the note names them."""
    fitted = fit(labels("a", "b", "b", "c", "c", "c"), "drop:3")
    assert fitted.signature.output.classes == ("c", "no", "yes")
    assert sum(fitted.n_rows.values()) == 197
    expected = "Left out 3 of 200 training rows, of 2 class(es) with fewer than 3 training rows: 'a' (1), 'b' (2)."
    assert expected in fitted.notes


@pytest.mark.parametrize(
    ("rare", "rest", "rule", "classes"),
    [
        (("a", "b"), ("no", "yes"), "merge:other", ("no", "other", "yes")),
        (("a", "b"), ("no", "yes"), "merge:a long name", ("a long name", "no", "yes")),
        (("a", "b"), ("no", "yes"), "merge:no", ("no", "yes")),
        ((7, 8), (0, 1), "merge:-1", (-1, 0, 1)),
        ((7.0, 8.0), (0.0, 1.0), "merge:9", (0.0, 1.0, 9.0)),
    ],
)
def test_rare_classes_are_merged(rare, rest, rule, classes):
    """Into a class of the target's own type, which may be there already."""
    y = [*rare, *(rest[value == "yes"] for value in OUTCOME[len(rare) :])]
    fitted = fit(y, rule, model_type="classification")
    assert fitted.signature.output.classes == classes
    assert {type(label) for label in fitted.signature.output.classes} == {type(rest[0])}
    assert any(note.startswith("Merged into ") and "2 of 200 training rows" in note for note in fitted.notes)


@pytest.mark.parametrize("rest", [(0, 1), (0.0, 1.0)])
def test_a_label_of_another_type_is_refused(rest):
    """A word among numbers would change what the others are."""
    y = [7, *(rest[value == "yes"] for value in OUTCOME[1:])]
    with pytest.raises(TrainingError, match="'other' can't be one of them"):
        fit(y, "merge:other", model_type="classification")


def test_validation_rows_follow_the_training_data():
    """What is rare there does not matter; a class that was merged is the merged one."""
    held = (X.tail(6), ["a", "yes", "no", "no", "no", "no"])
    merged = fit(labels("a", "a"), "merge:other:3", held)
    assert any("1 of 6 validation rows" in note for note in merged.notes)
    assert not any("label that no training row has" in note for note in merged.notes)
    assert fit(labels("a", "a"), "drop:3", held).n_rows == {"train": 198, "validation": 5}


def test_only_a_classification_has_rare_classes():
    """Elsewhere the word would mean nothing."""
    with pytest.raises(TrainingError, match="classification only"):
        fit_model(TrainingRequest(ModelId("m"), "clustering", (X, OUTCOME), rare_classes="drop"))


@given(y=st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=60), minimum=st.integers(2, 9))
def test_what_stays_has_enough_rows(y, minimum):
    """No other row goes, and none moves."""
    target, notes = read_target(y), []
    stays = [label for label in y if Counter(y)[label] >= minimum]
    rule = RareClasses(None, minimum)
    if not stays:
        with pytest.raises(TrainingError, match="no class with"):
            without_rare_classes(target, rule, rare_classes_of(target, rule), "training", notes)
        return
    left = without_rare_classes(target, rule, rare_classes_of(target, rule), "training", notes)
    assert left.values.tolist() == stays
    assert np.array(y)[left.kept].tolist() == stays
    assert bool(notes) == (len(stays) < len(y))
