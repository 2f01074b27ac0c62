"""``skops/2``: what is dumped loads and answers the same, and equal pipelines give equal bytes."""

import contextlib
import importlib
import io
import json
import pkgutil
import subprocess
import sys
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, VotingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KernelDensity, KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder

from ml_core.data import encoding
from ml_core.exceptions import ModelSaveError, UnsafeArtifactError
from ml_core.models.formats import skops_format
from ml_core.models.formats.allowed_types import ALLOWED
from ml_core.models.graph import walk
from support import fitted as models

_DUMP_IN_ANOTHER_PROCESS = """
import hashlib, time
from support import fitted
from ml_core.models.formats import skops_format
for name in ("linear", "forest", "boosting"):
    print(hashlib.sha256(skops_format.dump(getattr(fitted, name)().pipeline)).hexdigest())
"""


@pytest.mark.parametrize("name", ["linear", "forest", "boosting"])
def test_a_reloaded_pipeline_answers_the_same(name):
    """Labels equal, probabilities to the last bit."""
    fitted = getattr(models, name)()
    reloaded = skops_format.load(skops_format.dump(fitted.pipeline))
    frame, _ = models.table()
    np.testing.assert_array_equal(reloaded.predict(frame), fitted.pipeline.predict(frame))
    np.testing.assert_array_equal(reloaded.predict_proba(frame), fitted.pipeline.predict_proba(frame))


def test_two_processes_dump_equal_bytes():
    """Addresses, hash seeds and the clock leave no trace in the digest."""
    outputs = [
        subprocess.run(
            [sys.executable, "-c", _DUMP_IN_ANOTHER_PROCESS],
            env={"PYTHONPATH": str(Path(models.__file__).parents[1]), "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout
        for seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1]
    assert len(set(outputs[0].split())) == 3


def test_an_archive_holds_no_address_and_no_time():
    """Members are numbered in order, and dated 1980."""
    data = skops_format.dump(models.linear().pipeline)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        infos = archive.infolist()
        schema = archive.read("schema.json").decode()
    assert [info.filename for info in infos] == ["schema.json", *(f"{n}.npy" for n in range(1, len(infos)))]
    assert {info.date_time for info in infos} == {(1980, 1, 1, 0, 0, 0)}
    assert all(0 < node_id < 1000 for node_id in _ids(json.loads(schema)))


@pytest.mark.parametrize("name", ["linear", "forest", "boosting"])
def test_an_archive_that_skops_wrote_is_read(name):
    """Its longer spelling means the same: written again, it is byte for byte what the platform writes."""
    pipeline = getattr(models, name)().pipeline
    assert skops_format.dump(skops_format.load(skops.io.dumps(pipeline))) == skops_format.dump(pipeline)


def test_what_users_of_skops_build_is_read():
    """A column transformer with imputers and encoders, a search around it, neighbours behind it."""
    frame = pd.DataFrame({"age": [31.0, None, 55, 20] * 9, "city": ["Rome", "Oslo", None, "Rome"] * 9})
    labels = np.arange(36) % 2
    categories = make_pipeline(SimpleImputer(strategy="constant", fill_value="none"), OneHotEncoder())
    prepare = ColumnTransformer([("n", SimpleImputer(), ["age"]), ("c", categories, ["city"])])
    search = GridSearchCV(make_pipeline(prepare, KNeighborsClassifier()), {"kneighborsclassifier__n_neighbors": [1, 3]})
    search.fit(frame, labels)
    reloaded = skops_format.load(skops.io.dumps(search))
    np.testing.assert_array_equal(reloaded.predict(frame), search.predict(frame))


@pytest.mark.parametrize(
    ("function", "known"), [(np.log1p, True), (partial(np.clip, a_min=0, a_max=1), True), (lambda x: x, False)]
)
def test_a_function_of_numpy_is_kept(function, known):
    """By its name; a lambda has none."""
    pipeline = make_pipeline(FunctionTransformer(function), Ridge()).fit(np.eye(3), np.arange(3))
    with contextlib.nullcontext() if known else pytest.raises(ModelSaveError, match="lambda"):
        reloaded = skops_format.load(skops_format.dump(pipeline))
        np.testing.assert_array_equal(reloaded.predict(np.eye(3) * 7), pipeline.predict(np.eye(3) * 7))


def test_shared_arrays_stay_shared():
    """What is one object before is one object after, so it costs its memory once."""
    shared = np.arange(1000.0)
    pipeline = models.fitted(algorithm="logistic_regression").pipeline
    encoder = pipeline.steps[0][1]
    encoder.first, encoder.second = shared, shared
    reloaded = skops_format.load(skops_format.dump(pipeline)).steps[0][1]
    assert reloaded.first is reloaded.second


def test_random_generators_are_not_kept():
    """They serve fitting only."""
    data = skops_format.dump(models.boosting().pipeline)
    kinds = {type(item).__name__ for item in walk(skops_format.load(data))}
    assert not kinds & {"RandomState", "Generator"}


def test_every_state_type_of_the_encoder_is_on_the_list():
    """A new encoder must be added on purpose."""
    modules = [
        importlib.import_module(found.name)
        for found in pkgutil.iter_modules(encoding.__path__, "ml_core.data.encoding.")
    ]
    kinds = {
        f"{kind.__module__}.{name}"
        for module in modules
        for name, kind in vars(module).items()
        if hasattr(kind, "fit") or hasattr(kind, "set_learned")
    }
    ours = {kind for kind in kinds if kind.startswith("ml_core.")}
    assert len(ours) == 6
    assert ours <= ALLOWED["ObjectNode"]


def test_what_has_no_safe_form_is_a_save_error():
    """An open file in an attribute: one error that says what may be kept."""
    pipeline = models.fitted(algorithm="logistic_regression").pipeline
    with Path(__file__).open() as pipeline.steps[0][1].file, pytest.raises(ModelSaveError, match="Keep only arrays"):
        skops_format.dump(pipeline)


def test_a_type_outside_the_list_is_named():
    """A type of scikit-learn that answers no row, in an attribute of an estimator that is allowed."""
    pipeline = models.fitted(algorithm="logistic_regression").pipeline
    pipeline.steps[-1][1].extra = KernelDensity()
    with pytest.raises(UnsafeArtifactError) as caught:
        skops_format.load(skops_format.dump(pipeline))
    assert caught.value.types == ["sklearn.neighbors._kde.KernelDensity"]


def _ids(node):
    if isinstance(node, dict):
        if "__id__" in node:
            yield node["__id__"]
        for value in node.values():
            yield from _ids(value)
    elif isinstance(node, list):
        for value in node:
            yield from _ids(value)


@pytest.mark.parametrize("scoring", ["loss", None, "accuracy"])
def test_a_boosting_that_was_stopped_early_is_kept(scoring):
    """Also inside of another estimator: what early stopping left serves a further fit only, and holds its owner."""
    frame, labels = np.random.default_rng(0).random((60, 2)), np.arange(60) % 2
    boosting = HistGradientBoostingClassifier(early_stopping=True, scoring=scoring, max_iter=3)
    voting = VotingClassifier([("one", boosting), ("two", boosting)], voting="soft").fit(frame, labels)
    reloaded = skops_format.load(skops_format.dump(voting))
    np.testing.assert_array_equal(reloaded.predict_proba(frame), voting.predict_proba(frame))
