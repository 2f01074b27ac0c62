"""Latency in buckets, and the intervals that are shown."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_core.domain.traffic import BUCKETS, INTERVAL_S, INTERVALS, Interval, bucket_of, point_of, shown_intervals
from ml_core.observability.metrics import REQUEST_SECONDS

NOON = datetime(2026, 12, 1, 12, tzinfo=UTC)
BOUNDS = np.array(REQUEST_SECONDS.buckets)
counts = st.lists(st.integers(0, 1000), min_size=BUCKETS, max_size=BUCKETS)


def interval(latency, refused=0, failed=0):
    return Interval(NOON, sum(latency), refused, failed, latency)


def test_the_buckets_are_those_of_the_metric():
    """So the console and Prometheus tell the same."""
    assert len(BOUNDS) + 1 == BUCKETS
    for bucket, bound in enumerate(BOUNDS):
        assert (bucket_of(bound), bucket_of(bound * 1.001)) == (bucket, bucket + 1)


@given(st.lists(st.floats(1e-5, 9.0), min_size=1, max_size=200), st.sampled_from([0.5, 0.9, 0.99]))
def test_a_quantile_is_within_the_bucket_of_the_true_one(durations, share):
    """Which is as exact as buckets are."""
    latency = np.bincount([bucket_of(each) for each in durations], minlength=BUCKETS).tolist()
    true = np.sort(durations)[int(np.ceil(share * len(durations))) - 1]
    found = interval(latency).quantile_ms(share) / 1000
    bucket = bucket_of(true)
    low, high = np.concatenate([[0.0], BOUNDS])[bucket], BOUNDS[min(bucket, len(BOUNDS) - 1)]
    assert low <= found <= high * (1 + 1e-9)


@given(counts)
def test_quantiles_rise(latency):
    """None where nothing was answered; never above the last bound."""
    found = [interval(latency).quantile_ms(share) for share in (0.1, 0.5, 0.9, 0.99, 1.0)]
    if not sum(latency):
        assert found == [None] * 5
    else:
        assert found == sorted(found)
        assert found[-1] <= 1000 * BOUNDS[-1]


@given(counts, st.integers(0, 9), st.integers(0, 9))
def test_a_point_has_all_requests(latency, refused, failed):
    """Those that were refused and that failed, too."""
    point = point_of(interval(latency, refused, failed))
    assert point.requests_per_s == pytest.approx((sum(latency) + refused + failed) / INTERVAL_S)
    assert (point.refused_per_s, point.errors_per_s) == (refused / INTERVAL_S, failed / INTERVAL_S)


@given(st.datetimes(NOON.replace(tzinfo=None), timezones=st.just(UTC)))
def test_the_present_is_not_shown(now):
    """Nor the interval before it, which replicas may still report; the oldest is not yet deleted."""
    shown = shown_intervals(now)
    assert len(shown) == INTERVALS - 2
    assert (
        timedelta(seconds=INTERVAL_S)
        <= now - (shown[-1] + timedelta(seconds=INTERVAL_S))
        < timedelta(seconds=2 * INTERVAL_S)
    )
    assert {later - earlier for earlier, later in pairwise(shown)} == {timedelta(seconds=INTERVAL_S)}
    assert shown[0] > now - timedelta(seconds=INTERVALS * INTERVAL_S)
