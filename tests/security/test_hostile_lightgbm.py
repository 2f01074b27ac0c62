"""Texts and states of LightGBM that would lead compiled code out of its memory: refused, or harmless."""

import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from ml_core.exceptions import UnsafeArtifactError
from ml_core.models.formats import lightgbm_text, skops_format
from support import lightgbm_texts as texts


@cache
def archive(name):
    return skops_format.dump(texts.model(name))


def test_no_change_of_a_text_leaves_its_own_numbers():
    """In a process of its own, which a crash would end: what loads answers as a walk over its own numbers."""
    done = subprocess.run(
        [sys.executable, "-m", "support.lightgbm_texts"],
        cwd=Path(texts.__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    counts = json.loads(done.stdout)
    assert counts["refused"] > 500
    assert counts["answered"] > 50


HOSTILE = {
    "a child beyond": ("three", r"left_child=1", "left_child=7"),
    "a child before its parent": ("three", r"left_child=1", "left_child=0"),
    "a leaf beyond": ("three", r"(right_child=[^\n]*)-\d", r"\1-9"),
    "a feature beyond": ("three", r"split_feature=\d+", "split_feature=3"),
    "more leaves": ("three", r"num_leaves=4", "num_leaves=5"),
    "no leaf": ("three", r"num_leaves=4", "num_leaves=0"),
    "a category of no bitset": ("categories", r"num_cat=[1-9]", "num_cat=0"),
    "bitsets beyond their words": ("categories", r"cat_boundaries=0 \d+", "cat_boundaries=0 999"),
    "bitsets that end before they begin": ("categories", r"cat_boundaries=0 \d+", "cat_boundaries=0 -5"),
    "more outputs": ("three", r"num_class=3", "num_class=4"),
    "other outputs": ("three", r"num_class:3", "num_class:2"),
    "more trees": ("three", r"num_tree_per_iteration=3", "num_tree_per_iteration=4"),
    "more features": ("three", r"max_feature_idx=2", "max_feature_idx=1000000"),
    "averaged outputs": ("three", r"label_index=0", "label_index=0\naverage_output"),
    "linear leaves": ("three", r"is_linear=0", "is_linear=1"),
    "parameters in the head": ("three", r"label_index=0", "label_index=0\nmachines=10.0.0.1:80"),
    "no end": ("three", r"end of trees", "end of tree"),
    "no line end": ("three", r"shrinkage=", "shrinkage"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_text_is_refused(name):
    """Before LightGBM sees a byte of it."""
    model, pattern, value = HOSTILE[name]
    text = texts.text_of(archive(model))[1]
    changed, n_changes = re.subn(pattern, value, text, count=1)
    assert n_changes == 1
    with pytest.raises(UnsafeArtifactError):
        skops_format.load(texts.with_text(archive(model), changed))


STATES = {
    "threads": {"n_jobs": 10**6},
    "threads of a text": {"n_jobs": "1 predict_disable_shape_check=true"},
    "more features": {"n_features_in_": 4},
    "any number of features": {"n_features_in_": 10**12},
    "no features": {"n_features_in_": 0},
    "features of a text": {"n_features_in_": "3"},
    "a model of its own": {"_booster": None},
    "no text": {"text_": None},
    "a text that is a text": {"text_": "tree\nversion=v4"},
    "no classes": {"classes_": None},
    "classes that are a list": {"classes_": [0, 1, 2]},
    "an unknown attribute": {"params": {"predict_disable_shape_check": True}},
    "an attribute for a method": {"adopt": 1},
}


@pytest.mark.parametrize("name", STATES)
def test_a_hostile_state_is_refused(name):
    """It has the listed parameters, classes and features that fit the text, and nothing else."""
    with pytest.raises(UnsafeArtifactError):
        skops_format.load(texts.with_state(archive("three"), **STATES[name]))


def test_a_text_of_a_regression_has_no_classes():
    """Or an answer would be looked up in them."""
    with pytest.raises(UnsafeArtifactError):
        skops_format.load(texts.with_state(archive("number"), classes_=[0, 1]))


@pytest.mark.parametrize("bound", ["MAX_TREES", "MAX_BYTES", "MAX_FEATURES"])
def test_a_text_beyond_a_bound_is_refused(monkeypatch, bound):
    """Its time and memory are bounded."""
    data = archive("three")
    monkeypatch.setattr(lightgbm_text, bound, 1)
    with pytest.raises(UnsafeArtifactError):
        skops_format.load(data)


def test_the_honest_text_is_not_refused():
    """The counterpart of all of these."""
    for name in texts.MODELS:
        loaded = skops_format.load(texts.with_state(archive(name)))
        np.testing.assert_array_equal(loaded.predict(texts.ROWS), texts.model(name).predict(texts.ROWS))
