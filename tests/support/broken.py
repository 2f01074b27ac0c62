"""Models whose code misbehaves on marked rows, as the module ``acme_models`` of an operator."""

from __future__ import annotations

from typing import Any

from sklearn.pipeline import Pipeline

from ml_core.training.fit import FittedModel

MODULE = '''
"""A classifier that asks another, and misbehaves when the first number of a row is far below all others."""

import asyncio
import threading
import types

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.base import BaseEstimator, ClassifierMixin

release = threading.Event()
calls = []


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError("no text")


def stop(error):
    raise error


def recurse():
    return recurse()


def sleep():
    calls.append(threading.current_thread().name)
    release.wait()


def spoil(X):
    X[:] = 0


# How -> the labels that are returned instead.
LABELS = {
    "short": lambda labels: labels[:-1],
    "long": lambda labels: np.append(labels, labels[:1]),
    "column": lambda labels: labels[:, None],
    "square": lambda labels: np.tile(labels, (len(labels), 1)),
    "none": lambda labels: None,
    "generator": lambda labels: (label for label in labels),
    "object": lambda labels: np.array([types.SimpleNamespace()] * len(labels)),
    "lists": lambda labels: np.array([[label] for label in labels] + [None], dtype=object)[:-1],
    "sparse": lambda labels: csr_matrix(np.ones((len(labels), 1))),
    "text": lambda labels: "yes",
    "unknown": lambda labels: np.array(["maybe"] * len(labels)),
    "number": lambda labels: np.arange(len(labels)),
    "nan": lambda labels: np.full(len(labels), np.nan),
}
# How -> the probabilities that are returned instead.
PROBABILITIES = {
    "proba short": lambda found: found[:-1],
    "proba long": lambda found: np.vstack([found, found[:1]]),
    "proba narrow": lambda found: found[:, :1],
    "proba wide": lambda found: np.hstack([found, found]),
    "proba flat": lambda found: found[:, 0],
    "proba nan": lambda found: np.full_like(found, np.nan),
    "proba infinite": lambda found: np.full_like(found, np.inf),
    "proba sums": lambda found: found * 3,
    "proba text": lambda found: found.astype(str).astype(object) + "x",
}
# How -> what is done before the right answer, if it comes to that.
DEEDS = {
    "raise": lambda X: stop(ValueError("these rows can not be")),
    "key": lambda X: stop(KeyError("x")),
    "exit": lambda X: stop(SystemExit(3)),
    "interrupt": lambda X: stop(KeyboardInterrupt()),
    "generator exit": lambda X: stop(GeneratorExit()),
    "cancelled": lambda X: stop(asyncio.CancelledError()),
    "memory": lambda X: stop(MemoryError()),
    "memory of a terabyte": lambda X: np.zeros(2**50),
    "stop": lambda X: stop(StopIteration()),
    "unprintable": lambda X: stop(Unprintable()),
    "long text": lambda X: stop(ValueError("x" * 10_000_000)),
    "recursion": lambda X: recurse(),
    "print": lambda X: print("x" * 1_000_000),
    "mutate": spoil,
    "sleep": lambda X: sleep(),
    "sleep 10 s": lambda X: release.wait(10),
    "sleep 0.2 s": lambda X: release.wait(0.2),
}


class Broken(ClassifierMixin, BaseEstimator):
    def __init__(self, estimator, how):
        self.estimator = estimator
        self.how = how
        self.classes_ = estimator.classes_

    def fit(self, X, y):
        raise NotImplementedError

    def _is_marked(self, X):
        is_marked = (X[:, 0] < -100).any()
        if is_marked and self.how.strip() in DEEDS:
            DEEDS[self.how.strip()](X)
        return is_marked

    def predict(self, X):
        found = self.estimator.predict(X)
        return LABELS.get(self.how, lambda labels: labels)(found) if self._is_marked(X) else found

    def predict_proba(self, X):
        found = self.estimator.predict_proba(X)
        return PROBABILITIES.get(self.how, lambda same: same)(found) if self._is_marked(X) else found
'''


def broken(fitted: FittedModel, classifier: Any, how: str) -> Pipeline:
    """The pipeline of a fitted model, whose estimator misbehaves in one way."""
    *steps, (name, estimator) = fitted.pipeline.steps
    return Pipeline([*steps, (name, classifier(estimator, how))])
