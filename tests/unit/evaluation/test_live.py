"""Live scores: the same as those of training, and compared by intervals."""

from __future__ import annotations

import numpy as np
import pytest
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from ml_core.domain.quality import Score, Verdict
from ml_core.evaluation import metrics
from ml_core.evaluation.live import (
    MIN_LABELS,
    LabelCount,
    interval,
    judge,
    measure_classes,
    measure_numbers,
    worse_by,
)


def test_counted_rows_have_the_metrics_of_training() -> None:
    """Exactly, with a label that the model never answers and an answer that is never true."""
    random = np.random.default_rng(0)
    truth, answered = random.choice(list("abcd"), 500), random.choice(list("abce"), 500)
    pairs, rows = np.unique(np.array([answered, truth]), axis=1, return_counts=True)
    counts = [LabelCount(*map(str, pair), int(n)) for pair, n in zip(pairs.T, rows, strict=True)]
    values, score = measure_classes(counts)
    assert values == metrics.classification(truth, answered, None, np.array(list("abce")))
    assert score == Score("accuracy", values["accuracy"], 500)
    assert measure_classes([]) is None


def test_numbers_are_measured_as_in_training() -> None:
    """And what no float holds has no score, instead of an error."""
    random = np.random.default_rng(0)
    truth, answered = random.normal(size=90), random.normal(size=90)
    values, score = measure_numbers(truth, answered)
    assert values == metrics.regression(truth, answered)
    assert (score.value, score.rows, score.std) == (
        values["mae"],
        90,
        pytest.approx(np.abs(truth - answered).std(ddof=1)),
    )
    assert measure_numbers(np.array([1e308, 1.0]), np.array([-1e308, 1.0])) is None
    assert measure_numbers(np.array([]), np.array([])) is None


@pytest.mark.parametrize(("right", "rows"), [(30, 30), (0, 40), (17, 31), (930, 1000)])
def test_the_interval_of_an_accuracy_is_that_of_wilson(right, rows) -> None:
    """As statsmodels has it."""
    expected = proportion_confint(right, rows, 0.05, "wilson")
    assert interval(Score("accuracy", right / rows, rows)) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(("now", "before"), [((70, 100), (95, 110)), ((30, 30), (25, 40)), ((900, 1000), (45, 50))])
def test_a_difference_of_accuracies_is_that_of_newcombe(now, before) -> None:
    """As statsmodels has it."""
    low, high = worse_by(*(Score("accuracy", right / rows, rows) for right, rows in (now, before)))
    expected = confint_proportions_2indep(*before, *now, method="newcomb", alpha=0.01)
    assert (low, high) == pytest.approx(expected, abs=1e-4)


def test_an_alert_takes_a_loss_beyond_chance_and_tolerance() -> None:
    """Few labels, a small loss, or too few held-out rows to know are none."""

    def verdict(now, rows, before=0.9, held_out=1000):
        return judge(Score("accuracy", now, rows), Score("accuracy", before, held_out))

    assert verdict(0.7, 500) is Verdict.ALERT
    assert verdict(0.7, MIN_LABELS - 1) is Verdict.UNKNOWN
    assert verdict(0.8, 40) is Verdict.OK
    assert verdict(0.87, 100_000, held_out=100_000) is Verdict.OK
    assert verdict(0.7, 500, held_out=12) is Verdict.OK
    assert judge(Score("accuracy", 0.1, 500), None) is Verdict.UNKNOWN
    assert judge(Score("mae", 2.0, 500, 1.0), Score("mae", 1.0, 300)) is Verdict.ALERT
    assert judge(Score("mae", 1.05, 100_000, 1.0), Score("mae", 1.0, 100_000)) is Verdict.OK


def test_a_model_that_lost_nothing_seldom_raises_an_alert() -> None:
    """Of 2,000 days with a live accuracy equal to that of the held-out rows: at most one in two hundred."""
    random, alerts = np.random.default_rng(3), 0
    for _ in range(2_000):
        share = random.uniform(0.6, 0.99)
        scores = [Score("accuracy", random.binomial(n, share) / n, n) for n in (int(random.integers(30, 400)), 60)]
        alerts += judge(*scores) is Verdict.ALERT
    assert alerts <= 10
