"""Compilation: equal forms pass the proof, broken ones are refused, and a cell falls back to the original."""

from __future__ import annotations

import builtins
import dataclasses
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.pipeline import Pipeline

from ml_core.data.encoding.table import TableEncoder
from ml_core.domain.columns import take
from ml_core.domain.version import CompiledForm
from ml_core.ids import Digest, ModelId, TenantId
from ml_core.models import compiling, sessions, tree_graph
from ml_core.models.algorithms import ALGORITHMS
from ml_core.models.ensembles import family_of
from ml_core.models.lightgbm_estimators import LightGBMClassifier, LightGBMRegressor
from ml_core.models.loading import LoadedModel, load_version, open_version
from ml_core.models.store import LocalStore
from ml_core.training.fit import fit_model
from ml_core.training.request import TrainingRequest
from support.fitted import stored

SMALL = {"random_forest": {"n_estimators": 12}, "extra_trees": {"n_estimators": 12}}
SMALL |= {"isolation_forest": {"n_estimators": 12}, "gradient_boosting": {"max_iter": 12}}
SMALL |= {"lightgbm": {"n_estimators": 12, "min_child_samples": 5}}
COMPILED = tuple(SMALL)
LABELS = [(0, 1, 0, 1), ("no", "no", "yes", "yes"), (3, 1, 2, 7)]
CASES = [
    (kind, name, labels)
    for kind, algorithms in ALGORITHMS.items()
    for name in algorithms
    for labels in (LABELS if kind == "classification" else [()])
]


def table(kind, labels, rows=300):
    """Numbers with gaps and a category; few distinct values, so that trees split on values that occur and votes tie."""
    random = np.random.default_rng(3)
    frame = pd.DataFrame({f"x{i}": random.integers(0, 6, rows) / 3 for i in range(5)})
    frame["color"] = random.choice(["red", "green", "blue"], rows)
    frame.loc[::9, ["x1", "color"]] = None
    numbers = (frame["x0"] * 3 + random.integers(0, 3, rows)).astype(int) % 4
    if kind == "classification":
        return frame, pd.Series(np.asarray(labels)[numbers], name="label")
    return frame, pd.Series(frame["x0"] + random.normal(size=rows), name="number") if kind == "regression" else None


def fitted(kind, name, labels=("a", "bb", "c", "d")):
    parameters = {"algorithm": name, **SMALL.get(name, {})}
    return fit_model(TrainingRequest(ModelId("m"), kind, table(kind, labels), hyperparameters=parameters))


def loaded(model, store):
    version = stored(model, store)
    return open_version(store.read(TenantId("acme"), version.digest, version.size_bytes), version)


@pytest.fixture
def store(tmp_path):
    return LocalStore(tmp_path)


@pytest.fixture
def forest(store):
    """A fitted forest, the version with its compiled form in the store, and what the compilation found."""
    return _with_form(fitted("classification", "random_forest"), store)


def _with_form(model, store):
    found = compiling.compile_model(loaded(model, store), model.held_out)
    artifact = store.put(TenantId("acme"), found.data, "onnx")
    assert artifact.digest == found.compilation.form.digest
    form = dataclasses.replace(found.compilation.form, max_rows=None)  # it was measured by the clock
    return model, dataclasses.replace(stored(model, store), compiled=form), found.compilation


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("kind", "name", "labels"), CASES)
def test_every_algorithm_is_compiled_and_equal_or_says_why_not(store, kind, name, labels):
    """With two classes and many, and labels of text and of numbers; the differences are zero, not small."""
    model = fitted(kind, name, labels)
    original = loaded(model, store)
    found = compiling.compile_model(original, model.held_out)
    if name not in COMPILED:
        assert found.data is None
        assert found.compilation.form is None
        assert "formula" in found.compilation.reason or "no compiled form" in found.compilation.reason
        return
    proof = found.compilation.proof
    assert (proof.flips, proof.max_difference) == (0, 0.0)
    assert proof.thresholds > 20
    assert proof.rows > 3 * proof.thresholds
    _, version, _ = _with_form(model, store)
    compiled = load_version(store, version)
    assert compiled.uncompiled is None
    assert compiled.memory_bytes > original.memory_bytes
    everything = compiling._changed(original, model.held_out)
    for rows in (everything, *(take(everything, slice(0, end)) for end in (0, 1, 64))):
        for wanted, got in zip(original.predict_both(rows), compiled.predict_both(rows), strict=True):
            assert (wanted is None) == (got is None)
            if wanted is not None:
                np.testing.assert_array_equal(wanted, got)
        if kind == "anomaly_detection":
            for wanted, got in zip(original.predict_scored(rows), compiled.predict_scored(rows), strict=True):
                np.testing.assert_array_equal(wanted, got)


