"""Explanations: what each raw column added to a score, for every algorithm and for pipelines of the caller's own."""

from __future__ import annotations

import itertools
import math
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import Ridge
from sklearn.tree import DecisionTreeRegressor

from ml_core.domain.columns import ColumnKind, take
from ml_core.domain.explanation import Method, Unit
from ml_core.domain.signature import InputColumn, Output, OutputKind, Signature
from ml_core.domain.version import SelfTest, ServableVersion
from ml_core.evaluation import sampled_shapley
from ml_core.evaluation.exact_contributions import exact
from ml_core.evaluation.explaining import Explainer
from ml_core.evaluation.tree_shap import Tree, TreeShap
from ml_core.exceptions import InvalidRequestError, PredictionError
from ml_core.ids import Digest, ModelId, TenantId, VersionId, VersionRef
from ml_core.models.algorithms import ALGORITHMS
from ml_core.models.formats import skops_format
from ml_core.models.loading import LoadedModel, open_version
from ml_core.models.model_factory import ModelFactory
from ml_core.training.fit import fit_model
from ml_core.training.request import TrainingRequest

CASES = [
    (model_type, algorithm, n_classes)
    for model_type, algorithms in ALGORITHMS.items()
    for algorithm in algorithms
    for n_classes in ((2, 4) if model_type == "classification" else (0,))
]
SMALL = {"n_estimators": 8, "max_iter": 30, "n_clusters": 3, "n_components": 3}
SAMPLED = {"naive_bayes", "kmeans", "gaussian_mixture", "isolation_forest"}


def table(seed: int, rows: int = 150) -> pd.DataFrame:
    """Every kind of column, missing values, and a column that does not vary."""
    random = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "size": random.normal(size=rows),
            "age": random.integers(18, 90, rows).astype(float),
            "constant": 7.0,
            "plan": random.choice(["free", "pro", "team"], rows),
            "is_new": random.choice([True, False], rows),
            "opened": pd.date_range("2026-01-01", periods=rows, freq="31h"),
            "note": [
                f"{random.choice(['refund', 'crash', 'login'])} please {random.choice(['now', 'today'])} {i % 7}"
                for i in range(rows)
            ],
        }
    )
    frame.loc[random.random(rows) < 0.2, "age"] = np.nan
    frame.loc[random.random(rows) < 0.1, "plan"] = None
    frame.loc[random.random(rows) < 0.1, "note"] = None
    return frame


def target_of(frame: pd.DataFrame, n_classes: int) -> pd.Series[Any]:
    number = frame["size"] + 0.02 * frame["age"].fillna(40) + frame["note"].fillna("").str.contains("refund") * 1.5
    if n_classes:
        return pd.Series(pd.qcut(number, n_classes, labels=[f"class {c}" for c in range(n_classes)]).astype(str))
    return np.exp(number)


def loaded(model_type: str, frame: pd.DataFrame, target: Any, **hyperparameters: Any) -> LoadedModel:
    """Trained, written, read and tuned, as a replica has it."""
    request = TrainingRequest(ModelId("m"), model_type, (frame, target), hyperparameters=hyperparameters)
    fitted = fit_model(request)
    version = version_of(fitted.signature, fitted.self_test, model_type)
    if ModelFactory.is_standard(model_type):
        return open_version(skops_format.dump(fitted.pipeline), version)
    return LoadedModel(version, fitted.pipeline)


def version_of(signature: Signature, self_test: SelfTest, model_type: str) -> ServableVersion:
    ref = VersionRef(TenantId("acme"), ModelId("m"), VersionId("1"))
    return ServableVersion(ref, model_type, Digest("0" * 64), 0, skops_format.FORMAT, signature, self_test)


def rows_to_explain() -> list[dict[str, Any]]:
    """Rows of other values than training had: an unseen category, unknown words, and nothing at all."""
    row = {"size": 0.3, "age": 41, "constant": 7, "plan": "pro", "is_new": True, "opened": "2026-03-01"}
    return [
        {**row, "note": "please refund refund now"},
        {**row, "size": -1e9, "plan": "unheard of", "note": "words that nobody wrote"},
        {**row, "age": None, "plan": None, "note": None, "opened": "1950-01-01T12:00:00Z"},
        {**row, "size": 4.5, "is_new": False, "constant": 9, "note": "crash"},
    ]


