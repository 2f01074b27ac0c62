"""The paired bootstrap: scikit-learn's metrics, and intervals that agree with what is known about them."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from ml_core.domain.gates import LABEL_METRICS, NUMBER_METRICS, PAIRED_METRICS, PROBABILITY_METRICS
from ml_core.evaluation.paired import STATISTICS, Answers, compare, measure

CLASSES = ("a", "b", "c")


def classifier(seed, rows=200, classes=CLASSES):
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet(np.ones(len(classes)), rows)
    truth = random.choice(np.array(CLASSES), rows)
    return truth.astype(object), Answers(np.array(classes)[probabilities.argmax(axis=1)], probabilities, classes)


def regressor(seed, rows=200, noise=1.0):
    random = np.random.default_rng(seed)
    truth = random.normal(size=rows)
    return truth, Answers(truth + random.normal(size=rows) * noise)


def interval(metric, truth, new, old, **options):
    return compare(metric, truth, new, old, **{"confidence": 0.95, "resamples": 2000, "seed": 0, **options})


SKLEARN = {
    "accuracy": lambda truth, answers: sk.accuracy_score(truth, answers.predictions),
    "balanced_accuracy": lambda truth, answers: sk.balanced_accuracy_score(truth, answers.predictions),
    "f1_macro": lambda truth, answers: sk.f1_score(truth, answers.predictions, average="macro"),
    "log_loss": lambda truth, answers: sk.log_loss(truth, answers.probabilities, labels=list(answers.classes)),
    "brier_score": lambda truth, answers: sk.brier_score_loss(
        truth, answers.probabilities, labels=list(answers.classes)
    ),
    "mae": lambda truth, answers: sk.mean_absolute_error(truth, answers.predictions),
    "mse": lambda truth, answers: sk.mean_squared_error(truth, answers.predictions),
    "rmse": lambda truth, answers: sk.root_mean_squared_error(truth, answers.predictions),
    "r2": lambda truth, answers: sk.r2_score(truth, answers.predictions),
}


@pytest.mark.parametrize("metric", PAIRED_METRICS)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_metric_is_that_of_scikit_learn(metric, seed):
    """Each that a gate may name."""
    truth, answers = regressor(seed) if metric in NUMBER_METRICS else classifier(seed)
    truth = truth if metric in NUMBER_METRICS else truth.astype(str)
    assert measure(metric, truth, answers) == pytest.approx(SKLEARN[metric](truth, answers), abs=1e-12)
    assert set(STATISTICS) == set(SKLEARN) == set(PAIRED_METRICS)


def test_the_brier_score_of_two_classes_is_the_usual_one():
    """The mean squared error of one probability, as scikit-learn has it for two classes."""
    random = np.random.default_rng(0)
    p = random.random(100)
    truth = np.where(random.random(100) < p, "yes", "no")
    answers = Answers(np.where(p > 0.5, "yes", "no"), np.column_stack([1 - p, p]), ("no", "yes"))
    assert measure("brier_score", truth.astype(object), answers) == pytest.approx(
        sk.brier_score_loss(truth, p, pos_label="yes")
    )


def test_two_and_three_classes_are_compared_on_one_scale():
    """A third class that never happens, and has no probability, makes a model neither better nor worse."""
    random = np.random.default_rng(0)
    truth = random.choice(np.array(["a", "b"]), 400).astype(object)
    p = np.where(truth == "a", 0.8, 0.2) * random.random(400)
    labels = np.where(p > 0.5, "a", "b")
    two = Answers(labels, np.column_stack([p, 1 - p]), ("a", "b"))
    three = Answers(labels, np.column_stack([p, 1 - p, np.zeros(400)]), ("a", "b", "c"))
    for metric in PROBABILITY_METRICS:
        for pair in ((two, three), (three, two)):
            found = interval(metric, truth, *pair)
            assert (found.low, found.difference, found.high) == pytest.approx((0, 0, 0))
            assert found.candidate == found.present == pytest.approx(measure(metric, truth, three))
    assert interval("brier_score", truth, two, two).candidate == measure("brier_score", truth, two)


@pytest.mark.parametrize("metric", ["balanced_accuracy", "f1_macro", "r2", "rmse"])
def test_a_metric_of_many_resamples_is_that_of_each(metric):
    """What is computed for all at once equals a loop, also where a resample lacks a class."""
    truth, answers = regressor(3, rows=8) if metric in NUMBER_METRICS else classifier(3, rows=8)
    draws = np.random.default_rng(1).integers(0, 8, (50, 8))
    looped = [measure(metric, truth[rows], Answers(answers.predictions[rows])) for rows in draws]
    if metric in LABEL_METRICS:
        codes = {label: code for code, label in enumerate(CLASSES)}
        arrays = [np.array([codes[label] for label in labels]) for labels in (truth, answers.predictions)]
    else:
        error = np.square(truth - answers.predictions)
        arrays = [truth, error] if metric == "r2" else [error]
    together = STATISTICS[metric](*(array[draws] for array in arrays))
    np.testing.assert_allclose(together, looped)


def test_an_interval_of_means_agrees_with_the_normal_one():
    """The bootstrap of a mean of many differences is the textbook's interval, within the resamples' own noise."""
    truth, new = regressor(0, rows=5000, noise=1.0)
    old = Answers(truth + np.random.default_rng(9).normal(size=5000) * 1.1)
    found = interval("mae", truth, new, old, resamples=10_000)
    differences = np.abs(truth - old.predictions) - np.abs(truth - new.predictions)
    error = differences.std(ddof=1) / np.sqrt(5000)
    low, high = stats.norm.interval(0.95, differences.mean(), error)
    assert found.difference == pytest.approx(differences.mean())
    assert found.low == pytest.approx(low, abs=0.1 * error)
    assert found.high == pytest.approx(high, abs=0.1 * error)


def test_the_interval_is_that_of_percentiles():
    """Of skewed differences its ends are the quantiles of a plain loop; other intervals are turned round."""
    random = np.random.default_rng(4)
    truth = np.zeros(30)
    new, old = Answers(np.zeros(30)), Answers(random.exponential(size=30) ** 2)
    found = interval("mse", truth, new, old, resamples=20_000)
    gains = np.square(old.predictions)[random.integers(0, 30, (20_000, 30))].mean(axis=1)
    low, high = np.quantile(gains, [0.025, 0.975])
    noise = (high - low) / 40
    assert found.low == pytest.approx(low, abs=noise)
    assert found.high == pytest.approx(high, abs=noise)
    assert abs((high + low) / 2 - found.difference) > 3 * noise


def test_the_interval_covers_the_truth_as_often_as_it_says():
    """Of 300 samples whose true difference is known, about 90 in 100 intervals hold it."""
    random = np.random.default_rng(5)
    covered = 0
    for seed in range(300):
        truth = random.random(200) < 0.5
        right_new, right_old = random.random(200) < 0.8, random.random(200) < 0.7
        new, old = (Answers(np.where(right, truth, ~truth)) for right in (right_new, right_old))
        found = interval("accuracy", truth, new, old, confidence=0.9, resamples=1000, seed=seed)
        covered += found.low <= 0.1 <= found.high
    # Three standard errors of a share of 300: 0.9 ± 0.052.
    assert 0.848 <= covered / 300 <= 0.952


def test_pairs_are_kept_together():
    """Two models that err on the same rows differ by little, however much both vary: the interval says so."""
    random = np.random.default_rng(2)
    truth = random.normal(size=500)
    common = random.normal(size=500)
    new, old = Answers(truth + common), Answers(truth + common + 0.01 * random.normal(size=500))
    found = interval("mse", truth, new, old)
    alone = np.square(common).std() / np.sqrt(500)
    assert found.high - found.low < alone / 10


@pytest.mark.parametrize("metric", ["accuracy", "log_loss"])
def test_positive_is_better_whichever_way_the_metric_goes(metric):
    """The better of two classifiers has the positive difference, and swapping them turns the interval round."""
    truth = np.array(["a", "b"] * 100, dtype=object)
    good = np.where(truth == "a", 0.8, 0.3)
    bad = np.random.default_rng(0).random(200)
    sides = [Answers(np.where(p > 0.5, "a", "b"), np.column_stack([p, 1 - p]), ("a", "b")) for p in (good, bad)]
    better, worse = interval(metric, truth, *sides), interval(metric, truth, *sides[::-1])
    assert better.low > 0
    assert worse.difference == pytest.approx(-better.difference)
    assert (worse.low, worse.high) == pytest.approx((-better.high, -better.low))


def test_the_seed_makes_it_the_same_again():
    """A gate that is asked twice answers alike; another seed draws otherwise."""
    truth, new = regressor(0)
    old = Answers(truth + 1.0)
    assert interval("mae", truth, new, old) == interval("mae", truth, new, old)
    assert interval("mae", truth, new, old) != interval("mae", truth, new, old, seed=1)


def test_labels_are_one_whatever_their_type():
    """1 of a Parquet file, 1.0 beside a missing value and "1" of a CSV; true and True."""
    answers = Answers(np.array(["1", "2", "1"]))
    assert measure("accuracy", np.array([1.0, 2.0, 2.0], dtype=object), answers) == pytest.approx(2 / 3)
    assert measure("accuracy", np.array([True, False], dtype=object), Answers(np.array([True, True]))) == 0.5


def test_a_class_that_a_model_does_not_know_costs_it_the_most():
    """Its probability is none, so the loss is the greatest that there is."""
    truth = np.array(["a", "c"], dtype=object)
    answers = Answers(np.array(["a", "a"]), np.array([[1.0, 0.0], [1.0, 0.0]]), ("a", "b"))
    assert measure("log_loss", truth, answers) == pytest.approx(-np.log(np.finfo(float).eps) / 2)
    assert measure("brier_score", truth, answers) == pytest.approx(0.5)
