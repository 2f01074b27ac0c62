"""Roles, policies and grants: who may do what, as data, and the statements that make it so.

Three roles. ``mlcore_owner`` owns the tables and migrates. ``mlcore_app`` is the runtime: neither owner nor superuser,
it sees the rows of the transaction's tenant and none when there is no tenant. ``mlcore_ingest`` is the serving plane:
it reads what replicas must know of every tenant, and nothing else.

Immutability is a grant that is missing: the runtime can't update a version's digest, or a history row, because no role
but the owner may. Migrations call the functions here with literal arguments, so their meaning must not change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ml_core.database.tables import SCHEMA, metadata

OWNER_ROLE: Final = "mlcore_owner"
APP_ROLE: Final = "mlcore_app"
INGEST_ROLE: Final = "mlcore_ingest"
ROLES: Final = (OWNER_ROLE, APP_ROLE, INGEST_ROLE)

TENANT_POLICY: Final = "tenant_isolation"
SERVING_POLICY: Final = "serving_reads"

# The sub-select is evaluated once a statement, not once a row. NULLIF: after a transaction the setting reads as ''.
_TENANT_RULE = "tenant_id = (SELECT NULLIF(current_setting('app.tenant_id', true), ''))"

# What the runtime may do, by table; a privilege with columns is written "UPDATE (a, b)".
APP_GRANTS: Final[Mapping[str, tuple[str, ...]]] = {
    "tenants": ("SELECT", "INSERT"),
    "models": ("SELECT", "INSERT", "UPDATE (model_type, next_number, archived_at, deleted_at)"),
    "versions": ("SELECT", "INSERT", "DELETE", "UPDATE (metadata, archived_at)"),
    "deleted_versions": ("SELECT", "INSERT"),
    "version_tags": ("SELECT", "INSERT", "DELETE", "UPDATE (value)"),
    "version_metrics": ("SELECT", "INSERT"),
    "holds": ("SELECT", "INSERT", "DELETE"),
    "environments": (
        "SELECT",
        "INSERT",
        "UPDATE (version, generation, feed_generation, cell, updated_at, updated_by,"
        " canary_version, canary_percent, canary_sticky, shadow_version)",
    ),
    "environment_history": ("SELECT", "INSERT"),
    "environment_policies": ("SELECT", "INSERT", "UPDATE (is_protected, updated_at, updated_by)"),
    "gates": ("SELECT", "INSERT", "DELETE"),
    "approvals": ("SELECT", "INSERT"),
    "outbox": ("SELECT", "INSERT", "UPDATE (delivered_at)"),
    "audit": ("SELECT", "INSERT"),
    "api_keys": ("SELECT", "INSERT", "UPDATE (revoked_at, feed_generation)"),
    "datasets": ("SELECT", "INSERT", "UPDATE (next_number)"),
    "dataset_versions": ("SELECT", "INSERT", "DELETE", "UPDATE (archived_at)"),
    "runs": ("SELECT", "INSERT", "UPDATE (status, heartbeat_at, finished_at, error, tags)"),
    "run_metrics": ("SELECT", "INSERT", "UPDATE (value, at)"),
    "run_artifacts": ("SELECT", "INSERT", "DELETE"),
    "feed_clock": ("SELECT",),
}

# What the serving plane may do.
INGEST_GRANTS: Final[Mapping[str, tuple[str, ...]]] = {
    "tenants": ("SELECT",),
    "models": ("SELECT",),
    "versions": ("SELECT",),
    "environments": ("SELECT",),
    "api_keys": ("SELECT",),
    "feed_clock": ("SELECT",),
}


def tenant_tables() -> tuple[str, ...]:
    """The tables whose rows belong to a tenant."""
    return tuple(table.name for table in metadata.sorted_tables if "tenant_id" in table.c)


def force_row_security(table: str) -> tuple[str, ...]:
    """Statements that make a table show and accept the transaction's tenant's rows only, to its owner as well."""
    return (
        f"ALTER TABLE {SCHEMA}.{table} ENABLE ROW LEVEL SECURITY",
        f"ALTER TABLE {SCHEMA}.{table} FORCE ROW LEVEL SECURITY",
        f"CREATE POLICY {TENANT_POLICY} ON {SCHEMA}.{table} TO {APP_ROLE}"
        f" USING ({_TENANT_RULE}) WITH CHECK ({_TENANT_RULE})",
    )


def let_serving_read(table: str) -> str:
    """The statement that lets the serving plane read all tenants' rows of a table."""
    return f"CREATE POLICY {SERVING_POLICY} ON {SCHEMA}.{table} FOR SELECT TO {INGEST_ROLE} USING (true)"


def grant(role: str, table: str, privileges: tuple[str, ...]) -> str:
    """The statement that gives a role its privileges on a table."""
    return f"GRANT {', '.join(privileges)} ON {SCHEMA}.{table} TO {role}"