def expected_scores(model: LoadedModel, columns: Any, unit: Unit) -> np.ndarray:
    """The scores as scikit-learn and LightGBM give them."""
    if unit is Unit.PROBABILITY:
        return model.pipeline.predict_proba(columns)
    if unit is Unit.TARGET:
        return model.pipeline.predict(columns)[:, None]
    if unit is Unit.AGREEMENT:
        return np.ones((len(columns["size"]), 1))
    if type(model.pipeline.steps[-1][1]).__name__ == "LightGBMClassifier":
        scores = np.log(model.pipeline.predict_proba(columns))
        return scores - scores.mean(axis=1, keepdims=True) if unit is Unit.LOGIT else scores - scores[:, ::-1]
    if unit is Unit.ANOMALY:
        return -model.pipeline.score_samples(columns)[:, None]
    scores = model.pipeline.decision_function(columns)
    return np.column_stack([-scores, scores]) if scores.ndim == 1 else scores


@pytest.mark.parametrize(("model_type", "algorithm", "n_classes"), CASES, ids=lambda value: str(value))
def test_base_and_contributions_are_the_score(model_type, algorithm, n_classes):
    """Of every algorithm, for rows that training did not have; each score is the model's own."""
    parameters = ALGORITHMS[model_type][algorithm].estimator_class()._get_param_names()
    small = {name: value for name, value in SMALL.items() if name in parameters}
    if "class_weight" in parameters and n_classes:
        small["class_weight"] = "balanced"
    frame = table(seed=n_classes)
    target = target_of(frame, n_classes) if model_type in ("classification", "regression") else None
    model = loaded(model_type, frame, target, algorithm=algorithm, **small)
    columns = model.version.signature.columns_from_rows(rows_to_explain())
    found = Explainer(model).explain(columns)
    expected = expected_scores(model, columns, found.unit)
    scores = found.scores
    if algorithm == "lightgbm" and found.unit is Unit.LOGIT:
        scores = scores - scores.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(scores, expected, rtol=1e-6, atol=1e-6)
    assert found.predictions == list(model.predict(columns))
    assert (found.method is Method.PERMUTATION) == (algorithm in SAMPLED)
    assert found.contributions.shape == (4, 6, expected.shape[1])
    assert found.columns == tuple(frame.columns.drop("constant"))  # training leaves it out
    alone = Explainer(model).explain(take(columns, slice(1, 2)))
    np.testing.assert_allclose(alone.contributions[0], found.contributions[1], atol=1e-12)


@pytest.mark.parametrize("scaling", ["standard", "minmax", "robust", "none"])
def test_a_linear_model_compares_with_a_typical_row(scaling):
    """A value at the mean, or at the median where the scaling has no mean, adds nothing."""
    from ml_core.data.processor import DataProcessor

    frame = table(seed=1)[["size", "age"]].fillna(40.0)
    request = TrainingRequest(
        ModelId("m"),
        "regression",
        (frame, target_of(table(seed=1), 0)),
        hyperparameters={"algorithm": "ridge"},
        processor=DataProcessor(scaling=scaling),
    )
    fitted = fit_model(request)
    model = LoadedModel(version_of(fitted.signature, fitted.self_test, "regression"), fitted.pipeline)
    encoder = fitted.pipeline.steps[0][1]
    numbers = encoder.dense_[0]
    typical = numbers.center_ if scaling == "standard" else numbers.fill_
    row = dict(zip(["size", "age"], typical.tolist(), strict=True))
    found = Explainer(model).explain(model.version.signature.columns_from_rows([row, {"size": 1.0, "age": 30.0}]))
    np.testing.assert_allclose(found.contributions[0], 0.0, atol=1e-12)
    assert (np.abs(found.contributions[1]) > 0).all()


def test_categories_hyperparameters_and_depth_of_a_users_own():
    """A forest of deep trees, one-hot columns summed to the category, bootstrap weights as class weights."""
    frame = table(seed=2, rows=400)[["size", "plan", "note"]]
    target = target_of(table(seed=2, rows=400), 2)
    model = loaded(
        "classification",
        frame,
        target,
        algorithm="random_forest",
        n_estimators=30,
        min_samples_leaf=1,
        max_features=None,
        class_weight={"class 0": 1.0, "class 1": 5.0},
    )
    columns = model.version.signature.columns_from_rows([{k: row[k] for k in frame} for row in rows_to_explain()])
    found = Explainer(model).explain(columns)
    np.testing.assert_allclose(found.scores, model.pipeline.predict_proba(columns), atol=1e-6)
    strongest = found.words[0]["note"]
    assert "refund" in max(strongest, key=lambda word: abs(strongest[word]))
    assert found.words[2] == {"note": {}}


