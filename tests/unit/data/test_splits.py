"""Splits of rows."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest

from ml_core.data.splits import can_stratify, split_rows
from ml_core.exceptions import DataProcessingError


def parts(split):
    return split.train, split.validation, split.test


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"groups": np.arange(200) // 4},
        {"times": pd.date_range("2026-01-01", periods=200)[::-1]},
        {"val_size": 0.0},
        {"test_size": 0.0},
    ],
)
def test_every_row_is_in_one_part(kwargs):
    """And the parts have the sizes asked for."""
    split = split_rows(["a", "b"] * 100, **kwargs)
    assert sorted(np.concatenate(parts(split))) == list(range(200))
    expected = (round(200 * kwargs.get("val_size", 0.1)), round(200 * kwargs.get("test_size", 0.2)))
    assert (len(split.validation), len(split.test)) == expected


def test_classes_keep_their_share():
    """In every part, also a class of a tenth of the rows."""
    target = np.array(["rare"] * 20 + ["common"] * 180)
    for part in parts(split_rows(target)):
        assert Counter(target[part])["rare"] == pytest.approx(len(part) * 0.1, abs=1)


def test_the_seed_decides():
    """Same seed same split, other seed other split."""
    first, again, other = (split_rows([0, 1] * 50, random_state=seed).test.tolist() for seed in (1, 1, 2))
    assert first == again != other


def test_groups_stay_together():
    """Also rows without a group, which are one."""
    groups = np.array([f"g{i % 10}" for i in range(99)] + [None], dtype=object)
    split = split_rows(np.zeros(100), groups=groups)
    seen = [{str(group) for group in groups[part]} for part in parts(split)]
    assert not seen[0] & seen[1]
    assert not seen[0] & seen[2]
    assert not seen[1] & seen[2]
    assert all(seen)


def test_time_goes_forward():
    """No row of training is later than one of validation, nor that than one of test."""
    times = np.random.default_rng(0).permutation(100)
    train, validation, test = (times[part] for part in parts(split_rows(np.zeros(100), times=times)))
    assert train.max() < validation.min() <= validation.max() < test.min()


@pytest.mark.parametrize(
    ("target", "stratified"),
    [
        (["a", "b"] * 10, True),
        ([0, 1, 2] * 10, True),
        ([True, False] * 10, True),
        (pd.Series(["a", "b"] * 10, dtype="category"), True),
        (["a"] * 19 + ["b"], False),
        (np.arange(40), False),
        (np.linspace(0, 1, 40), False),
        (["a", None] * 10, False),
    ],
)
def test_classes_are_told_from_numbers(target, stratified):
    """By their type, how many there are, and whether each has two rows."""
    assert can_stratify(np.asarray(target), 8) is stratified


@pytest.mark.parametrize(
    "kwargs",
    [
        {"y": [1, 2], "test_size": 0.2, "val_size": 0.1},
        {"y": [1] * 10, "test_size": 0.9, "val_size": 0.1},
        {"y": [1] * 10, "test_size": -0.1},
        {"y": [1] * 10, "test_size": float("nan")},
        {"y": [1] * 10, "groups": ["g"] * 10},
        {"y": [1] * 10, "groups": ["g", "h"] * 5},
        {"y": [1] * 10, "groups": ["g"] * 9},
        {"y": [1] * 10, "times": [1] * 9 + [None]},
        {"y": [1] * 10, "times": [1] * 9},
        {"y": [1] * 10, "times": [1] * 10, "groups": [1] * 10},
        {"y": [1, 2, 3, 4], "times": [1, 2, 3, 4], "test_size": 0.49, "val_size": 0.5},
    ],
)
def test_splits_that_cannot_be_had(kwargs):
    """Each says what to do, and none gives an empty training part."""
    with pytest.raises(DataProcessingError) as caught:
        split_rows(**kwargs)
    assert caught.value.remedy
    assert caught.value.stage == "split"


@pytest.mark.parametrize("n_rows", range(3, 30))
def test_small_tables_have_a_row_in_each_part(n_rows):
    """Whatever rounding does to the sizes."""
    split = split_rows((["a", "b", "c"] * 10)[:n_rows])
    assert all(len(part) for part in parts(split))


def test_classes_of_mixed_types_are_stratified():
    """Each of them is in every part in its share."""
    target = np.array(["a", 1, True, "a", 1] * 20, dtype=object)
    for part in parts(split_rows(target)):
        assert sorted(Counter(map(str, target[part])).values()) == [
            len(part) // 5,
            2 * len(part) // 5,
            2 * len(part) // 5,
        ]
