"""Loading: verified, tuned, self-tested, or not at all."""

import gc
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.neighbors import KNeighborsClassifier

from ml_core.domain.columns import ColumnKind
from ml_core.domain.signature import InputColumn, Output, OutputKind, Signature
from ml_core.domain.version import SelfTest
from ml_core.exceptions import (
    ArtifactIntegrityError,
    ModelLoadError,
    PredictionError,
    SignatureMismatchError,
    UnsafeArtifactError,
)
from ml_core.models.formats import skops_format
from ml_core.models.formats.archive import MAX_UNPACKED_BYTES
from ml_core.models.graph import estimators, measure_bytes
from ml_core.models.loading import LoadedModel, labels_to_json, load_version
from ml_core.models.own_types import Trust
from ml_core.models.store import LocalStore
from support import fitted as models


@pytest.fixture
def store(tmp_path):
    return LocalStore(tmp_path)


@pytest.mark.parametrize("name", ["linear", "forest", "boosting"])
def test_a_loaded_version_answers_rows(store, name):
    """The same labels and probabilities as the pipeline that was fitted."""
    fitted = getattr(models, name)()
    model = load_version(store, models.stored(fitted, store))
    frame, _ = models.table()
    rows = frame.head(7).to_dict("records")
    columns = fitted.signature.columns_from_rows(rows)
    labels, probabilities = model.predict_both(columns)
    assert model.predict_rows(rows) == fitted.pipeline.predict(frame.head(7)).tolist() == labels.tolist()
    np.testing.assert_allclose(probabilities, fitted.pipeline.predict_proba(frame.head(7)))
    np.testing.assert_array_equal(model.predict_proba(columns), probabilities)
    np.testing.assert_array_equal(model.predict_frame(frame.head(7)), labels)


def test_no_rows_give_no_predictions(store):
    """An empty request is answered with empty arrays of the right width."""
    model = load_version(store, models.stored(models.linear(), store))
    labels, probabilities = model.predict_both(model.version.signature.columns_from_rows([]))
    assert labels.shape == (0,)
    assert probabilities.shape == (0, 2)


def test_a_row_that_does_not_fit_is_named(store):
    """The signature speaks before the model does."""
    model = load_version(store, models.stored(models.linear(), store))
    with pytest.raises(SignatureMismatchError, match="Row 0: column 'size'"):
        model.predict_rows([{"size": "large", "color": "red", "note": "x"}])


def test_a_model_without_probabilities_says_none(store):
    """A linear SVM has labels only."""
    model = load_version(store, models.stored(models.fitted(algorithm="linear_svm"), store))
    columns = model.version.signature.columns_from_rows([{"size": 1.0, "color": "red", "note": "refund"}])
    assert model.predict_proba(columns) is None
    assert not model.has_probabilities


def test_one_thread_everywhere(store):
    """A forest that was fitted with two jobs answers with one."""
    model = load_version(store, models.stored(models.fitted(n_estimators=2, n_jobs=2), store))
    jobs = {estimator.n_jobs for estimator in estimators(model.pipeline) if hasattr(estimator, "n_jobs")}
    assert jobs == {1}


@pytest.mark.parametrize("name", ["linear", "forest", "boosting"])
def test_memory_is_measured(store, name):
    """Within a factor of two of what the allocator gave out while the model was built."""
    version = models.stored(getattr(models, name)(), store)
    load_version(store, version)  # what is allocated once in a process is not the model's
    tracemalloc.start()
    try:
        model = load_version(store, version)
        gc.collect()
        allocated, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0.5 < model.memory_bytes / allocated < 2


def test_the_trees_of_a_forest_are_measured(store):
    """Their arrays belong to C code, where neither sys.getsizeof nor the allocator's trace sees them."""
    model = load_version(store, models.stored(models.forest(), store))
    trees = [tree.tree_ for tree in model.pipeline.steps[-1][1].estimators_]
    assert model.memory_bytes > sum(tree.__getstate__()["nodes"].nbytes + tree.value.nbytes for tree in trees) > 1_000


def test_the_search_tree_of_neighbours_is_measured():
    """It is made when the model is loaded, with a copy of all points."""
    points = np.random.default_rng(0).normal(size=(5_000, 4))
    neighbours = skops_format.load(skops_format.dump(KNeighborsClassifier().fit(points, points[:, 0] > 0)))
    assert neighbours._fit_method == "kd_tree"
    assert measure_bytes(neighbours) > 2 * points.nbytes