def _break(change):
    """``graph_of`` that writes other trees than it was given."""
    write = tree_graph.graph_of

    def broken(ensemble, width):
        trees = [dataclasses.replace(tree, **change(tree)) for tree in ensemble.trees]
        return write(dataclasses.replace(ensemble, trees=trees), width)

    return broken


def _next_below(threshold):
    return np.nextafter(threshold.astype(np.float32), np.float32(-np.inf)).astype(float)


BREAKS = {
    "a comparison < instead of <=": lambda tree: {"threshold": _next_below(tree.threshold)},
    "thresholds of few digits": lambda tree: {"threshold": tree.threshold.astype(np.float16).astype(float)},
    "sides exchanged": lambda tree: {
        "left": tree.right,
        "right": tree.left,
        "left_is_leaf": tree.right_is_leaf,
        "right_is_leaf": tree.left_is_leaf,
    },
    "another feature": lambda tree: {"feature": tree.feature[::-1]},
    "another leaf": lambda tree: {"values": np.where(np.arange(len(tree.values))[:, None] == 0, 0.25, tree.values)},
}


@pytest.mark.parametrize("name", ["random_forest", "gradient_boosting"])
@pytest.mark.parametrize("change", BREAKS)
def test_a_broken_graph_does_not_pass_the_proof(store, monkeypatch, name, change):
    model = fitted("classification", name)
    original = loaded(model, store)
    monkeypatch.setattr(tree_graph, "graph_of", _break(BREAKS[change]))
    found = compiling.compile_model(original, model.held_out)
    assert found.data is None
    assert found.compilation.form is None
    assert found.compilation.reason.startswith("The compiled form is not equal")
    assert found.compilation.proof.flips > 0


def test_one_wrong_threshold_of_one_tree_is_found(store, monkeypatch):
    """The least change of one number of one tree, where no held-out row may be."""
    model = fitted("regression", "gradient_boosting")
    original, write = loaded(model, store), tree_graph.graph_of

    def broken(ensemble, width):
        trees = list(ensemble.trees)
        threshold = trees[-1].threshold.copy()
        threshold[-1] = np.nextafter(threshold[-1], np.inf)
        trees[-1] = dataclasses.replace(trees[-1], threshold=threshold)
        return write(dataclasses.replace(ensemble, trees=trees), width)

    monkeypatch.setattr(tree_graph, "graph_of", broken)
    assert compiling.compile_model(original, model.held_out).data is None


def test_single_precision_is_refused(store, monkeypatch):
    """Sums of float32 differ by 1e-8 and flip ties."""
    model = fitted("classification", "random_forest")
    original, make = loaded(model, store), sessions.open_session

    def rounded(data):
        run = make(data)
        return lambda rows: run(rows).astype(np.float32).astype(np.float64)

    monkeypatch.setattr(sessions, "open_session", rounded)
    assert compiling.compile_model(original, model.held_out).compilation.proof.max_difference > 1e-9


def test_the_least_difference_is_refused(store, monkeypatch):
    """It would decide between equal votes."""
    model = fitted("classification", "random_forest")
    original, make = loaded(model, store), sessions.open_session

    def apart(data):
        run = make(data)
        return lambda rows: np.nextafter(run(rows), 1.0)

    monkeypatch.setattr(sessions, "open_session", apart)
    assert compiling.compile_model(original, model.held_out).data is None