def brute_force(left, right, feature, threshold, cover, value, row, n_features):
    """Shapley values of the path-dependent game by its definition: over all subsets of the features."""

    def expectation(node, known):
        if left[node] < 0:
            return value[node]
        if feature[node] in known:
            return expectation(left[node] if row[feature[node]] <= threshold[node] else right[node], known)
        parts = [cover[child] / cover[node] * expectation(child, known) for child in (left[node], right[node])]
        return parts[0] + parts[1]

    found = np.zeros((n_features, value.shape[1]))
    for size in range(n_features):
        weight = math.factorial(size) * math.factorial(n_features - size - 1) / math.factorial(n_features)
        for known in itertools.combinations(range(n_features), size):
            without = expectation(0, known)
            for player in set(range(n_features)) - set(known):
                found[player] += weight * (expectation(0, (*known, player)) - without)
    return found


@pytest.mark.parametrize("seed", range(4))
def test_trees_have_the_shapley_values_of_the_definition(seed):
    """Of trees that ask a feature several times, for three classes, single leaves among them."""
    random = np.random.default_rng(seed)
    X = random.normal(size=(80, 5)).round(1)
    labels = (X[:, 0] + X[:, 1] * X[:, 2] > 0).astype(int) + (X[:, 3] > 1)
    forest = RandomForestClassifier(4, max_depth=2 + 2 * seed, random_state=seed, class_weight="balanced")
    forest.fit(X, labels)
    rows = random.normal(size=(3, 5)).astype(np.float32).astype(float)
    found = exact(forest, np.zeros(5))
    assert found is not None
    contributions = found.contributions(rows)
    for number, row in enumerate(rows):
        expected = np.zeros((5, 3))
        for estimator in forest.estimators_:
            tree = estimator.tree_
            arrays = (tree.children_left, tree.children_right, tree.feature, tree.threshold)
            cover, value = tree.weighted_n_node_samples, tree.value[:, 0, :]
            expected += brute_force(*arrays, cover, value, row, 5) / len(forest.estimators_)
        np.testing.assert_allclose(contributions[:, number], expected, atol=1e-12)
    np.testing.assert_allclose(contributions.sum(axis=0) + found.base, forest.predict_proba(rows), atol=1e-12)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_boosting_has_the_shapley_values_of_lightgbms_own(n_classes):
    """Ours on LightGBM's trees equal those that LightGBM computes."""
    random = np.random.default_rng(n_classes)
    X = random.normal(size=(300, 6))
    labels = np.digitize(X[:, 0] * X[:, 1] + X[:, 2], np.linspace(-1, 1, n_classes - 1))
    parameters = {"objective": "multiclass" if n_classes > 2 else "binary", "verbosity": -1, "num_threads": 1}
    if n_classes > 2:
        parameters["num_class"] = n_classes
    booster = lightgbm.train(parameters, lightgbm.Dataset(X, labels), 6)
    rows = X[:5]
    theirs = booster.predict(rows, pred_contrib=True, num_threads=1).reshape(5, -1, 7)
    trees = [tree["tree_structure"] for tree in booster.dump_model()["tree_info"]]
    scores = 1 if n_classes == 2 else n_classes
    for score in range(scores):
        shap = TreeShap([as_arrays(structure) for structure in trees[score::scores]], 6)
        np.testing.assert_allclose(shap.contributions(rows)[:, :, 0].T, theirs[:, score, :-1], atol=1e-9)
        np.testing.assert_allclose(shap.base[0], theirs[0, score, -1], atol=1e-9)


def as_arrays(structure: dict[str, Any]) -> Tree:
    """A tree of LightGBM's dump."""
    nodes: list[list[float]] = []

    def add(node: dict[str, Any]) -> int:
        number = len(nodes)
        nodes.append([])
        if "split_feature" in node:
            head = [node["split_feature"], node["threshold"], node["internal_count"], 0.0]
            nodes[number] = [add(node["left_child"]), add(node["right_child"]), *head]
        else:
            nodes[number] = [-1, -1, 0, 0.0, node.get("leaf_count", 1), node["leaf_value"]]
        return number

    add(structure)
    left, right, feature, threshold, cover, value = np.array(nodes).T
    return Tree(*(array.astype(np.intp) for array in (left, right, feature)), threshold, cover, value[:, None])


def test_a_deep_tree_is_exact():
    """A chain of 300 splits on 150 features: no product loses its digits."""
    random = np.random.default_rng(0)
    X = np.triu(np.ones((300, 150)), 0)[random.permutation(300)] + random.normal(size=(300, 150)) * 1e-3
    y = np.exp(random.normal(size=300))
    tree = DecisionTreeRegressor(random_state=0, splitter="random", max_features=1).fit(X, y)
    found = exact(tree, np.zeros(150))
    assert found is not None
    contributions = found.contributions(X[:20].astype(np.float32).astype(float))
    np.testing.assert_allclose(contributions.sum(axis=0) + found.base, tree.predict(X[:20])[:, None], rtol=1e-9)


