"""What a replica counts for its reports."""

from __future__ import annotations

import pytest

from ml_core.domain.traffic import INTERVAL_S, INTERVALS
from ml_core.inference.traffic import TrafficCounter

PREDICT = "/t/{tenant}/models/{model}/predict"


class Clock:
    """Seconds since 1970 that a test moves."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """At the beginning of an interval."""
    return Clock()


@pytest.fixture
def counter(clock) -> TrafficCounter:
    """A counter by that clock."""
    return TrafficCounter(clock)


def ask(counter, *statuses, seconds=0.002, route=PREDICT):
    for status in statuses:
        counter.request_ended(route, status, seconds, "acme")


def test_requests_are_counted_by_outcome(counter, clock):
    """Once their interval has ended, and once only."""
    ask(counter, 200, 200, 422, 429, 499, 503)
    assert counter.take() == []
    clock.now += INTERVAL_S
    (interval,) = counter.take()
    assert (interval.answered, interval.refused, interval.failed, sum(interval.latency)) == (2, 3, 1, 2)
    assert interval.at.timestamp() == 1_000_000
    assert counter.take() == []


def test_health_checks_are_not_counted(counter, clock):
    """Nor paths that do not exist: nobody asked a tenant's model."""
    ask(counter, 200, route="/healthz")
    ask(counter, 404, route="unmatched")
    clock.now += INTERVAL_S
    assert counter.take() == []


def test_intervals_without_requests_are_left_out(counter, clock):
    """An idle replica writes nothing."""
    ask(counter, 200)
    clock.now += 5 * INTERVAL_S
    ask(counter, 200)
    clock.now += INTERVAL_S
    assert [int(each.at.timestamp()) for each in counter.take()] == [1_000_000, 1_000_000 + 5 * INTERVAL_S]


@pytest.mark.parametrize("ended_meanwhile", [0, 3, INTERVALS])
def test_what_was_given_back_is_taken_again_in_order(counter, clock, ended_meanwhile):
    """While the registry is away; at most as many as are shown, the newest."""

    def go_on(intervals):
        for _ in range(intervals):
            ask(counter, 200)
            clock.now += INTERVAL_S

    go_on(INTERVALS + 5)
    taken = counter.take()
    assert len(taken) == INTERVALS
    go_on(ended_meanwhile)
    counter.give_back(taken)
    again = counter.take()
    assert len(again) == INTERVALS
    moments = [each.at for each in again]
    assert moments == sorted(set(moments))
    assert moments[-1].timestamp() == clock.now - INTERVAL_S
