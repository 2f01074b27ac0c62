"""Metric series of runs.

Points are written as arrays in one statement, and the summary of each series in the same transaction. The writer holds
the lock of the run's row, so two loggers of one run write one after the other and the summaries stay exact. ``COPY`` is
not possible: Postgres refuses it on a table under row-level security.

A series is read in exact pages, or as a selection for a chart, which the database makes.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.database.tables import run_metric_summaries, run_metrics
from ml_core.domain.run import MetricSummary, Point, Series
from ml_core.exceptions import InvalidRequestError, RequestTooLargeError
from ml_core.ids import TenantId
from ml_core.registry.limits import MAX_METRICS, check_word
from ml_core.registry.pages import Page, read_page

if TYPE_CHECKING:
    from ml_core.registry.pages import AnyRow, AnySelect

CHUNK_POINTS = 10_000
"""Points in one transaction. It takes about a quarter of a second, so that a heartbeat or another logger gets in."""
MAX_STEP = 2**53
"""Steps are also read as 64-bit floats, which hold whole numbers up to here; below zero likewise."""
MIN_SELECTION, MAX_SELECTION = 5, 10_000
"""How many points a selection may have: the ends and one bucket at least, what a browser can draw at most."""

_BATCH = (
    "unnest(CAST(:metrics AS text[]), CAST(:steps AS bigint[]), CAST(:values AS double precision[]),"
    " CAST(:times AS timestamptz[])) AS b (metric, step, value, at)"
)
_INSERT = (
    "INSERT INTO mlcore.run_metrics (tenant_id, run_id, metric, step, value, at)"  # noqa: S608 - constants
    f" SELECT :tenant, :run, metric, step, value, COALESCE(at, now()) FROM {_BATCH}"
    " ON CONFLICT ON CONSTRAINT pk_run_metrics DO UPDATE SET value = excluded.value, at = excluded.at"
)
_KNOWN = sa.text(
    "SELECT count(*) AS metrics, jsonb_object_agg(metric, last_step)"
    " FILTER (WHERE metric = ANY (CAST(:metrics AS text[]))) AS last_steps"
    " FROM mlcore.run_metric_summaries WHERE tenant_id = :tenant AND run_id = :run"
)
_REWRITTEN = sa.text(
    f"SELECT DISTINCT b.metric FROM {_BATCH} JOIN mlcore.run_metrics m"  # noqa: S608 - constants
    " ON m.tenant_id = :tenant AND m.run_id = :run AND m.metric = b.metric AND m.step = b.step"
)
# A NaN is greater than infinity to Postgres, so these two bounds leave the finite values.
_FINITE = "value > '-Infinity' AND value < 'Infinity'"
_AGGREGATES = (
    f"count(*) AS points, count(*) FILTER (WHERE NOT ({_FINITE})) AS not_finite, max(step) AS last_step,"
    " (array_agg(value ORDER BY step DESC))[1] AS last_value,"
    f" min(value) FILTER (WHERE {_FINITE}) AS minimum, max(value) FILTER (WHERE {_FINITE}) AS maximum"
)
_SUMMARISE = (
    "INSERT INTO mlcore.run_metric_summaries AS s"  # noqa: S608 - constants
    " (tenant_id, run_id, metric, points, not_finite, last_step, last_value, minimum, maximum)"
    f" SELECT :tenant, :run, metric, {_AGGREGATES}"
    " FROM {source} GROUP BY metric"
)
# LEAST and GREATEST ignore NULL.
_WRITE = sa.text(
    f"WITH written AS ({_INSERT}) "
    + _SUMMARISE.format(source=f"{_BATCH} WHERE metric <> ALL (CAST(:rewritten AS text[]))")
    + " ON CONFLICT ON CONSTRAINT pk_run_metric_summaries DO UPDATE SET points = s.points + excluded.points,"
    " not_finite = s.not_finite + excluded.not_finite,"
    " last_value = CASE WHEN excluded.last_step > s.last_step THEN excluded.last_value ELSE s.last_value END,"
    " last_step = GREATEST(s.last_step, excluded.last_step), minimum = LEAST(s.minimum, excluded.minimum),"
    " maximum = GREATEST(s.maximum, excluded.maximum)"
)
_COUNT_AGAIN = sa.text(
    _SUMMARISE.format(
        source="mlcore.run_metrics WHERE tenant_id = :tenant AND run_id = :run"
        " AND metric = ANY (CAST(:rewritten AS text[]))"
    )
    + " ON CONFLICT ON CONSTRAINT pk_run_metric_summaries DO UPDATE SET points = excluded.points,"
    " not_finite = excluded.not_finite, last_value = excluded.last_value, last_step = excluded.last_step,"
    " minimum = excluded.minimum, maximum = excluded.maximum"
)

# Buckets of equally many points. Arrays compare element by element, so the smallest (value, step) of a bucket is
# its lowest value and where that is; one that is not finite is kept as well as the finite extremes.
# The limit makes each point a look-up by its step. A series without statistics, as while it is logged, seems to have
# one point, so a join would read all that is kept for each of a million points.
_SELECT = sa.text("""
WITH numbered AS (
  SELECT step, value, value > '-Infinity' AND value < 'Infinity' AS is_finite, ntile(:buckets) OVER (ORDER BY step) AS n
  FROM mlcore.run_metrics WHERE tenant_id = :tenant AND run_id = :run AND metric = :metric
    AND step > :after AND step <= :until
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
SELECT kept.step, point.value, point.at, (SELECT sum(points) FROM buckets)::bigint AS total
FROM kept CROSS JOIN LATERAL (
  SELECT m.value, m.at FROM mlcore.run_metrics m
  WHERE m.tenant_id = :tenant AND m.run_id = :run AND m.metric = :metric AND m.step = kept.step LIMIT 1
) point
ORDER BY kept.step
""")
_PER_BUCKET = 3


@dataclass(frozen=True, slots=True)
class Batch:
    """Points by columns of the same length, no (metric, step) twice. A time that is None is the moment of writing."""

    metrics: Sequence[str]
    steps: Sequence[int]
    values: Sequence[float]
    times: Sequence[datetime | None]

    @classmethod
    def of_step(cls, values: Mapping[str, float], step: int) -> Self:
        """The values of one step."""
        return cls.of_columns(list(values), [step] * len(values), list(values.values()), None)

    @classmethod
    def of_columns(
        cls, metrics: Sequence[str], steps: Sequence[int], values: Sequence[float], times: Sequence[datetime] | None
    ) -> Self:
        """Checked columns, sorted as the index is; of the same step twice, the last counts.

        Raises:
            InvalidRequestError: The columns differ in length, or hold what is not a name, step or number.
        """
        moments: Sequence[datetime | None] = [None] * len(steps) if times is None else times
        if len({len(metrics), len(steps), len(values), len(moments)}) > 1:
            raise InvalidRequestError(
                f"The columns of points differ in length: {len(metrics)} metrics, {len(steps)} steps,"
                f" {len(values)} values, {len(moments)} times.",
                remedy="Give one of each per point.",
                field="values",
            )
        for metric in set(metrics):
            check_word(metric, "metric")
        try:
            columns = zip(metrics, map(operator.index, steps), map(float, values), moments, strict=True)
            points = {(metric, step): (value, moment) for metric, step, value, moment in columns}
        except (TypeError, ValueError, OverflowError) as error:
            raise InvalidRequestError(
                f"A point is not a number: {error}.",
                remedy="Steps are whole numbers, values are numbers.",
                field="values",
            ) from error
        if times is not None and any(moment.tzinfo is None for moment in times):
            raise InvalidRequestError(
                "A time of a point has no time zone.", remedy="Give times such as datetime.now(UTC).", field="times"
            )
        for _, step in points:
            if not -MAX_STEP <= step <= MAX_STEP:
                raise InvalidRequestError(
                    f"The step {step} can't be stored.", remedy="Steps lie between -2**53 and 2**53.", field="step"
                )
        ordered = sorted(points)
        return cls(
            [metric for metric, _ in ordered],
            [step for _, step in ordered],
            [points[key][0] for key in ordered],
            [points[key][1] for key in ordered],
        )

    def chunks(self, size: int) -> Iterator[Batch]:
        """The same points in batches of at most so many."""
        for begin in range(0, len(self.steps), size):
            part = slice(begin, begin + size)
            yield Batch(self.metrics[part], self.steps[part], self.values[part], self.times[part])


def write(connection: Connection, tenant_id: TenantId, run_id: str, batch: Batch) -> None:
    """Write points and bring the summaries of their series up to date. The run's row must be locked.

    Raises:
        RequestTooLargeError: The run would have more than ``MAX_METRICS`` metrics.
    """
    if not batch.steps:
        return
    given: dict[str, Any] = {
        "tenant": tenant_id,
        "run": run_id,
        "metrics": batch.metrics,
        "steps": batch.steps,
        "values": batch.values,
        "times": batch.times,
    }
    last_steps = _last_steps(connection, given)
    appends = all(
        last_steps.get(metric) is None or step > last_steps[metric]
        for metric, step in zip(batch.metrics, batch.steps, strict=True)
    )
    rewritten = [] if appends else list(connection.scalars(_REWRITTEN, given))
    connection.execute(_WRITE, {**given, "rewritten": rewritten})
    if rewritten:  # a value that was replaced may have been the highest: the whole series is read again
        connection.execute(_COUNT_AGAIN, {"tenant": tenant_id, "run": run_id, "rewritten": rewritten})


def _last_steps(connection: Connection, given: Mapping[str, Any]) -> dict[str, int]:
    known = connection.execute(_KNOWN, given).one()
    last_steps: dict[str, int] = known.last_steps or {}
    added = len(set(given["metrics"]) - last_steps.keys())
    if added and known.metrics + added > MAX_METRICS:
        raise RequestTooLargeError(
            f"The run {given['run']} would have more than {MAX_METRICS:,} metrics.",
            remedy="Give the same metric at each step; what changes from step to step is the step, not the name.",
            tenant_id=given["tenant"],
            limit=MAX_METRICS,
        )
    return last_steps


def read_series(
    connection: Connection,
    tenant_id: TenantId,
    run_id: str,
    metric: str,
    max_points: int,
    *,
    after_step: int | None,
    until_step: int | None,
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
    after = -(2**63) if after_step is None else after_step
    until = 2**63 - 1 if until_step is None else until_step
    of = run_metrics.c
    statement = _points(tenant_id, run_id, metric).where(of.step > after, of.step <= until)
    rows = connection.execute(statement.order_by(of.step).limit(max_points + 1)).all()
    if len(rows) <= max_points:
        return Series(metric, len(rows), [_point(row) for row in rows])
    given = {
        "buckets": (max_points - 2) // _PER_BUCKET,
        "tenant": tenant_id,
        "run": run_id,
        "metric": metric,
        "after": after,
        "until": until,
    }
    rows = connection.execute(_SELECT, given).all()
    return Series(metric, rows[0].total, [_point(row) for row in rows])


def read_points(
    connection: Connection, tenant_id: TenantId, run_id: str, metric: str, limit: int, cursor: str | None
) -> Page[Point]:
    """A page of all points of a metric, in the order of steps."""
    statement = _points(tenant_id, run_id, metric)
    page = read_page(connection, statement, [run_metrics.c.step], limit=limit, cursor=cursor)
    return page.map(_point)


def _point(row: AnyRow) -> Point:
    return Point(row.step, row.value, row.at)


def _points(tenant_id: TenantId, run_id: str, metric: str) -> AnySelect:
    table = run_metrics.c
    statement = sa.select(table.step, table.value, table.at)
    return statement.filter_by(tenant_id=tenant_id, run_id=run_id, metric=metric)


def read_summaries(
    connection: Connection, tenant_id: TenantId, run_ids: Collection[str]
) -> dict[str, dict[str, MetricSummary]]:
    """Run → metric → its series in one line."""
    table = run_metric_summaries.c
    statement = sa.select(run_metric_summaries).filter_by(tenant_id=tenant_id).where(table.run_id.in_(run_ids))
    found: dict[str, dict[str, MetricSummary]] = {run_id: {} for run_id in run_ids}
    for row in connection.execute(statement.order_by(table.run_id, table.metric)):
        found[row.run_id][row.metric] = MetricSummary(
            row.points, row.not_finite, row.last_step, row.last_value, row.minimum, row.maximum
        )
    return found