@pytest.mark.parametrize("classes", [2, 3, 17])
def test_many_trees_add_up_as_in_scikit_learn(classes):
    """To the last bit, for one row and for many: equal votes stay equal, and rows do not depend on their batch."""
    random = np.random.default_rng(0)
    features = random.integers(0, 6, (200, 5)) / 3
    forest = RandomForestClassifier(600, max_depth=3, random_state=0).fit(features, random.integers(0, classes, 200))
    family = family_of(forest)
    data = tree_graph.graph_of(family.ensemble(forest), 5)
    run, answer = sessions.in_parts(sessions.check_graph(data, 5), data), family.answer(forest)
    wanted = forest.predict_proba(features)
    for rows in (1, 2, 64, 200):
        np.testing.assert_array_equal(answer(run(features[:rows])).probabilities, wanted[:rows])


def test_many_rows_are_asked_in_parts(monkeypatch):
    """A forest has a number for each row, tree and class between its operators."""
    random = np.random.default_rng(0)
    features = random.normal(size=(50, 3))
    forest = RandomForestClassifier(9, random_state=0).fit(features, features[:, 0] > 0)
    data = tree_graph.graph_of(family_of(forest).ensemble(forest), 3)
    cells, make, asked = sessions.check_graph(data, 3), sessions.open_session, []
    assert cells == 3 + 9 * (3 + 2)

    def counting(of):
        run = make(of)
        return lambda rows: asked.append(len(rows)) or run(rows)

    monkeypatch.setattr(sessions, "open_session", counting)
    monkeypatch.setattr(sessions, "_MAX_CELLS", 20 * cells)
    np.testing.assert_array_equal(sessions.in_parts(cells, data)(features), make(data)(features))
    assert asked == [20, 20, 10]
    with pytest.raises(sessions.UnusableFormError, match="too much memory"):
        sessions.in_parts(20 * cells + 1, data)


NEAR_ZERO = [0.0, 5e-324, 1e-38, 1e-36, float(np.float32(1e-35)), np.nextafter(float(np.float32(1e-35)), 1), 1e-34]


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    scale=st.sampled_from([1.0, 1e-35, 1e30]),
    zeros=st.sampled_from([0.0, 0.4]),
    missing=st.sampled_from([0.0, 0.2]),
    classes=st.sampled_from([0, 2, 3]),
)
def test_lightgbm_is_compiled_with_its_own_zeros_and_missing_values(seed, scale, zeros, missing, classes):
    """It reads numbers up to 1e-35 as zero, and a missing value as zero where the training had none."""
    random = np.random.default_rng(seed)
    rows = random.normal(size=(300, 4)) * scale * (random.random((300, 4)) >= zeros)
    score = rows[:, 0] / scale + random.normal(size=300) / 4
    rows[random.random(rows.shape) < missing] = np.nan
    labels = score if not classes else np.digitize(score, [-0.3, 0.3][: classes - 1])
    estimator = (LightGBMClassifier if classes else LightGBMRegressor)(n_estimators=8, random_state=0, n_jobs=1)
    estimator.fit(rows, labels)
    family = family_of(estimator)
    ensemble = family.ensemble(estimator)
    run, answer = sessions.open_session(tree_graph.graph_of(ensemble, 4)), family.answer(estimator)
    found, at_splits = compiling._at_splits(ensemble, family.trees(estimator), rows)
    assert found.is_equal
    near = np.array([[sign * value] * 4 for value in (*NEAR_ZERO, 1e300, np.nan) for sign in (1, -1)])
    asked = np.concatenate([rows, at_splits, near])
    assert compiling._difference(compiling._plain(estimator, asked), answer(run(asked))).is_equal


def test_lightgbm_has_an_answer_to_the_largest_sums():
    """As in C, whose exponential is then infinite."""
    sums = np.array([[-1e4], [-709.9], [-709.5], [0.0], [1e4]])
    answer = family_of(LightGBMClassifier()).answer(SimpleNamespace(classes_=np.array(["no", "yes"])))(sums)
    np.testing.assert_array_equal(answer.probabilities[:, 1] == 0, [True, True, False, False, False])
    assert answer.predictions.tolist() == ["no", "no", "no", "no", "yes"]


