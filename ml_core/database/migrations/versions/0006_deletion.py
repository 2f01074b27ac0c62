"""Deletion: holds, and the removal of a tenant with everything."""

from __future__ import annotations

from alembic import op

from ml_core.database import security

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

GRANTS = {"holds": ("SELECT", "INSERT", "DELETE")}

HOLDS = """
CREATE TABLE mlcore.holds (
  tenant_id text NOT NULL,
  model_id text NOT NULL,
  version text NOT NULL,
  name text NOT NULL,
  reason text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  created_by text NOT NULL,
  CONSTRAINT pk_holds PRIMARY KEY (tenant_id, model_id, version, name),
  CONSTRAINT fk_holds_versions FOREIGN KEY (tenant_id, model_id, version)
    REFERENCES mlcore.versions (tenant_id, model_id, version)
);
"""


def upgrade() -> None:
    op.execute(HOLDS)
    for table, privileges in GRANTS.items():
        op.execute(security.grant("mlcore_app", table, privileges))
        for statement in security.force_row_security(table):
            op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE mlcore.holds")
