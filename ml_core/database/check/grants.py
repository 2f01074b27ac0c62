"""The privileges in the platform's schemas: those that are declared and no others, PUBLIC included."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.database.check.finding import Finding
from ml_core.database.security import APP_GRANTS, APP_ROLE, INGEST_GRANTS, INGEST_ROLE, OWNER_ROLE, REVISION_GRANTS
from ml_core.database.tables import PARTITION_SCHEMA, SCHEMA

# The catalogue itself: the information schema hides what was granted to roles that one is not.
_GRANTS = """
    WITH named AS (
      SELECT n.nspname || '.' || c.relname AS object, c.oid, c.relacl FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE n.nspname = ANY(:schemas) AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
    ), granted AS (
      SELECT object, a.grantee, a.privilege_type AS privilege FROM named, aclexplode(relacl) a
      UNION ALL
      SELECT object, a.grantee, a.privilege_type || ' (' || t.attname || ')'
      FROM named JOIN pg_attribute t ON t.attrelid = named.oid AND t.attacl IS NOT NULL, aclexplode(t.attacl) a
      UNION ALL
      SELECT 'SCHEMA ' || nspname, a.grantee, a.privilege_type
      FROM pg_namespace, aclexplode(nspacl) a WHERE nspname = ANY(:schemas)
    )
    SELECT COALESCE(r.rolname, 'public') AS role, object, privilege
    FROM granted LEFT JOIN pg_roles r ON r.oid = granted.grantee
"""


def check_grants(connection: Connection) -> Iterator[Finding]:
    """Tables, their columns, partitions, views and the schemas themselves."""
    rows = connection.execute(sa.text(_GRANTS), {"schemas": [SCHEMA, PARTITION_SCHEMA]})
    found = {(row.role, row.object, row.privilege) for row in rows if row.role != OWNER_ROLE}
    wanted = set(_declared())
    for role, target, privilege in sorted(found - wanted):
        yield Finding(
            f"{role} may {privilege} {target}, which it must not.", f"REVOKE {privilege} ON {target} FROM {role};"
        )
    for role, target, privilege in sorted(wanted - found):
        yield Finding(f"{role} may not {privilege} {target}.", f"GRANT {privilege} ON {target} TO {role};")


def _declared() -> Iterator[tuple[str, str, str]]:
    for role, grants in ((APP_ROLE, APP_GRANTS), (INGEST_ROLE, INGEST_GRANTS)):
        yield role, f"SCHEMA {SCHEMA}", "USAGE"
        for table, privileges in {**grants, **REVISION_GRANTS}.items():
            for privilege in privileges:
                yield from ((role, f"{SCHEMA}.{table}", each) for each in _single(privilege))


def _single(privilege: str) -> Iterator[str]:
    """Each privilege by itself: ``UPDATE (a, b)`` is one for either column."""
    name, bracket, columns = privilege.partition(" (")
    yield from (f"{name} ({column})" for column in columns.rstrip(")").split(", ")) if bracket else (privilege,)