def test_categories_of_boosting_itself_are_refused(store):
    columns = {"x": np.arange(80) % 5.0}
    estimator = HistGradientBoostingClassifier(categorical_features=[0], max_iter=3)
    pipeline = Pipeline([("encode", TableEncoder([("x", "number")], scaling="none")), ("model", estimator)])
    model = fitted("classification", "gradient_boosting")
    version = loaded(model, store).version
    # Categories are whole numbers from 0, as they come from an encoder that does not scale.
    found = compiling.compile_model(LoadedModel(version, pipeline.fit(columns, columns["x"] > 1)), columns)
    assert found.compilation.reason == "It can't be compiled: its own treatment of categories has no graph."


def test_sparse_features_and_foreign_pipelines_are_not_compiled(store):
    from support.fitted import forest as of_texts

    model = of_texts()
    found = compiling.compile_model(loaded(model, store), model.held_out)
    assert found.compilation.reason == "Its features are sparse, because a column is a text."
    foreign = LoadedModel(loaded(model, store).version, RandomForestClassifier(2).fit([[0], [1]], [0, 1]))
    assert "not the platform's encoder" in compiling.compile_model(foreign, {}).compilation.reason


def test_a_failing_compilation_is_a_reason_and_no_error(store, monkeypatch):
    model = fitted("classification", "random_forest")
    original = loaded(model, store)
    monkeypatch.setattr(tree_graph, "graph_of", lambda *_: 1 / 0)
    found = compiling.compile_model(original, model.held_out)
    assert found.compilation.reason == "Its compilation failed (ZeroDivisionError)."


def test_what_is_not_affordable_or_not_faster_is_not_used(store, monkeypatch):
    model = fitted("classification", "random_forest")
    original = loaded(model, store)
    monkeypatch.setattr(compiling, "BYTES_PER_US", 1)
    dear = compiling.compile_model(original, model.held_out)
    assert (dear.data, dear.compilation.proof) == (None, None)
    assert dear.compilation.reason.startswith("A compiled form is not affordable")
    monkeypatch.setattr(compiling, "BYTES_PER_US", 64_000)
    monkeypatch.setattr(compiling, "_SPLIT_BYTES", 0)
    monkeypatch.setattr(compiling, "memory_of", lambda size_bytes: 10**12 if size_bytes else 1)
    dear = compiling.compile_model(original, model.held_out)
    assert dear.data is None
    assert "would be affordable" in dear.compilation.reason
    assert dear.compilation.proof.flips == 0
    monkeypatch.setattr(compiling, "_microseconds", lambda *_: 5.0)
    assert "not faster" in compiling.compile_model(original, model.held_out).compilation.reason


def test_the_original_answers_requests_for_which_it_is_faster(store, monkeypatch):
    """Costs grow evenly with rows: 10 + 10 n against 100 + n µs meet at 10 rows."""
    costs = compiling.FormCost(1, 101.0, 164.0), compiling.FormCost(1, 20.0, 650.0)
    assert compiling._rows_until_slower(*costs) == 10
    assert compiling._rows_until_slower(costs[0], compiling.FormCost(1, 20.0, 100.0)) is None


def _missing(monkeypatch, name):
    real = builtins.__import__

    def importing(wanted, *rest):
        if wanted == name:
            raise ImportError(f"No module named {wanted!r}", name=wanted)
        return real(wanted, *rest)

    monkeypatch.setattr(builtins, "__import__", importing)


def test_without_the_runtime_the_original_answers(store, forest, monkeypatch, caplog):
    model, version, _ = forest
    _missing(monkeypatch, "onnxruntime")
    served = load_version(store, version)
    assert served.uncompiled == "onnxruntime is not installed."
    assert "answered by its original form" in caplog.text
    assert len(served.predict(model.held_out)) == len(model.held_out["x0"])
    assert compiling.compile_model(loaded(model, store), model.held_out).compilation.reason == (
        "It can't be compiled: onnxruntime is not installed."
    )


def test_with_another_runtime_the_original_answers(store, forest):
    _, version, _ = forest
    other = dataclasses.replace(version, compiled=dataclasses.replace(version.compiled, runtime="1.0.0"))
    assert "proved with '1.0.0'" in load_version(store, other).uncompiled


