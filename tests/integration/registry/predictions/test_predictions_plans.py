"""No query of the prediction log reads a day from end to end."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from ml_core.database.connection import DatabaseConnection
from ml_core.ids import TenantId
from ml_core.registry.predictions import PredictionRepository
from ml_core.registry.predictions.live import LiveRows, Window
from ml_core.registry.predictions.retention import list_partitions
from support.plans import recorded_plans
from support.predictions import today
from support.registry import settings_for, superuser, temporary_home

DAYS, ROWS_A_DAY, TENANT = 5, 20_000, TenantId("t07")

# A fiftieth of the rows are the tenant's, of four models; each day has a version of its own.
FILL = """
INSERT INTO mlcore.predictions (tenant_id, request_id, row_number, at, model_id, version, environment, rollout,
  input_digest, prediction, latency_ms)
SELECT 't' || lpad((n %% 50)::text, 2, '0'), md5(n::text || %(back)s), 0,
  %(day)s::timestamptz + n * interval '1 day' / %(rows)s, 'm' || (n / 50 %% 4), (%(back)s + 1)::text, 'production',
  'stable', '', '1', 1 FROM generate_series(0, %(rows)s - 1) n
"""


@pytest.fixture(scope="module")
def filled() -> Iterator[DatabaseConnection]:
    """A registry with some days of predictions of fifty tenants."""
    with temporary_home() as home, DatabaseConnection(settings=settings_for(home)) as db:
        with db.maintaining() as connection, superuser(db) as session:
            for back in range(DAYS):
                day = today() - timedelta(days=back)
                connection.execute(sa.text("SELECT mlcore.create_prediction_partition(:day)"), {"day": day})
            connection.commit()
            for back in range(DAYS):
                day = f"{today() - timedelta(days=back)} 00:00+00"
                session.execute(FILL, {"back": back, "day": day, "rows": ROWS_A_DAY})
            session.execute("ANALYZE mlcore.predictions")
        yield db


@pytest.mark.parametrize(
    "wanted",
    [
        {"request_id": "0" * 32},
        {"since": datetime.now(UTC) - timedelta(days=DAYS)},
        {"since": datetime.now(UTC) - timedelta(days=DAYS), "model_id": "m1"},
        {"since": datetime.now(UTC) - timedelta(days=DAYS), "model_id": "m1", "version": "5"},
    ],
    ids=["request", "tenant", "model", "version"],
)
def test_each_query_goes_by_an_index(filled, wanted):
    """With and without a cursor, labels joined."""
    tables = frozenset(f"predictions_{partition.day:%Y%m%d}" for partition in list_partitions(filled))
    predictions = PredictionRepository(filled, TENANT)
    with recorded_plans() as plans:
        page = predictions.list(**wanted, with_labels=True, limit=10)
        if page.next_cursor:
            predictions.list(**wanted, with_labels=True, limit=10, cursor=page.next_cursor)
    read = [plan for plan in plans if "predictions" in plan.statement]
    assert read
    assert [plan.whole_reads(tables) for plan in read] == [[]] * len(read)


def test_a_range_of_time_reads_its_own_days_only(filled):
    """The others are not even opened."""
    middle = (datetime.now(UTC) - timedelta(days=2)).replace(hour=12)
    with recorded_plans() as plans:
        PredictionRepository(filled, TENANT).list(since=middle, until=middle + timedelta(minutes=1))
    (plan,) = (plan for plan in plans if "predictions" in plan.statement)
    read = {node["Relation Name"] for node in plan.nodes if "Relation Name" in node}
    assert read == {f"predictions_{middle:%Y%m%d}"}


def test_live_quality_reads_the_rows_of_a_model_of_each_day(filled):
    """Counts, labels and samples alike: a statement opens one partition, and by the index of tenant and model."""
    tables = frozenset(f"predictions_{partition.day:%Y%m%d}" for partition in list_partitions(filled))
    window = Window("m1", "production", datetime.now(UTC) - timedelta(days=2), datetime.now(UTC))
    with recorded_plans() as plans:
        for day in window.days():
            rows = LiveRows(filled, TENANT)
            rows.answered(day), rows.labelled(day), rows.pairs(day, "1"), rows.sample(day, "1", 100, 10)
    read = [plan for plan in plans if "predictions" in plan.statement]
    assert len(read) == 4 * 3
    assert [plan.whole_reads(tables) for plan in read] == [[]] * len(read)
    opened = [{node["Relation Name"] for node in plan.nodes if "Relation Name" in node} & tables for plan in read]
    assert {len(each) for each in opened} <= {0, 1}
