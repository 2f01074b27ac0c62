"""A distribution of an operator's own, acme-models, made on the fly as an installed one."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support import broken

PLUGIN = "[ml_core.model_types]\nacme_scorer = acme_models:build\n"
TRACE = "MLCORE_ACME_RAN"  # set in the environment by whatever must not run

# The module imports and defines what an artifact must not reach beside the classes that it may.
MODULE = '''
"""Models of acme."""

import os
import subprocess
from os import system
from subprocess import Popen

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.neighbors import KDTree

from ml_core.data.processor import DataProcessor

from .steps import Spread


class Scorer(ClassifierMixin, BaseEstimator):
    """The class whose mean is nearest."""

    def __init__(self, power=2.0):
        self.power = power

    def fit(self, X, y):
        X = X.toarray() if hasattr(X, "toarray") else np.asarray(X)
        self.classes_ = np.unique(y)
        self.means_ = np.array([X[np.asarray(y) == each].mean(axis=0) for each in self.classes_])
        return self

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

    def predict_proba(self, X):
        X = X.toarray() if hasattr(X, "toarray") else np.asarray(X)
        far = (np.abs(X[:, None, :] - self.means_[None]) ** self.power).sum(axis=2)
        near = 1 / (1 + far)
        return near / near.sum(axis=1, keepdims=True)

    class Inner:
        """Not at the top of its module."""


class Totals(DataProcessor):
    """Adds a column."""

    def preprocess(self, data, model_type=None, is_training=True):
        frame = super().preprocess(data, model_type, is_training)
        return frame.assign(total=frame["m0"] + frame["m1"])


class Restored(Scorer):
    """Has a state of its own."""

    def __setstate__(self, state):
        self.__dict__.update(state, restored_=True)


class Eager:
    """Runs when it is made or called."""

    def __init__(self, *values):
        os.environ["MLCORE_ACME_RAN"] = "Eager"

    __call__ = predict = __init__


class Points(KDTree):
    """Compiled code below."""


class Matrix(np.ndarray):
    """Compiled code below."""


class Table(dict):
    """Compiled code below."""


def build(hyperparameters):
    """The builder of the plug-in."""
    return Scorer(**hyperparameters)


def erase(*values, **named):
    """Must never be called by an artifact."""
    os.environ["MLCORE_ACME_RAN"] = "erase"
'''
STEPS = '''
"""Steps of pipelines."""

from sklearn.base import BaseEstimator, TransformerMixin


class Spread(TransformerMixin, BaseEstimator):
    """The difference of the first two columns, as a third."""

    def fit(self, X, y=None):
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X):
        return X.assign(spread=X.iloc[:, 0] - X.iloc[:, 1])
'''
PROGRAM = 'import os\nos.environ["MLCORE_ACME_RAN"] = "__main__"\n\n\nclass Scorer:\n    pass\n'


def write(folder: Path, *, version: str = "1.2", entry_points: str = PLUGIN, module: str = MODULE) -> Path:
    """Write the distribution into a folder, as pip does; what was there of it is replaced."""
    files = {
        "acme_models/__init__.py": module,
        "acme_models/steps.py": STEPS,
        "acme_models/broken.py": broken.MODULE,
        "acme_models/__main__.py": PROGRAM,
        f"acme_models-{version}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: acme-models\nVersion: {version}\n",
        f"acme_models-{version}.dist-info/entry_points.txt": entry_points,
    }
    files[f"acme_models-{version}.dist-info/RECORD"] = "".join(f"{name},,\n" for name in files)
    for old in folder.glob("acme_models-*.dist-info/*"):
        old.unlink()
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@contextmanager
def installed(folder: Path, **options: str) -> Iterator[Path]:
    """Have the distribution installed in this process; see ``write``."""
    sys.path.insert(0, str(write(folder, **options)))
    importlib.invalidate_caches()
    try:
        yield folder
    finally:
        sys.path.remove(str(folder))
        for name in [name for name in sys.modules if name.partition(".")[0] == "acme_models"]:
            del sys.modules[name]
