"""The summaries of the metric series that are there; made in batches of runs, so that nobody waits."""

from __future__ import annotations

from alembic import op

from ml_core.database import backfill, security

revision = "0004b"
down_revision = "0004"
branch_labels = None
depends_on = None

GRANT = ("SELECT", "INSERT", "DELETE", "UPDATE (points, not_finite, last_step, last_value, minimum, maximum)")

# The next runs by their key, a line for each of their series, and the last of the keys. A run that was going on when an
# interrupted upgrade came by is counted anew.
BATCH = """
WITH batch AS MATERIALIZED (
  SELECT tenant_id, run_id FROM mlcore.runs WHERE (tenant_id, run_id) > (:tenant_id, :run_id)
  ORDER BY tenant_id, run_id LIMIT 100
), made AS (
  INSERT INTO mlcore.run_metric_summaries AS s
    (tenant_id, run_id, metric, points, not_finite, last_step, last_value, minimum, maximum)
  SELECT p.tenant_id, p.run_id, p.metric, count(*),
    count(*) FILTER (WHERE p.value IN ('NaN', 'Infinity', '-Infinity')), max(p.step),
    (array_agg(p.value ORDER BY p.step DESC))[1],
    min(p.value) FILTER (WHERE p.value NOT IN ('NaN', 'Infinity', '-Infinity')),
    max(p.value) FILTER (WHERE p.value NOT IN ('NaN', 'Infinity', '-Infinity'))
  FROM batch b JOIN mlcore.run_metrics p ON p.tenant_id = b.tenant_id AND p.run_id = b.run_id
  GROUP BY p.tenant_id, p.run_id, p.metric
  ON CONFLICT ON CONSTRAINT pk_run_metric_summaries DO UPDATE SET
    points = excluded.points, not_finite = excluded.not_finite, last_step = excluded.last_step,
    last_value = excluded.last_value, minimum = excluded.minimum, maximum = excluded.maximum
)
SELECT tenant_id, run_id FROM batch ORDER BY tenant_id DESC, run_id DESC LIMIT 1
"""


def upgrade() -> None:
    backfill.in_batches(BATCH, {"tenant_id": "", "run_id": ""}, reads=("runs", "run_metrics"))
    op.execute(security.grant("mlcore_app", "run_metric_summaries", GRANT))
    for statement in security.force_row_security("run_metric_summaries"):
        op.execute(statement)


def downgrade() -> None:
    """The rows go with their table, in 0004."""
