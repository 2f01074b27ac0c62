"""Datasets with their versions; tags, parents and files of runs."""

from __future__ import annotations

from alembic import op

from ml_core.database import security

revision = "0004"
down_revision = "0003b"
branch_labels = None
depends_on = None

GRANTS = {
    "datasets": ("SELECT", "INSERT", "UPDATE (next_number)"),
    "dataset_versions": ("SELECT", "INSERT", "DELETE", "UPDATE (archived_at)"),
    "run_artifacts": ("SELECT", "INSERT", "DELETE"),
    "run_tags": ("SELECT", "INSERT", "DELETE", "UPDATE (value)"),
}

DATASETS = """
CREATE TABLE mlcore.datasets (
  tenant_id text NOT NULL,
  dataset_id text NOT NULL,
  next_number bigint NOT NULL DEFAULT 1,
  created_at timestamptz NOT NULL DEFAULT now(),
  created_by text NOT NULL,
  CONSTRAINT pk_datasets PRIMARY KEY (tenant_id, dataset_id),
  CONSTRAINT fk_datasets_tenants FOREIGN KEY (tenant_id) REFERENCES mlcore.tenants (tenant_id),
  CONSTRAINT ck_datasets_dataset_id CHECK (dataset_id ~ '^[a-z][a-z0-9_-]{0,79}$')
);
CREATE TABLE mlcore.dataset_versions (
  tenant_id text NOT NULL,
  dataset_id text NOT NULL,
  number bigint NOT NULL,
  digest text NOT NULL,
  size_bytes bigint NOT NULL,
  row_count bigint NOT NULL,
  columns jsonb NOT NULL,
  profile jsonb NOT NULL DEFAULT '{}'::jsonb,
  source jsonb NOT NULL DEFAULT '{}'::jsonb,
  created_at timestamptz NOT NULL DEFAULT now(),
  created_by text NOT NULL,
  archived_at timestamptz,
  CONSTRAINT pk_dataset_versions PRIMARY KEY (tenant_id, dataset_id, number),
  CONSTRAINT fk_dataset_versions_datasets FOREIGN KEY (tenant_id, dataset_id)
    REFERENCES mlcore.datasets (tenant_id, dataset_id),
  CONSTRAINT ck_dataset_versions_digest CHECK (digest ~ '^[0-9a-f]{64}$')
);
CREATE INDEX ix_dataset_versions_tenant_id_digest ON mlcore.dataset_versions (tenant_id, digest);
ALTER TABLE mlcore.versions ADD COLUMN data_digest text;
"""

RUNS = """
ALTER TABLE mlcore.runs
  ADD COLUMN parent_run_id text,
  ADD COLUMN created_by text,
  ADD CONSTRAINT fk_runs_runs FOREIGN KEY (tenant_id, parent_run_id) REFERENCES mlcore.runs (tenant_id, run_id);
CREATE INDEX ix_runs_tenant_id_started_at_run_id ON mlcore.runs (tenant_id, started_at, run_id);
CREATE INDEX ix_runs_tenant_id_model_id_started_at_run_id ON mlcore.runs (tenant_id, model_id, started_at, run_id);
CREATE INDEX ix_runs_tenant_id_status_started_at_run_id ON mlcore.runs (tenant_id, status, started_at, run_id);
CREATE INDEX ix_runs_tenant_id_parent_run_id_started_at_run_id
  ON mlcore.runs (tenant_id, parent_run_id, started_at, run_id);
DROP INDEX mlcore.ix_runs_tenant_id_model_id_started_at;
CREATE TABLE mlcore.run_tags (
  tenant_id text NOT NULL,
  run_id text NOT NULL,
  key text NOT NULL,
  value text NOT NULL,
  CONSTRAINT pk_run_tags PRIMARY KEY (tenant_id, run_id, key),
  CONSTRAINT fk_run_tags_runs FOREIGN KEY (tenant_id, run_id) REFERENCES mlcore.runs (tenant_id, run_id)
);
CREATE INDEX ix_run_tags_tenant_id_key_value_run_id ON mlcore.run_tags (tenant_id, key, value, run_id);
CREATE TABLE mlcore.run_metric_summaries (
  tenant_id text NOT NULL,
  run_id text NOT NULL,
  metric text NOT NULL,
  points bigint NOT NULL,
  not_finite bigint NOT NULL,
  last_step bigint NOT NULL,
  last_value double precision NOT NULL,
  minimum double precision,
  maximum double precision,
  CONSTRAINT pk_run_metric_summaries PRIMARY KEY (tenant_id, run_id, metric),
  CONSTRAINT fk_run_metric_summaries_runs FOREIGN KEY (tenant_id, run_id) REFERENCES mlcore.runs (tenant_id, run_id)
);
CREATE INDEX ix_run_metric_summaries_tenant_id_metric_last_value
  ON mlcore.run_metric_summaries (tenant_id, metric, last_value);
CREATE TABLE mlcore.run_artifacts (
  tenant_id text NOT NULL,
  run_id text NOT NULL,
  name text NOT NULL,
  digest text NOT NULL,
  size_bytes bigint NOT NULL,
  format text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT pk_run_artifacts PRIMARY KEY (tenant_id, run_id, name),
  CONSTRAINT fk_run_artifacts_runs FOREIGN KEY (tenant_id, run_id) REFERENCES mlcore.runs (tenant_id, run_id),
  CONSTRAINT ck_run_artifacts_digest CHECK (digest ~ '^[0-9a-f]{64}$')
);
CREATE INDEX ix_run_artifacts_tenant_id_digest ON mlcore.run_artifacts (tenant_id, digest);
GRANT DELETE ON mlcore.runs, mlcore.run_metrics TO mlcore_app;
"""


def upgrade() -> None:
    op.execute(DATASETS)
    op.execute(RUNS)
    for table, privileges in GRANTS.items():
        op.execute(security.grant("mlcore_app", table, privileges))
        for statement in security.force_row_security(table):
            op.execute(statement)


def downgrade() -> None:
    op.execute(
        "DROP TABLE mlcore.run_artifacts, mlcore.run_metric_summaries, mlcore.run_tags,"
        " mlcore.dataset_versions, mlcore.datasets"
    )
    op.execute("ALTER TABLE mlcore.versions DROP COLUMN data_digest")
    op.execute("REVOKE DELETE ON mlcore.runs, mlcore.run_metrics FROM mlcore_app")
    op.execute("DROP INDEX mlcore.ix_runs_tenant_id_started_at_run_id")
    op.execute("DROP INDEX mlcore.ix_runs_tenant_id_model_id_started_at_run_id")
    op.execute("DROP INDEX mlcore.ix_runs_tenant_id_status_started_at_run_id")
    op.execute("CREATE INDEX ix_runs_tenant_id_model_id_started_at ON mlcore.runs (tenant_id, model_id, started_at)")
    op.execute("ALTER TABLE mlcore.runs DROP COLUMN parent_run_id, DROP COLUMN created_by")