@pytest.mark.parametrize(
    "change",
    [
        {"predictions": ("machine",) * 5},
        {"probabilities": ((0.5, 0.5),) * 5},
        {"rows": ({"size": "?"},)},
        {"probabilities": ((0.5, 0.25, 0.25),) * 5},
    ],
)
def test_a_version_that_answers_otherwise_is_not_loaded(store, change):
    """Another label, another probability, a row that does not fit, another number of classes."""
    fitted = models.linear()
    test = replace(fitted.self_test, **change)
    assert len(fitted.self_test.rows) == 5
    version = replace(models.stored(fitted, store), self_test=test)
    with pytest.raises(ModelLoadError, match="self-test") as caught:
        load_version(store, version)
    assert (caught.value.tenant_id, caught.value.model_id, caught.value.version) == ("acme", "m", "1")


def test_a_version_without_a_self_test_is_loaded(store):
    """Models that a caller brought may have none."""
    version = replace(models.stored(models.linear(), store), self_test=SelfTest((), ()))
    assert load_version(store, version).version is version


def test_a_flipped_byte_is_found_before_parsing(store):
    """The error names the version and the digest."""
    version = models.stored(models.linear(), store)
    path = store.path(version.ref.tenant_id, version.digest)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(ArtifactIntegrityError) as caught:
        load_version(store, version)
    assert (caught.value.version, caught.value.digest) == ("1", version.digest)


def test_an_unknown_format_is_refused(store):
    """Nothing guesses what the bytes may be."""
    version = replace(models.stored(models.linear(), store), format="pickle")
    with pytest.raises(ModelLoadError, match="'pickle'"):
        load_version(store, version)


def test_an_artifact_beyond_the_bound_is_not_read(store, monkeypatch):
    """A row could name any bytes of its tenant, such as a dataset of many gigabytes."""
    version = replace(models.stored(models.linear(), store), size_bytes=MAX_UNPACKED_BYTES + 1)
    monkeypatch.setattr(store, "read", lambda *_: pytest.fail("it was read"))
    with pytest.raises(ModelLoadError, match="loads at most"):
        load_version(store, version)


def test_own_types_load_only_where_they_are_vouched_for(store):
    """The default is a server's: it vouches for nothing."""
    frame = np.random.default_rng(0).normal(size=(30, 1))
    forest = RandomForestClassifier(2).fit(frame, frame[:, 0] > 0)
    forest.extra = _Own()
    signature = Signature((InputColumn("x0", ColumnKind.NUMBER, False),), Output(OutputKind.CLASSES, (False, True)))
    fitted = replace(models.forest(), pipeline=forest, signature=signature, self_test=SelfTest((), ()))
    version = models.stored(fitted, store)
    with pytest.raises(UnsafeArtifactError, match="_Own"):
        load_version(store, version)
    loaded = load_version(store, version, Trust(types=frozenset([f"{_Own.__module__}.{_Own.__qualname__}"])))
    assert loaded.predict_rows([{"x0": 3.0}, {"x0": -3.0}]) == [True, False]


def test_a_failing_pipeline_is_a_prediction_error(store):
    """It names the version, and says what to do whether the rows or the version are at fault."""
    fitted = models.fitted(algorithm="logistic_regression")
    fitted.pipeline.steps[-1][1].coef_ = np.ones((1, 2))
    model = LoadedModel(models.stored(fitted, store), fitted.pipeline)
    with pytest.raises(PredictionError, match=r"Compare the rows .* roll back"):
        model.predict_rows(fitted.self_test.rows)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.array(["a", "b"]), ["a", "b"]),
        (np.array([1, 2]), [1, 2]),
        (np.array([True, False]), [True, False]),
        (np.array([1.5, np.nan, np.inf]), [1.5, None, None]),
    ],
)
def test_labels_keep_their_json_type(array, expected):
    """Strings, ints, booleans and floats; no bare NaN."""
    found = labels_to_json(array)
    assert found == expected
    assert [type(value) for value in found] == [type(value) for value in expected]


class _Own:
    """A class of the caller's."""

    def __init__(self):
        self.note = "mine"
