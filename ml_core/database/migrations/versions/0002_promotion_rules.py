"""Promotion rules: rollouts beside the pointer, gates, approvals and protected environments."""

from __future__ import annotations

from alembic import op

from ml_core.database import security

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

GRANTS = {
    "environment_policies": ("SELECT", "INSERT", "UPDATE (is_protected, updated_at, updated_by)"),
    "gates": ("SELECT", "INSERT", "DELETE", "UPDATE (kind, settings, created_at, created_by)"),
    "approvals": ("SELECT", "INSERT"),
}

ROLLOUTS = """
ALTER TABLE mlcore.environments
  ADD COLUMN canary_version text,
  ADD COLUMN canary_percent integer,
  ADD COLUMN canary_sticky text,
  ADD COLUMN shadow_version text,
  ADD CONSTRAINT ck_environments_canary CHECK (
    CASE WHEN canary_version IS NULL THEN canary_percent IS NULL AND canary_sticky IS NULL
    ELSE version IS NOT NULL AND canary_version <> version AND COALESCE(canary_percent BETWEEN 1 AND 99, false) END),
  ADD CONSTRAINT ck_environments_shadow CHECK (
    shadow_version IS NULL OR (version IS NOT NULL AND shadow_version <> version
    AND shadow_version IS DISTINCT FROM canary_version)),
  ADD CONSTRAINT fk_environments_canary_version FOREIGN KEY (tenant_id, model_id, canary_version)
    REFERENCES mlcore.versions (tenant_id, model_id, version),
  ADD CONSTRAINT fk_environments_shadow_version FOREIGN KEY (tenant_id, model_id, shadow_version)
    REFERENCES mlcore.versions (tenant_id, model_id, version);
ALTER TABLE mlcore.environment_history
  ADD COLUMN canary_version text,
  ADD COLUMN canary_percent integer,
  ADD COLUMN canary_sticky text,
  ADD COLUMN shadow_version text,
  ADD COLUMN gates jsonb NOT NULL DEFAULT '[]'::jsonb,
  ADD COLUMN override_reason text;
GRANT UPDATE (canary_version, canary_percent, canary_sticky, shadow_version) ON mlcore.environments TO mlcore_app;
ALTER TABLE mlcore.feed_clock ADD COLUMN epoch uuid NOT NULL DEFAULT gen_random_uuid();
"""

RULES = """
CREATE TABLE mlcore.environment_policies (
  tenant_id text NOT NULL,
  environment text NOT NULL,
  is_protected boolean NOT NULL DEFAULT false,
  updated_at timestamptz NOT NULL DEFAULT now(),
  updated_by text NOT NULL,
  CONSTRAINT pk_environment_policies PRIMARY KEY (tenant_id, environment),
  CONSTRAINT fk_environment_policies_tenants FOREIGN KEY (tenant_id) REFERENCES mlcore.tenants (tenant_id),
  CONSTRAINT ck_environment_policies_environment CHECK (environment ~ '^[a-z][a-z0-9_-]{0,39}$')
);
CREATE TABLE mlcore.gates (
  tenant_id text NOT NULL,
  model_id text NOT NULL,
  environment text NOT NULL,
  name text NOT NULL,
  kind text NOT NULL,
  settings jsonb NOT NULL DEFAULT '{}'::jsonb,
  created_at timestamptz NOT NULL DEFAULT now(),
  created_by text NOT NULL,
  CONSTRAINT pk_gates PRIMARY KEY (tenant_id, model_id, environment, name),
  CONSTRAINT fk_gates_models FOREIGN KEY (tenant_id, model_id) REFERENCES mlcore.models (tenant_id, model_id),
  CONSTRAINT ck_gates_environment CHECK (environment ~ '^[a-z][a-z0-9_-]{0,39}$')
);
CREATE TABLE mlcore.approvals (
  tenant_id text NOT NULL,
  model_id text NOT NULL,
  version text NOT NULL,
  environment text NOT NULL,
  approver text NOT NULL,
  reason text NOT NULL,
  at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT pk_approvals PRIMARY KEY (tenant_id, model_id, version, environment, approver),
  CONSTRAINT fk_approvals_versions FOREIGN KEY (tenant_id, model_id, version)
    REFERENCES mlcore.versions (tenant_id, model_id, version) ON DELETE CASCADE,
  CONSTRAINT ck_approvals_environment CHECK (environment ~ '^[a-z][a-z0-9_-]{0,39}$')
);
"""


def upgrade() -> None:
    op.execute(ROLLOUTS)
    op.execute(RULES)
    for table, privileges in GRANTS.items():
        op.execute(security.grant("mlcore_app", table, privileges))
        for statement in security.force_row_security(table):
            op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE mlcore.approvals, mlcore.gates, mlcore.environment_policies")
    op.execute(
        "ALTER TABLE mlcore.environment_history DROP COLUMN canary_version, DROP COLUMN canary_percent,"
        " DROP COLUMN canary_sticky, DROP COLUMN shadow_version, DROP COLUMN gates, DROP COLUMN override_reason"
    )
    op.execute(
        "ALTER TABLE mlcore.environments DROP COLUMN canary_version, DROP COLUMN canary_percent,"
        " DROP COLUMN canary_sticky, DROP COLUMN shadow_version"
    )
    op.execute("ALTER TABLE mlcore.feed_clock DROP COLUMN epoch")
