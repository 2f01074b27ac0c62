"""A tenant with at least one row in every table that holds tenants' rows."""

from __future__ import annotations

import sqlalchemy as sa

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.api_key import Scope
from ml_core.ids import TenantId
from ml_core.registry.environments import PRODUCTION, EnvironmentRepository
from ml_core.registry.keys import KeyRepository
from ml_core.registry.runs import RunRepository
from ml_core.registry.versions import VersionRepository
from support.registry import TICKETS, register

# Tables for which there is no short way yet.
_ROWS = """
INSERT INTO mlcore.environment_policies (tenant_id, environment, updated_by) VALUES (:t, 'staging', 'x');
INSERT INTO mlcore.gates (tenant_id, model_id, environment, name, kind, created_by)
  VALUES (:t, 'tickets', 'staging', 'g', 'digest_verified', 'x');
INSERT INTO mlcore.approvals (tenant_id, model_id, version, environment, approver, reason)
  VALUES (:t, 'tickets', :v, 'staging', 'x', '');
INSERT INTO mlcore.holds (tenant_id, model_id, version, name, reason, created_by)
  VALUES (:t, 'tickets', :v, 'x', '', 'x');
INSERT INTO mlcore.datasets (tenant_id, dataset_id, created_by) VALUES (:t, 'd', 'x');
INSERT INTO mlcore.dataset_versions (tenant_id, dataset_id, number, digest, size_bytes, row_count, columns, created_by)
  VALUES (:t, 'd', 1, repeat('a', 64), 1, 1, '[]', 'x');
INSERT INTO mlcore.run_artifacts (tenant_id, run_id, name, digest, size_bytes, format)
  SELECT :t, run_id, 'plot', repeat('a', 64), 1, 'png' FROM mlcore.runs LIMIT 1;
"""


def fill(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """Put at least one row of the tenant into every table."""
    VersionRepository(db, tenant_id).delete(TICKETS, register(db, tenant_id).version)
    version = register(db, tenant_id, metrics={"validation": {"accuracy": 0.9}}, tags={"team": "support"})
    EnvironmentRepository(db, tenant_id).promote(TICKETS, version.version, PRODUCTION, actor="tester")
    KeyRepository(db, tenant_id).create("key", [Scope.PREDICT])
    runs = RunRepository(db, tenant_id)
    runs.log_metrics(runs.start(TICKETS), {"loss": 1.0})
    with db.tenant(tenant_id) as connection:
        for statement in filter(str.strip, _ROWS.split(";")):
            connection.execute(sa.text(statement), {"t": tenant_id, "v": version.version})
