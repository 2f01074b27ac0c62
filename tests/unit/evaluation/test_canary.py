"""The decision on a canary: how often it is wrong, and how small a difference it finds."""

from __future__ import annotations

import numpy as np
import pytest

from ml_core.domain.quality import Score
from ml_core.domain.retraining import Decision, OnDrift, Retraining, decide, reason_of
from ml_core.evaluation.live import worse_by
from ml_core.ids import JobId

JOB = JobId("job_" + "0" * 16)
RULE = OnDrift()


def tried(random: np.random.Generator, stable: float, canary: float, labels: int) -> Decision:
    """The first decision while labels arrive one by one, looked at as often as a control loop likes."""
    right = [np.cumsum(random.random(labels) < share) for share in (canary, stable)]
    state = Retraining(JOB)
    for count in range(1, labels + 1):
        if state.is_due(count, RULE):
            scores = [Score("accuracy", hits[count - 1] / count, count) for hits in right]
            if (found := decide(worse_by(*scores))) is not Decision.WAIT:
                return found
            state = Retraining(JOB, count)
    return Decision.WAIT


def test_equal_versions_are_seldom_told_apart() -> None:
    """Of 600 trials of 10,000 labels, at most one in fifteen ends, and about as many by an abort as by a promotion."""
    random = np.random.default_rng(0)
    found = [tried(random, 0.85, 0.85, 10_000) for _ in range(600)]
    assert sum(each is not Decision.WAIT for each in found) <= 40
    assert found.count(Decision.FINISH) <= 25


@pytest.mark.parametrize(("canary", "expected"), [(0.88, Decision.FINISH), (0.82, Decision.ABORT)])
def test_three_points_are_found(canary, expected) -> None:
    """Nearly always, and never the wrong way round."""
    random = np.random.default_rng(1)
    found = [tried(random, 0.85, canary, 10_000) for _ in range(100)]
    assert found.count(expected) >= 95
    assert set(found) <= {expected, Decision.WAIT}


def test_nothing_is_decided_on_few_labels() -> None:
    """However different they look."""
    assert not Retraining(JOB).is_due(RULE.min_labels - 1, RULE)
    assert tried(np.random.default_rng(2), 0.1, 0.9, RULE.min_labels - 1) is Decision.WAIT
    assert decide(None) is Decision.WAIT


def test_a_rule_is_read_back() -> None:
    """As it is stored with a schedule."""
    assert OnDrift.from_json(OnDrift(days=3, collect_labels=True).to_json()) == OnDrift(days=3, collect_labels=True)
    assert reason_of("nightly", JOB).startswith("retraining nightly: job job_")
