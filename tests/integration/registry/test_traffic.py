"""What replicas answered, as the platform and a tenant see it."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest

from ml_core.domain.tenant_policies import PredictionPolicy
from ml_core.domain.traffic import BUCKETS, INTERVAL_S, Interval, bucket_of, shown_intervals
from ml_core.registry.predictions import PredictionRepository
from ml_core.registry.replicas import ReplicaReports, cell_traffic
from support.predictions import answered, write
from support.registry import superuser
from support.replicas import running_replica
from support.waiting import wait_until


@pytest.fixture
def cell(tenant_id) -> str:
    """A cell of this test."""
    return f"t-{tenant_id}"


def interval(at, answered=0, refused=0, failed=0, seconds=0.004):
    latency = [0] * BUCKETS
    latency[bucket_of(seconds)] = answered
    return Interval(at, answered, refused, failed, latency)


def test_replicas_of_a_cell_add_up(db, cell):
    """By interval; where nothing was asked there are zeros, and what was written twice counts once."""
    *_, before, last = shown_intervals(datetime.now(UTC))
    one, other = ReplicaReports(db, "one", cell), ReplicaReports(db, "other", cell)
    one.add_traffic([interval(before, 10), interval(last, 30, refused=10)])
    one.add_traffic([interval(last, 30, refused=10)])
    other.add_traffic([interval(last, 50, failed=10)])
    points = {each.at: each for each in cell_traffic(db)[cell]}
    assert (points[before].requests_per_s, points[before].errors_per_s) == (1.0, 0.0)
    point = points[last]
    assert (point.requests_per_s, point.refused_per_s, point.errors_per_s) == (10.0, 1.0, 1.0)
    assert 2.5 < point.p50_ms < point.p99_ms <= 5
    assert points[min(points)].requests_per_s == 0
    assert points[min(points)].p50_ms is None


def test_many_replicas_are_added_up_by_postgres(db, cell):
    """Few rows are read, whatever their number; of many cells the busiest are shown, the busiest first."""
    last = shown_intervals(datetime.now(UTC))[-1]
    for number in range(3):
        ReplicaReports(db, "one", f"{cell}-{number}").add_traffic([interval(last, 10**9 * (number + 1))])
        ReplicaReports(db, "other", f"{cell}-{number}").add_traffic([interval(last, 1)])
    with superuser(db) as session:
        session.execute(
            "INSERT INTO mlcore.replica_traffic SELECT %s || n %% 60, 'r' || n, %s, 1, 0, 0, array_fill(1, ARRAY[15])"
            " FROM generate_series(1, 600) n",
            [f"{cell}-x", last],
        )
    try:
        found = cell_traffic(db)
        assert list(found)[:3] == [f"{cell}-{number}" for number in (2, 1, 0)]
        assert len(found) == 50
        assert found[f"{cell}-2"][-1].requests_per_s == pytest.approx((3 * 10**9 + 1) / INTERVAL_S)
        assert found[f"{cell}-x1"][-1].requests_per_s == 1.0
    finally:
        with superuser(db) as session:
            session.execute("DELETE FROM mlcore.replica_traffic WHERE cell LIKE %s", [f"{cell}-%"])


def test_a_quarter_of_an_hour_is_kept(db, cell):
    """Whoever reports removes what is older, of all cells: the table does not grow."""
    now = datetime.now(UTC)
    old = now - timedelta(minutes=16)
    ReplicaReports(db, "gone", cell).add_traffic([interval(old, 1)])
    ReplicaReports(db, "new", cell).add_traffic([interval(now, 1)])
    with superuser(db) as session:
        rows = session.execute("SELECT replica_id FROM mlcore.replica_traffic WHERE cell = %s", [cell]).fetchall()
    assert rows == [("new",)]


def test_a_cell_without_requests_is_not_listed(db, cell):
    """It costs no row."""
    assert cell not in cell_traffic(db)


def test_a_replica_reports_what_it_answered(db, cell, monkeypatch):
    """A few seconds after the interval has ended, without a change of what it serves."""
    with running_replica(db, "busy", cell) as replica:
        traffic = replica.reporter._traffic
        moved = 2 * INTERVAL_S
        monkeypatch.setattr(traffic, "_clock", lambda: time.time() - moved)
        traffic._begin(traffic._now())
        for status in (200, 200, 503):
            traffic.request_ended("/t/{tenant}/models/{model}/predict", status, 0.004, "acme")
        monkeypatch.setattr(traffic, "_clock", time.time)
        points = wait_until(lambda: cell_traffic(db).get(cell))
    assert sum(each.requests_per_s for each in points) == pytest.approx(3 / INTERVAL_S)
    assert sum(each.errors_per_s for each in points) == pytest.approx(1 / INTERVAL_S)


def test_a_tenants_traffic_is_counted_from_its_log(db, tenant_id, other_tenant_id):
    """Requests, not rows; and of nobody else."""
    predictions = PredictionRepository(db, tenant_id)
    assert predictions.traffic() == []
    at = shown_intervals(datetime.now(UTC))[-2].timestamp() + 1
    rows = [{"text": "hello", "amount": 1.5, "is_paying": True, "opened": "2026-02-01"}] * 3
    write(db, *(answered(tenant_id, rows, request_id=f"r{n}", at=at) for n in range(20)))
    write(db, answered(other_tenant_id, request_id="r", at=at))
    asked = [each for each in predictions.traffic() if each.requests_per_s]
    assert [each.requests_per_s for each in asked] == [2.0]
    assert asked[0].at == datetime.fromtimestamp(at - 1, UTC)
    assert (asked[0].errors_per_s, asked[0].refused_per_s) == (None, None)
    assert asked[0].p50_ms > 0


def test_a_tenant_that_keeps_nothing_has_no_traffic(db, tenant_id):
    """What is not in the log is not guessed."""
    PredictionRepository(db, tenant_id).set_policy(PredictionPolicy.NOTHING)
    write(db, answered(tenant_id, at=time.time() - 60))
    assert PredictionRepository(db, tenant_id).traffic() == []
