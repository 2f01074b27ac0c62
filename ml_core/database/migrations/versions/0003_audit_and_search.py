"""Audit and search: who changed what, events that were delivered, and what versions are found by."""

from __future__ import annotations

from alembic import op

from ml_core.database import security

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

GRANTS = {
    "audit": ("SELECT", "INSERT"),
    "version_tags": ("SELECT", "INSERT", "DELETE", "UPDATE (value)"),
}

AUDIT = """
CREATE TABLE mlcore.audit (
  tenant_id text NOT NULL,
  audit_id bigint GENERATED ALWAYS AS IDENTITY,
  at timestamptz NOT NULL DEFAULT now(),
  principal text NOT NULL DEFAULT session_user,
  request_id text NOT NULL DEFAULT '',
  action text NOT NULL,
  subject jsonb NOT NULL DEFAULT '{}'::jsonb,
  details jsonb NOT NULL DEFAULT '{}'::jsonb,
  CONSTRAINT pk_audit PRIMARY KEY (tenant_id, audit_id),
  CONSTRAINT fk_audit_tenants FOREIGN KEY (tenant_id) REFERENCES mlcore.tenants (tenant_id)
);
CREATE INDEX ix_audit_tenant_id_action_audit_id ON mlcore.audit (tenant_id, action, audit_id);
CREATE INDEX ix_audit_tenant_id_at ON mlcore.audit (tenant_id, at);
CREATE INDEX ix_audit_request ON mlcore.audit (tenant_id, request_id, audit_id) WHERE request_id <> '';
ALTER TABLE mlcore.outbox ADD COLUMN delivered_at timestamptz;
CREATE INDEX ix_outbox_undelivered ON mlcore.outbox (tenant_id, outbox_id) WHERE delivered_at IS NULL;
GRANT UPDATE (delivered_at) ON mlcore.outbox TO mlcore_app;
"""

SEARCH = """
CREATE INDEX ix_versions_tenant_id_created_at_model_id_version
  ON mlcore.versions (tenant_id, created_at, model_id, version);
CREATE INDEX ix_versions_shown ON mlcore.versions (tenant_id, model_id, number) WHERE archived_at IS NULL;
CREATE INDEX ix_versions_tenant_id_dataset_digest ON mlcore.versions (tenant_id, dataset_digest);
CREATE INDEX ix_versions_tenant_id_run_id ON mlcore.versions (tenant_id, run_id);
CREATE TABLE mlcore.version_tags (
  tenant_id text NOT NULL,
  model_id text NOT NULL,
  version text NOT NULL,
  key text NOT NULL,
  value text NOT NULL,
  CONSTRAINT pk_version_tags PRIMARY KEY (tenant_id, model_id, version, key),
  CONSTRAINT fk_version_tags_versions FOREIGN KEY (tenant_id, model_id, version)
    REFERENCES mlcore.versions (tenant_id, model_id, version) ON DELETE CASCADE
);
CREATE INDEX ix_version_tags_tenant_id_key_value ON mlcore.version_tags (tenant_id, key, value);
CREATE TABLE mlcore.version_metrics (
  tenant_id text NOT NULL,
  model_id text NOT NULL,
  version text NOT NULL,
  split text NOT NULL,
  metric text NOT NULL,
  value double precision NOT NULL,
  CONSTRAINT pk_version_metrics PRIMARY KEY (tenant_id, model_id, version, split, metric),
  CONSTRAINT fk_version_metrics_versions FOREIGN KEY (tenant_id, model_id, version)
    REFERENCES mlcore.versions (tenant_id, model_id, version) ON DELETE CASCADE
);
CREATE INDEX ix_version_metrics_sorted
  ON mlcore.version_metrics (tenant_id, split, metric, value, model_id, version);
"""


def upgrade() -> None:
    op.execute(AUDIT)
    op.execute(SEARCH)
    for table, privileges in GRANTS.items():
        op.execute(security.grant("mlcore_app", table, privileges))
        for statement in security.force_row_security(table):
            op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE mlcore.version_metrics, mlcore.version_tags, mlcore.audit")
    op.execute("DROP INDEX mlcore.ix_versions_shown")
    for columns in ("created_at_model_id_version", "dataset_digest", "run_id"):
        op.execute(f"DROP INDEX mlcore.ix_versions_tenant_id_{columns}")
    op.execute("ALTER TABLE mlcore.outbox DROP COLUMN delivered_at")