def test_splits_by_sets_of_categories_are_sampled():
    """A hyperparameter of the user's makes boosting split so; its structure is not taken for another."""
    random = np.random.default_rng(0)
    X = np.column_stack([random.integers(0, 6, 300), random.normal(size=300)]).astype(float)
    boosting = HistGradientBoostingClassifier(max_iter=5, categorical_features=[0]).fit(X, np.isin(X[:, 0], [1, 4]))
    assert exact(boosting, np.zeros(2)) is None


def test_a_wrapped_target_is_explained_in_the_targets_unit():
    """An estimator whose structure is not known is sampled; the same rows get the same numbers."""
    ModelFactory.register("wrapped", lambda _: TransformedTargetRegressor(Ridge(), func=np.log, inverse_func=np.exp))
    try:
        frame = table(seed=3)
        model = loaded("wrapped", frame, target_of(frame, 0))
    finally:
        ModelFactory.unregister("wrapped")
    columns = model.version.signature.columns_from_rows(rows_to_explain()[2:])
    found = Explainer(model).explain(columns)
    assert (found.method, found.unit) == (Method.PERMUTATION, Unit.TARGET)
    np.testing.assert_allclose(found.scores[:, 0], model.predict(columns), rtol=1e-9)
    assert np.array_equal(found.contributions, Explainer(model).explain(columns).contributions)


def test_sampling_is_exact_without_interactions_of_three_and_bounded():
    """Of a sum with a product of two columns, at most 2,000 predictions a row."""
    asked = 0
    names = [f"c{number}" for number in range(12)]

    def score(columns: Any) -> Any:
        nonlocal asked
        asked += len(columns["c0"])
        return (columns["c0"] * columns["c1"] + sum(columns[name] for name in names))[:, None]

    row = {name: np.array([float(number)]) for number, name in enumerate(names)}
    base, found = sampled_shapley.sampled_shapley(score, row, {name: np.zeros(3) for name in names})
    assert base == [0.0]
    np.testing.assert_allclose(found[:, 0], np.arange(12.0), atol=1e-9)  # 0 · 1 adds nothing
    row = {**row, "c0": np.array([4.0])}
    found = sampled_shapley.sampled_shapley(score, row, {name: np.zeros(3) for name in names})[1][:, 0]
    np.testing.assert_allclose(found[:2], [4.0 + 2.0, 1.0 + 2.0], atol=1e-9)
    assert asked == 2 * sampled_shapley.predictions_per_row(12, 3) <= 2 * sampled_shapley.PREDICTIONS_PER_ROW


def test_few_columns_are_enumerated():
    """A product of three columns gets a third each: all orders are asked."""
    ones = {name: np.ones(1) for name in "abc"}

    def score(columns: Any) -> Any:
        return (columns["a"] * columns["b"] * columns["c"])[:, None]

    found = sampled_shapley.sampled_shapley(score, ones, {name: np.zeros(1) for name in "abc"})[1]
    np.testing.assert_allclose(found[:, 0], 1 / 3)


def test_nodes_that_share_a_child_are_refused_before_they_multiply():
    """A file from outside can make a graph of them, whose paths would double from level to level."""
    depth = 60
    children, none = np.append(np.arange(1, depth), [-1]), np.zeros(depth)
    tree = Tree(children, children.copy(), none.astype(np.intp), none, np.ones(depth), np.ones((depth, 1)))
    with pytest.raises(ValueError, match="not trees"):
        TreeShap([tree], 1)


def test_a_version_without_rows_to_compare_with_says_so():
    """Its remedy is a sample."""
    signature = Signature((InputColumn("a", ColumnKind.NUMBER, nullable=True),), Output(OutputKind.NUMBER))
    model = LoadedModel(version_of(signature, SelfTest((), ()), "regression"), object())
    with pytest.raises(PredictionError, match=r"no rows to compare with.*sample="):
        Explainer(model)


def test_a_table_and_a_text_of_an_explanation():
    """Rows by raw columns, of the answer or of a class, and the largest contributions."""
    frame = table(seed=5)
    model = loaded("classification", frame, target_of(frame, 2), algorithm="logistic_regression")
    found = Explainer(model).explain(model.version.signature.columns_from_rows(rows_to_explain()))
    of_answers = found.to_frame()
    assert list(of_answers.columns) == list(frame.columns.drop("constant"))
    assert of_answers.shape == (4, 6)
    np.testing.assert_allclose(found.to_frame("class 0"), -found.to_frame("class 1"))
    for row, answer in enumerate(found.predictions):
        np.testing.assert_allclose(of_answers.iloc[row], found.to_frame(answer).iloc[row])
    with pytest.raises(InvalidRequestError, match="Known classes: class 0, class 1"):
        found.to_frame("class 9")
    assert "method=linear, unit=log-odds" in repr(found)
    assert len(repr(found).splitlines()) == 5
