"""The metrics of the versions that are there, as rows that a search finds; moved in batches, so that nobody waits."""

from __future__ import annotations

from alembic import op

from ml_core.database import backfill, security

revision = "0003b"
down_revision = "0003"
branch_labels = None
depends_on = None

# The next versions by their key, their metrics, and the last of the keys. What an interrupted upgrade did is passed
# over.
BATCH = """
WITH batch AS MATERIALIZED (
  SELECT tenant_id, model_id, version, metrics FROM mlcore.versions
  WHERE (tenant_id, model_id, version) > (:tenant_id, :model_id, :version)
  ORDER BY tenant_id, model_id, version LIMIT 1000
), moved AS (
  INSERT INTO mlcore.version_metrics (tenant_id, model_id, version, split, metric, value)
  SELECT b.tenant_id, b.model_id, b.version, split.key, metric.key, metric.value::double precision
  FROM batch b, jsonb_each(b.metrics) split, jsonb_each_text(split.value) metric
  WHERE jsonb_typeof(split.value) = 'object' AND jsonb_typeof(split.value -> metric.key) = 'number'
  ON CONFLICT DO NOTHING
)
SELECT tenant_id, model_id, version FROM batch ORDER BY tenant_id DESC, model_id DESC, version DESC LIMIT 1
"""


def upgrade() -> None:
    backfill.in_batches(BATCH, {"tenant_id": "", "model_id": "", "version": ""}, reads=("versions",))
    op.execute(security.grant("mlcore_app", "version_metrics", ("SELECT", "INSERT")))
    for statement in security.force_row_security("version_metrics"):
        op.execute(statement)


def downgrade() -> None:
    """The rows go with their table, in 0003."""