def test_damaged_or_lost_bytes_leave_the_original(store, forest):
    _, version, _ = forest
    path = store.path(TenantId("acme"), version.compiled.digest)
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert "sha256 differs" in load_version(store, version).uncompiled
    path.unlink()
    assert "is missing" in load_version(store, version).uncompiled


def test_a_form_of_another_model_fails_the_self_test(store, forest):
    """Sound bytes of a proved graph that is not this version's."""
    _, version, _ = forest
    _, other, _ = _with_form(fitted("classification", "extra_trees"), store)
    served = load_version(store, dataclasses.replace(version, compiled=other.compiled))
    assert "self-test" in served.uncompiled


def test_a_form_for_few_rows_is_tested_too(store, forest):
    """The self-test has more rows than it answers."""
    _, version, _ = forest
    _, other, _ = _with_form(fitted("classification", "extra_trees"), store)
    few = dataclasses.replace(other.compiled, max_rows=1)
    assert "self-test" in load_version(store, dataclasses.replace(version, compiled=few)).uncompiled
    sound = load_version(
        store, dataclasses.replace(version, compiled=dataclasses.replace(version.compiled, max_rows=1))
    )
    assert (sound.uncompiled, sound.is_compiled, sound._compiled_rows) == (None, True, 1)


@pytest.mark.parametrize("name", ["random_forest", "gradient_boosting", "isolation_forest"])
def test_where_the_runtime_fails_the_original_answers(store, name, monkeypatch, caplog):
    """That request and those after it; memory stays counted as it was, and the failure is logged once."""
    kind = "anomaly_detection" if name == "isolation_forest" else "classification"
    model, version, _ = _with_form(fitted(kind, name), store)
    asked, make = [], sessions.open_session

    def failing(data):
        run = make(data)

        def answer(rows):
            asked.append(len(rows))
            if len(asked) > 1:
                raise RuntimeError("no memory")
            return run(rows)

        return answer

    monkeypatch.setattr(sessions, "open_session", failing)
    served, original = load_version(store, version), loaded(model, store)
    before = served.memory_bytes
    for _ in range(3):
        for wanted, got in zip(original.predict_both(model.held_out), served.predict_both(model.held_out), strict=True):
            np.testing.assert_array_equal(wanted, got)
        if kind == "anomaly_detection":
            np.testing.assert_array_equal(*(each.predict_scored(model.held_out)[1] for each in (original, served)))
    assert len(asked) == 2
    assert served.memory_bytes == before
    assert not served.is_compiled
    assert caplog.text.count("no memory") == 1


def test_a_form_that_fails_in_the_self_test_is_not_used(store, forest, monkeypatch):
    monkeypatch.setattr(sessions, "open_session", lambda _data: lambda _rows: 1 / 0)
    assert load_version(store, forest[1]).uncompiled == "The compiled form failed in the self-test."


def test_a_form_that_is_too_large_is_not_read(store, forest, monkeypatch):
    """A tenant could name any bytes of its own."""
    _, version, _ = forest
    large = dataclasses.replace(version.compiled, size_bytes=sessions.MAX_BYTES + 1)
    read = store.read
    monkeypatch.setattr(
        store, "read", lambda of, digest, size: pytest.fail("read") if size > 2**24 else read(of, digest, size)
    )
    assert "too large" in load_version(store, dataclasses.replace(version, compiled=large)).uncompiled


def test_a_form_without_a_family_leaves_the_original(store, forest):
    linear = fitted("classification", "logistic_regression")
    form = CompiledForm(forest[1].compiled.digest, forest[1].compiled.size_bytes, sessions.runtime_version())
    served = load_version(store, dataclasses.replace(stored(linear, store), compiled=form))
    assert "is not compiled" in served.uncompiled


def test_the_record_survives_json(forest):
    compilation = forest[2]
    assert type(compilation).from_json(compilation.to_json()) == compilation
    assert compilation.answers == "compiled"
    assert isinstance(type(compilation).from_json(compilation.to_json()).form.digest, Digest)


def test_bytes_are_the_same_each_time(store):
    model = fitted("classification", "random_forest")
    one, two = (compiling.compile_model(loaded(model, store), model.held_out).data for _ in range(2))
    assert one == two
