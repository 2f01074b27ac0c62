"""Reading metric series: exact pages, and a selection for a picture that is made by the database."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.database.tables import run_metric_summaries, run_metrics, run_tags, versions
from ml_core.domain.run import MetricSummary, Point, Series
from ml_core.exceptions import InvalidRequestError
from ml_core.ids import TenantId
from ml_core.registry.pages import Page, check_limit, decode_cursor, encode_cursor
from ml_core.registry.runs.points import AGGREGATES

if TYPE_CHECKING:
    from ml_core.registry.versions.rows import AnySelect

MIN_SELECTION, MAX_SELECTION = 5, 10_000
"""How many points a selection may have: the ends and one bucket at least, what a browser can draw at most."""

# Buckets of equally many points. Arrays compare element by element, so the smallest (value, step) of a bucket is
# its lowest value and where that is; one that is not finite is kept as well as the finite extremes.
_SELECT = sa.text("""
WITH numbered AS (
  SELECT step, value, value > '-Infinity' AND value < 'Infinity' AS is_finite, ntile(:buckets) OVER (ORDER BY step) AS n
  FROM mlcore.run_metrics WHERE tenant_id = :tenant AND run_id = :run AND metric = :metric AND step > :after
), buckets AS (
  SELECT count(*) AS points, min(step) AS first, max(step) AS last,
    (min(ARRAY[value, step]) FILTER (WHERE is_finite))[2] AS lowest,
    (max(ARRAY[value, step]) FILTER (WHERE is_finite))[2] AS highest,
    min(step) FILTER (WHERE NOT is_finite) AS broken
  FROM numbered GROUP BY n
), kept AS (
  SELECT unnest(ARRAY[lowest::bigint, highest::bigint, broken]) AS step FROM buckets
  UNION SELECT min(first) FROM buckets UNION SELECT max(last) FROM buckets
)
SELECT m.step, m.value, m.at, (SELECT sum(points) FROM buckets)::bigint AS total
FROM mlcore.run_metrics m JOIN kept USING (step)
WHERE m.tenant_id = :tenant AND m.run_id = :run AND m.metric = :metric
ORDER BY m.step
""")
_PER_BUCKET = 3

# While a registry is being upgraded, processes of the release before log points without summaries.
_SUMMARISE = sa.text(
    f"SELECT run_id, metric, {AGGREGATES} FROM mlcore.run_metrics"  # noqa: S608 - constants
    " WHERE tenant_id = :tenant AND run_id = ANY (CAST(:runs AS text[])) GROUP BY run_id, metric"
    " ORDER BY run_id, metric"
)


def read_series(
    connection: Connection, tenant_id: TenantId, run_id: str, metric: str, max_points: int, after_step: int | None
) -> Series:
    """A metric's points, or of more than ``max_points`` a selection with the first, the last and all extremes.

    Raises:
        InvalidRequestError: ``max_points`` is not between ``MIN_SELECTION`` and ``MAX_SELECTION``.
    """
    if not MIN_SELECTION <= max_points <= MAX_SELECTION:
        raise InvalidRequestError(
            f"A selection has {MIN_SELECTION} to {MAX_SELECTION:,} points, not {max_points}.",
            remedy="Correct max_points, or read all points in pages.",
            field="max_points",
        )
    statement = _points(tenant_id, run_id, metric, after_step).limit(max_points + 1)
    rows = connection.execute(statement).all()
    if len(rows) <= max_points:
        return Series(metric, len(rows), [Point(row.step, row.value, row.at) for row in rows])
    given = {
        "buckets": (max_points - 2) // _PER_BUCKET,
        "tenant": tenant_id,
        "run": run_id,
        "metric": metric,
        "after": -(2**63) if after_step is None else after_step,
    }
    rows = connection.execute(_SELECT, given).all()
    return Series(metric, rows[0].total, [Point(row.step, row.value, row.at) for row in rows])


def read_points(
    connection: Connection, tenant_id: TenantId, run_id: str, metric: str, limit: int, cursor: str | None
) -> Page[Point]:
    """A page of all points of a metric, in the order of steps.

    Raises:
        InvalidRequestError: The limit or the cursor can't be used.
    """
    after_step = None if cursor is None else decode_cursor(cursor, int)[0]
    statement = _points(tenant_id, run_id, metric, after_step).limit(check_limit(limit) + 1)
    found = [Point(row.step, row.value, row.at) for row in connection.execute(statement)]
    return Page(found[:limit], encode_cursor([found[limit - 1].step]) if len(found) > limit else None)


def _points(tenant_id: TenantId, run_id: str, metric: str, after_step: int | None) -> AnySelect:
    table = run_metrics.c
    statement = sa.select(table.step, table.value, table.at).where(
        table.tenant_id == tenant_id, table.run_id == run_id, table.metric == metric
    )
    if after_step is not None:
        statement = statement.where(table.step > after_step)
    return statement.order_by(table.step)


def read_summaries(
    connection: Connection, tenant_id: TenantId, run_ids: Collection[str]
) -> dict[str, dict[str, MetricSummary]]:
    """Run → metric → its series in one line."""
    table = run_metric_summaries.c
    statement = (
        sa.select(run_metric_summaries)
        .where(table.tenant_id == tenant_id, table.run_id.in_(run_ids))
        .order_by(table.run_id, table.metric)
    )
    found: dict[str, dict[str, MetricSummary]] = {run_id: {} for run_id in run_ids}
    rows = list(connection.execute(statement))
    known = {row.run_id for row in rows}
    if without := [run_id for run_id in run_ids if run_id not in known]:
        rows += connection.execute(_SUMMARISE, {"tenant": tenant_id, "runs": without})
    for row in rows:
        found[row.run_id][row.metric] = MetricSummary(
            row.points, row.not_finite, row.last_step, row.last_value, row.minimum, row.maximum
        )
    return found


def read_tags(connection: Connection, tenant_id: TenantId, run_ids: Collection[str]) -> dict[str, dict[str, str]]:
    """Run → key → value."""
    table = run_tags.c
    statement = (
        sa.select(table.run_id, table.key, table.value)
        .where(table.tenant_id == tenant_id, table.run_id.in_(run_ids))
        .order_by(table.run_id, table.key)
    )
    found: dict[str, dict[str, str]] = {run_id: {} for run_id in run_ids}
    for row in connection.execute(statement):
        found[row.run_id][row.key] = row.value
    return found


def read_versions(connection: Connection, tenant_id: TenantId, run_ids: Collection[str]) -> dict[str, list[str]]:
    """Run → the versions that came of it, as ``name@version``, oldest first."""
    table = versions.c
    statement = (
        sa.select(table.run_id, table.model_id, table.version)
        .where(table.tenant_id == tenant_id, table.run_id.in_(run_ids))
        .order_by(table.run_id, table.model_id, table.number)
    )
    found: dict[str, list[str]] = {run_id: [] for run_id in run_ids}
    for row in connection.execute(statement):
        found[row.run_id].append(f"{row.model_id}@{row.version}")
    return found
