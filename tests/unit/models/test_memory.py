"""``memory_bytes`` is what a model takes: eviction relies on it, for models of some kilobytes too."""

from __future__ import annotations

import gc
import tracemalloc

import numpy as np
import orjson
import pandas as pd
import pytest

from ml_core.domain.version import PackedVersion
from ml_core.ids import ModelId
from ml_core.models.graph import MAX_NAMES, measure_bytes, walk
from ml_core.models.loading import load_version
from ml_core.models.store import LocalStore
from ml_core.training.fit import fit_model
from ml_core.training.request import TrainingRequest
from support.inprocess_cell import servable


def table(seed, numbers, categories, texts=0):
    random = np.random.default_rng(seed)
    values = random.normal(size=(200, numbers))
    frame = pd.DataFrame(values, columns=[f"measure_{index}" for index in range(numbers)])
    for index in range(categories):
        frame[f"category_{index}"] = random.choice([f"value {index} {n}" for n in range(4 + index)], 200)
    for index in range(texts):
        words = random.integers(0, 3_000, (200, 30))
        frame[f"text_{index}"] = [" ".join(f"word{word}" for word in row) for row in words]
    return frame, pd.Series(np.where(values[:, 0] > 0, "yes", "no"))


def packed(store, model_id, data, times, **hyperparameters):
    """A version, so many times. Each has a text of its signature for itself, so that they do not share the value."""
    model = fit_model(TrainingRequest(ModelId(model_id), None, data, hyperparameters=hyperparameters))
    version = servable(store, model)
    named = (version.ref, version.model_type, version.digest, version.size_bytes, version.format)
    signature, self_test = (orjson.dumps(getattr(version, name).to_json()) for name in ("signature", "self_test"))
    return [PackedVersion(named, signature + b" " * blanks, self_test) for blanks in range(times)]


@pytest.mark.parametrize(
    ("shape", "algorithm"),
    [
        ((5, 0), "logistic_regression"),
        ((12, 2), "logistic_regression"),
        ((20, 3), "logistic_regression"),
        ((3, 1, 1), "logistic_regression"),
        ((6, 1), "gradient_boosting"),
    ],
)
def test_it_is_about_what_the_allocator_hands_out(tmp_path, shape, algorithm):
    """For models beyond the first ones, which bring what all share. The memory of the process grows by a tenth more."""
    store = LocalStore(tmp_path)
    options = {} if algorithm == "logistic_regression" else {"max_iter": 20}
    packs = [packed(store, f"m{seed}", table(seed, *shape), 6, algorithm=algorithm, **options) for seed in range(4)]
    kept = [load_version(store, first.opened()) for first, *_ in packs]
    gc.collect()
    tracemalloc.start(1)
    try:
        before = tracemalloc.get_traced_memory()[0]
        models = [load_version(store, version.opened()) for _, *others in packs for version in others]
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert sum(model.memory_bytes for model in models) == pytest.approx(taken, rel=0.25)
    assert kept


def test_words_count_and_names_do_not():
    """A container of many strings has them for itself."""
    names, words = ([f"word number {n}" for n in range(count)] for count in (MAX_NAMES, MAX_NAMES + 1))
    assert measure_bytes(words) - measure_bytes(names) > sum(map(len, words))
    assert measure_bytes(dict.fromkeys(words, 1.5)) > measure_bytes(words)


class Slotted:
    __slots__ = ("inner", "unset")

    def __init__(self, inner):
        self.inner = inner


class Matrix(np.ndarray):
    pass


class Named(dict):
    pass


@pytest.mark.parametrize(
    "wrap",
    [
        lambda item: [item],
        lambda item: (1, (item,)),
        lambda item: {item},
        lambda item: frozenset([item]),
        lambda item: {"a": {"b": item}},
        lambda item: np.array([None, item], dtype=object),
        lambda item: np.array([[item]], dtype=object).view(Matrix),
        Slotted,
        lambda item: Slotted([item]),
        lambda item: _with_attribute(Named(), item),
        lambda item: Named(a=item),
    ],
)
def test_a_walk_reaches_every_object(wrap):
    """The check of what compiled code follows visits what is found here."""
    item = Slotted(None)
    assert any(found is item for found in walk(wrap(item)))


def _with_attribute(holder, item):
    holder.inner = item
    return holder
