"""Row-level security on every table of tenants, with the declared policies and no other."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.database.check.finding import Finding
from ml_core.database.security import Policy, declared_policies, tenant_tables
from ml_core.database.tables import PARTITION_SCHEMA, SCHEMA, platform_keys

_BY_HAND = "Restore the schema from a backup; it was changed by hand."
_PARTITIONS = """
    SELECT relname FROM pg_class
    WHERE relnamespace = to_regnamespace(:schema) AND relkind IN ('r', 'p') ORDER BY relname
"""
_FORCED = """
    SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = ANY(:schemas) AND c.relkind IN ('r', 'p') AND c.relrowsecurity AND c.relforcerowsecurity
"""
_POLICIES = """
    SELECT n.nspname || '.' || c.relname AS table_name, p.polname,
           (SELECT string_agg(COALESCE(r.rolname, 'public'), ', ' ORDER BY r.rolname)
            FROM unnest(p.polroles) role LEFT JOIN pg_roles r ON r.oid = role) AS roles,
           p.polcmd::text AS command, pg_get_expr(p.polqual, p.polrelid) AS using_rule,
           pg_get_expr(p.polwithcheck, p.polrelid) AS check_rule, p.polpermissive
    FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = ANY(:schemas)
"""
_SCHEMAS = {"schemas": [SCHEMA, PARTITION_SCHEMA]}


def check_row_security(connection: Connection) -> Iterator[Finding]:
    """Policies hold on every table with a tenant, on the platform's keys and on every partition, for the owner too."""
    forced = set(connection.scalars(sa.text(_FORCED), _SCHEMAS))
    wanted = [f"{SCHEMA}.{table}" for table in (*tenant_tables(), platform_keys.name)]
    wanted += [f"{PARTITION_SCHEMA}.{name}" for name in _partitions(connection)]
    for table in wanted:
        if table not in forced:
            yield Finding(
                f"The table {table} lacks forced row-level security, or is not there.",
                f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;",
            )


def check_policies(connection: Connection) -> Iterator[Finding]:
    """The policies are those declared: of these tables, for these roles and commands, with these rules."""
    found = {Policy(*row) for row in connection.execute(sa.text(_POLICIES), _SCHEMAS)}
    wanted = declared_policies(_partitions(connection))
    names = {(policy.table, policy.name) for policy in wanted}
    for policy in sorted(found - wanted, key=lambda each: (each.table, each.name)):
        rule = policy.using or policy.check
        if (policy.table, policy.name) in names:
            yield Finding(f"The policy {policy.name} of {policy.table} was changed; its rule is now {rule}.", _BY_HAND)
        else:
            yield Finding(
                f"The table {policy.table} has a policy {policy.name} for {policy.role} that the platform did not make;"
                f" its rule is {rule}.",
                f'DROP POLICY "{policy.name}" ON {policy.table};',
            )
    for table, name in sorted(names - {(policy.table, policy.name) for policy in found}):
        yield Finding(f"The table {table} lacks its policy {name}.", _BY_HAND)


def _partitions(connection: Connection) -> list[str]:
    return list(connection.scalars(sa.text(_PARTITIONS), {"schema": PARTITION_SCHEMA}))
