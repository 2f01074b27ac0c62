"""The split: equal rows on one side, every class on both, or a sentence that says otherwise."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_core.ids import ModelId
from ml_core.training.fit import fit_model
from ml_core.training.hold_out import hold_out
from ml_core.training.request import TrainingRequest

random = np.random.default_rng(7)
WORDS = np.array(["invoice", "refund", "login", "crash", "slow", "export", "mail", "page", "user", "error"])


def texts(rows):
    """Sentences that differ."""
    return [" ".join(random.choice(WORDS, 6)) + f" case {index} of today" for index in range(rows)]


COLUMNS = {
    "numbers": lambda n: {"a": random.normal(size=n), "b": random.normal(size=n)},
    "categories": lambda n: {name: random.choice(list("uvwxyz"), n) for name in "abcdef"},
    "texts": lambda n: {"body": texts(n)},
    "dates": lambda n: {"at": pd.to_datetime(random.integers(0, 2**30, n), unit="s"), "x": random.normal(size=n)},
    "missing": lambda n: {"a": np.where(random.random(n) < 0.3, np.nan, random.normal(size=n)), "t": texts(n)},
}


def fit(X, y, **options):
    """A tree, which learns by heart."""
    return fit_model(TrainingRequest(ModelId("m"), "classification", (X, y), hyperparameters=TREE, **options))


TREE = {"algorithm": "decision_tree"}


@pytest.mark.parametrize("copies", [2, 5, 9])
@pytest.mark.parametrize("labels", [("no", "yes"), (0, 1), (False, True)])
@pytest.mark.parametrize("kind", COLUMNS)
def test_random_labels_of_repeated_rows_are_a_guess(kind, labels, copies):
    """A tree that knows the copies by heart does not look good, and the note says what was done."""
    X = pd.DataFrame(COLUMNS[kind](150)).drop_duplicates()
    y = np.array(labels)[random.integers(0, 2, len(X))]
    order = random.permutation(np.repeat(np.arange(len(X)), copies))
    fitted = fit(X.iloc[order], y[order])
    assert fitted.metrics["validation"]["accuracy"] < 0.8
    assert any(f"{len(order):,} of {len(order):,} rows equal another one" in note for note in fitted.notes)
    assert 0.1 < fitted.n_rows["validation"] / len(order) < 0.3


def test_rows_are_equal_by_what_the_model_sees():
    """An identifier that is not used makes no difference, nor does how a number is written."""
    values = random.normal(size=100).round(3)
    X = pd.DataFrame({"case_id": np.arange(200), "a": [*values, *map(str, values)]})
    fitted = fit(X, random.choice(["x", "y"], 100).tolist() * 2)
    assert any(note.startswith("200 of 200 rows equal another one") for note in fitted.notes)


def test_few_different_rows_are_on_both_sides_and_it_is_said():
    """A table of eight combinations is learned whole: the rows to come are these."""
    X = pd.DataFrame(random.integers(0, 2, (400, 3)).astype(str), columns=list("abc"))
    y = ((X["a"] == "1") ^ (X["b"] == "1") ^ (X["c"] == "1")).map({True: "odd", False: "even"})
    fitted = fit(X, y)
    assert fitted.metrics["validation"]["accuracy"] == 1.0
    assert any("8 different rows only, so equal rows are on both sides" in note for note in fitted.notes)


def test_a_class_of_equal_rows_is_trained_on_and_not_measured():
    """And that is said: its rows can't be on both sides."""
    X = pd.concat([pd.DataFrame(COLUMNS["numbers"](100)), pd.DataFrame({"a": [9.0] * 8, "b": [9.0] * 8})])
    fitted = fit(X, [*random.choice(["x", "y"], 100), *["z"] * 8])
    assert fitted.signature.output.classes == ("x", "y", "z")
    assert any(note.startswith("1 class(es) have equal rows only") for note in fitted.notes)


def test_validation_rows_that_were_trained_on_are_counted():
    """Given by the caller: they are measured on, and a note says how many."""
    X = pd.DataFrame(COLUMNS["numbers"](100))
    y = random.choice(["x", "y"], 100)
    fitted = fit(X, y, validation_data=(pd.concat([X.head(7), X.head(20) + 1]), y[:27]))
    assert any(note.startswith("7 of 27 validation rows equal a training row") for note in fitted.notes)


def test_a_table_without_equal_rows_has_no_note():
    """There is nothing to say."""
    fitted = fit(pd.DataFrame(COLUMNS["numbers"](100)), random.choice(["x", "y"], 100))
    assert not any("equal" in note for note in fitted.notes)


@given(
    rows=st.lists(st.tuples(st.integers(0, 30), st.sampled_from("abc")), min_size=2, max_size=200),
    is_labelled=st.booleans(),
)
def test_no_split_divides_equal_rows_or_loses_a_class(rows, is_labelled):
    """Whatever the sizes: both parts are all rows, equal ones together, and every class is trained on."""
    numbers, labels = (np.array(part) for part in zip(*rows, strict=True))
    train, held_out = hold_out(numbers, labels if is_labelled else None)
    assert sorted([*train, *held_out]) == list(range(len(rows)))
    assert not set(numbers[train]) & set(numbers[held_out])
    if is_labelled:
        assert set(labels[train]) == set(labels)
    else:
        assert bool(len(held_out)) == (len(set(numbers)) > 1)


@given(counts=st.dictionaries(st.sampled_from("abcd"), st.integers(2, 40), min_size=1))
def test_of_different_rows_a_fifth_of_each_class_is_held_out(counts):
    """And at least one."""
    labels = np.repeat(list(counts), list(counts.values()))
    _, held_out = hold_out(np.arange(len(labels)), labels)
    found = dict(zip(*np.unique(labels[held_out], return_counts=True), strict=True))
    assert found == {label: max(1, round(0.2 * count)) for label, count in counts.items()}


def test_without_classes_a_fifth_of_all_is_held_out():
    """At random, not the last ones, and the same every time."""
    _, held_out = hold_out(np.arange(100), None)
    assert len(held_out) == 20
    assert held_out.tolist() != list(range(80, 100))
    np.testing.assert_array_equal(hold_out(np.arange(100), None)[1], held_out)
