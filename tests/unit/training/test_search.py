"""What a search does without Ray: spaces against estimators, proposals, and cross-validation without a leak."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

from ml_core.domain.columns import take
from ml_core.domain.signature import OutputKind
from ml_core.domain.train_spec import TrainSpec
from ml_core.domain.tune_spec import Sampler, TuneSpec
from ml_core.evaluation.metrics import answer, evaluate
from ml_core.exceptions import ConfigurationError, InvalidRequestError, MLFrameworkError, TrainingError
from ml_core.ids import ModelId
from ml_core.models.algorithms import ALGORITHMS, CLASSIFICATION, REGRESSION
from ml_core.training import spaces as module
from ml_core.training.cross_validation import Objective, divide_into_folds, encoded_folds, rungs_of
from ml_core.training.encoding import encoding_steps
from ml_core.training.request import TrainingRequest
from ml_core.training.samplers import Proposals, key_of
from ml_core.training.spaces import check_search, spaces_of
from ml_core.training.table import TrainingTable, read_training_table
from support.tables import split_target, tickets

NO_SPACE = {"linear_regression"}  # it has nothing to search for


@pytest.mark.parametrize(("model_type", "algorithm"), [(kind, name) for kind, of in ALGORITHMS.items() for name in of])
def test_each_algorithm_has_a_space_that_its_estimator_takes(model_type, algorithm) -> None:
    """So a search needs no space."""
    search = TuneSpec(algorithm=algorithm)
    if algorithm in NO_SPACE:
        with pytest.raises(TrainingError, match="no default space"):
            spaces_of(search, model_type, {})
    else:
        assert spaces_of(search, model_type, {})[algorithm]


@pytest.mark.parametrize(
    ("search", "training", "said"),
    [
        ({"algorithm": "gradient_bosting"}, {}, "Did you mean gradient_boosting"),
        ({"algorithm": "random_forest", "space": {"max_dept": "2..9"}}, {}, "Did you mean max_depth"),
        (
            {"algorithm": "random_forest", "space": {"max_depth": "0..9"}},
            {},
            "The space of 'max_depth' holds 0. A hyper",
        ),
        ({"algorithm": "random_forest", "space": {"criterion": ["gini", "gin"]}}, {}, "holds 'gin'"),
        ({"algorithm": "logistic_regression", "space": {"C": "0.1..1"}, "sampler": "grid"}, {}, "has no step"),
        ({"algorithm": "random_forest", "sampler": "grid"}, {}, "needs a space of its own"),
        (
            {"algorithm": "random_forest", "space": {"max_depth": "1..90"}, "sampler": "grid", "trials": 9},
            {},
            "90 configurations, more than 9 trials",
        ),
        ({"metric": "rmse"}, {"model_type": CLASSIFICATION}, "does not fit classification"),
        ({"metric": "silhouette"}, {}, "does not fit"),
        ({"algorithm": "linear_svm", "metric": "log_loss"}, {}, "needs probabilities"),
        ({}, {"model_type": "classifcation"}, "Did you mean classification"),
        ({}, {"hyperparameters": {"algorithm": "ridge"}}, "Give the algorithm as a field of the search"),
        ({"algorithm": "decision_tree"}, {"hyperparameters": {"max_dept": 3}}, "Did you mean max_depth"),
        (
            {"algorithm": "decision_tree", "space": {"max_depth": "2..9"}},
            {"hyperparameters": {"max_depth": 3}},
            "both fixed and searched",
        ),
    ],
)
def test_what_can_be_known_is_refused(search, training, said) -> None:
    """Without the data, and each with its words."""
    with pytest.raises(MLFrameworkError) as refused:
        check_search(TuneSpec.from_json(search), TrainSpec.from_json(training))
    assert said in str(refused.value)


def test_a_search_without_a_model_type_may_be_of_either() -> None:
    """What only a regression has is no mistake."""
    check_search(TuneSpec(algorithm="lasso", metric="mae"), TrainSpec())
    check_search(TuneSpec(metric="f1_macro"), TrainSpec())


def test_optuna_is_an_extra(monkeypatch) -> None:
    """Its absence is said with the line that installs it."""
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r'pip install "ml-core-platform\[search\]"'):
        check_search(TuneSpec(), TrainSpec())
    check_search(TuneSpec(sampler=Sampler.RANDOM), TrainSpec())


SPACE = {"max_depth": "1..4", "criterion": ["gini", "entropy"]}


def proposals_of(search: TuneSpec, done: int = 0) -> Proposals:
    return Proposals(search, CLASSIFICATION, spaces_of(search, CLASSIFICATION, {}), done)


def all_of(proposals: Proposals) -> list[dict]:
    return [dict(each) for each in islice(iter(proposals.propose, None), 500)]


@pytest.mark.parametrize("sampler", list(Sampler))
@pytest.mark.parametrize("n_done", [0, 1, 5, 8])
def test_a_finite_space_is_proposed_once_whatever_was_done_before(sampler, n_done) -> None:
    """The rest of eight configurations follows, and then nothing."""
    search = TuneSpec(algorithm="decision_tree", space=SPACE, sampler=sampler)
    done = all_of(proposals_of(search))[:n_done]
    again = proposals_of(search, n_done)
    for index, configuration in enumerate(done):
        again.learn(configuration, {} if index == 0 else {100: index}, is_complete=index % 2 == 0 and index > 0)
    found = all_of(again)
    assert len({key_of(each) for each in [*done, *found]}) == len(done) + len(found) == 8


def test_random_configurations_are_a_function_of_the_seed() -> None:
    """Those that follow are the same, whether the first ones were done in another attempt or not."""
    search = TuneSpec(sampler=Sampler.RANDOM, seed=3)
    first, rest = proposals_of(search), proposals_of(search, 4)
    known = [first.propose() for _ in range(9)]
    for configuration in known[:4]:
        rest.learn(configuration, {50: 0.5}, is_complete=True)
    assert [rest.propose() for _ in range(5)] == known[4:]
    assert {each["algorithm"] for each in known} == {"logistic_regression", "gradient_boosting", "random_forest"}
    other = proposals_of(TuneSpec(sampler=Sampler.RANDOM, seed=4))
    assert [other.propose() for _ in range(9)] != known


def test_optuna_learns_from_what_was_done_before() -> None:
    """After results that get better with C, it proposes a large C."""
    search = TuneSpec(algorithm="logistic_regression", sampler=Sampler.OPTUNA)
    proposals = proposals_of(search, 40)
    for value in np.geomspace(0.001, 90, 40):
        proposals.learn({"algorithm": "logistic_regression", "C": float(value)}, {90: value}, is_complete=True)
    proposals.propose()  # the estimator's own
    assert np.median([proposals.propose()["C"] for _ in range(10)]) > 10


def request_of(frame: pd.DataFrame, target: str, model_type: str = CLASSIFICATION) -> TrainingRequest:
    return TrainingRequest(ModelId("m"), model_type, split_target(frame, target))


def table_of(request: TrainingRequest, output: OutputKind = OutputKind.CLASSES) -> TrainingTable:
    return read_training_table(request, output)


def test_a_trial_equals_the_pipeline_refitted_on_each_fold() -> None:
    """Text, dates, categories and missing values: the encoding that is done once is that of the pipeline."""
    request = request_of(tickets(200), "category")
    table = table_of(request)
    folds = divide_into_folds(table, OutputKind.CLASSES, 4, 0)
    columns, target = table.train.columns, table.train.target
    expected = []
    for train, test in folds:
        steps = [
            *encoding_steps(request, table, takes_sparse=True),
            ("estimate", LogisticRegression(C=0.3, max_iter=1000, random_state=42)),
        ]
        pipeline = Pipeline(steps).fit(take(columns, train), target[train])
        answered = answer(pipeline, take(columns, test), OutputKind.CLASSES)
        expected.append(evaluate(pipeline[-1], answered, target[test], OutputKind.CLASSES)["log_loss"])
    objective = Objective(CLASSIFICATION, OutputKind.CLASSES, "log_loss", {})
    encoded = list(encoded_folds(request, table, folds, takes_sparse=True))
    configuration = {"algorithm": "logistic_regression", "C": 0.3}
    found = objective.mean([objective.measure(fold, configuration, 1.0) for fold in encoded])
    assert found["log_loss"] == pytest.approx(np.mean(expected), rel=1e-12)
    assert found["std"] == pytest.approx(np.std(expected), rel=1e-9)
    whole, third = (objective.measure(encoded[0], configuration, share)["log_loss"] for share in (1.0, 1 / 3))
    assert third != whole == pytest.approx(expected[0], rel=1e-12)


@pytest.mark.parametrize("folds", [2, 3, 5])
def test_folds_are_disjoint_and_keep_equal_rows_together(folds) -> None:
    """Each row is measured once, and each beginning of the rows to fit on has every class."""
    frame = tickets(300)
    table = table_of(request_of(pd.concat([frame, frame.iloc[:90]]), "category"))
    divided = divide_into_folds(table, OutputKind.CLASSES, folds, 1)
    assert sorted(np.concatenate([test for _, test in divided])) == list(range(table.train.n_rows))
    texts = table.train.columns["subject"].astype(str) + table.train.columns["opened"].astype(str)
    for train, test in divided:
        assert not set(train) & set(test)
        assert not set(texts[train]) & set(texts[test])
        target = table.train.target
        assert set(target[train[: len(train) // 9]]) == set(target)
    again = divide_into_folds(table, OutputKind.CLASSES, folds, 1)
    assert all(
        np.array_equal(a, b) for one, two in zip(divided, again, strict=True) for a, b in zip(one, two, strict=True)
    )


def test_too_few_rows_of_a_class_are_refused_with_its_name() -> None:
    """A fold without the class could not measure it."""
    frame = pd.concat([tickets(100), tickets(4).assign(category="rare")])
    request = request_of(frame, "category")
    with pytest.raises(
        TrainingError, match=r"The class rare has 3 rows.*fewer than 5 folds.*folds=3.*rare_classes=drop"
    ):
        divide_into_folds(table_of(request), OutputKind.CLASSES, 5, 0)
    numbers = pd.DataFrame({"x": range(12), "y": np.linspace(0, 1, 12)})
    table = table_of(request_of(numbers, "y", REGRESSION), OutputKind.NUMBER)
    with pytest.raises(TrainingError, match="for 11 folds"):
        divide_into_folds(table, OutputKind.NUMBER, 11, 0)


def test_a_metric_that_a_fold_has_not_fails_the_trial() -> None:
    """Three classes have no roc_auc."""
    request = request_of(tickets(120), "category")
    table = table_of(request)
    folds = list(encoded_folds(request, table, divide_into_folds(table, OutputKind.CLASSES, 3, 0), takes_sparse=True))
    with pytest.raises(TrainingError, match="'roc_auc' is not defined on a fold"):
        Objective(CLASSIFICATION, OutputKind.CLASSES, "roc_auc", {}).measure(
            folds[0], {"algorithm": "decision_tree"}, 1
        )


def test_few_rows_say_nothing() -> None:
    """So a small table is measured on all of its rows and folds at once, and so is any on demand."""
    assert [(rung.share, rung.folds, rung.rows) for rung in rungs_of(2_700, 5, early_stopping=True)] == [
        (1 / 9, 1, 300),
        (1 / 3, 1, 900),
        (1.0, 1, 2_700),
        (1.0, 5, 2_700),
    ]
    assert [rung.cost for rung in rungs_of(2_699, 5, early_stopping=True)] == [900, 2_699, 5 * 2_699]
    assert [rung.cost for rung in rungs_of(899, 5, early_stopping=True)] == [899, 5 * 899]
    assert [rung.cost for rung in rungs_of(399, 5, early_stopping=True)] == [5 * 399]
    assert [rung.cost for rung in rungs_of(9_000, 2, early_stopping=False)] == [18_000]


@given(st.integers(1, 10**7), st.integers(2, 100), st.booleans())
def test_each_rung_costs_more_than_the_one_before(n_rows: int, folds: int, early_stopping: bool) -> None:
    """The cost is what tells them apart in the registry; the last one is all."""
    rungs = rungs_of(n_rows, folds, early_stopping=early_stopping)
    costs = [rung.cost for rung in rungs]
    assert costs == sorted(set(costs))
    assert (rungs[-1].share, rungs[-1].folds, rungs[-1].rows) == (1.0, folds, n_rows)


def test_a_grid_and_a_space_that_is_empty_are_no_default() -> None:
    """A space of the caller's own replaces the default."""
    found = spaces_of(TuneSpec(algorithm="random_forest", space={"max_depth": "2..3"}), CLASSIFICATION, {})
    assert list(found["random_forest"]) == ["max_depth"]
    rest = spaces_of(TuneSpec(algorithm="random_forest"), CLASSIFICATION, {"n_estimators": 10})
    assert "n_estimators" not in rest["random_forest"]
    with pytest.raises(InvalidRequestError):
        TuneSpec(space={"C": "1..2"})
