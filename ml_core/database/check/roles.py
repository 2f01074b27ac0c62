"""Roles to which the policies apply, and one owner of all objects."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.database.check.finding import Finding
from ml_core.database.security import (
    APP_ROLE,
    CLOSED_FUNCTIONS,
    INGEST_ROLE,
    OWNER_ROLE,
    ROLE_SETTINGS,
    close_functions,
)
from ml_core.database.tables import PARTITION_SCHEMA, SCHEMA

_POWERFUL = "SELECT rolname FROM pg_roles WHERE rolname = ANY(:roles) AND (rolsuper OR rolbypassrls)"
_REACHED = """
    SELECT session_user AS login, rolname FROM pg_roles
    WHERE rolname = ANY(:roles) AND pg_has_role(session_user, oid, 'MEMBER') ORDER BY rolname
"""
_UNLIMITED = """
    SELECT rolname FROM pg_roles
    WHERE rolname = ANY(:roles) AND NOT COALESCE(rolconfig, '{}') @> CAST(:limits AS text[]) ORDER BY rolname
"""
_MEMBERS = """
    SELECT member.rolname AS member, of.rolname AS of FROM pg_auth_members m
    JOIN pg_roles member ON member.oid = m.member JOIN pg_roles of ON of.oid = m.roleid
    WHERE member.rolname = ANY(:roles) ORDER BY 1, 2
"""
_FOREIGN = """
    SELECT CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE'
             WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END AS kind,
           n.nspname || '.' || c.relname AS name, pg_get_userbyid(c.relowner) AS owner
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = ANY(:schemas) AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
      AND pg_get_userbyid(c.relowner) <> :owner
    UNION ALL
    SELECT 'SCHEMA', nspname, pg_get_userbyid(nspowner) FROM pg_namespace
    WHERE nspname = ANY(:schemas) AND pg_get_userbyid(nspowner) <> :owner
    ORDER BY 1, 2
"""


def check_roles(connection: Connection) -> Iterator[Finding]:
    """The runtime's roles have no power over policies, of their own or through another role."""
    roles = {"roles": [APP_ROLE, INGEST_ROLE]}
    for role in connection.scalars(sa.text(_POWERFUL), roles):
        yield Finding(
            f"The role {role} is not held back by row-level security.", f"ALTER ROLE {role} NOSUPERUSER NOBYPASSRLS;"
        )
    for row in connection.execute(sa.text(_MEMBERS), roles):
        yield Finding(
            f"The role {row.member} may act as {row.of}, so it is not held back by row-level security as it must be.",
            f"REVOKE {row.of} FROM {row.member};",
        )


def check_sessions(connection: Connection) -> Iterator[Finding]:
    """A session of the runtime can't change its role by resetting it, has time limits, and can't end other sessions."""
    for row in connection.execute(sa.text(_REACHED), {"roles": [OWNER_ROLE, INGEST_ROLE]}):
        yield Finding(
            f"The login {row.login} may act as {row.rolname}: SQL that resets its role is not held back.",
            f"Let MLCORE_DATABASE_URL name a login that is a member of {APP_ROLE} only.",
        )
    limits = [f"{name}={value}" for name, value in ROLE_SETTINGS.items()]
    for role in connection.scalars(sa.text(_UNLIMITED), {"roles": [APP_ROLE, INGEST_ROLE], "limits": limits}):
        changes = (f"ALTER ROLE {role} SET {name} = '{value}';" for name, value in ROLE_SETTINGS.items())
        yield Finding(f"The role {role} lacks its time limits.", " ".join(changes))
    for function in CLOSED_FUNCTIONS:
        for role in (APP_ROLE, INGEST_ROLE):
            if connection.scalar(sa.select(sa.func.has_function_privilege(role, function, "EXECUTE"))):
                yield Finding(
                    f"{role} may call {function}, by which it can stop other sessions.",
                    " ".join(f"{statement};" for statement in close_functions()),
                )


def check_owners(connection: Connection) -> Iterator[Finding]:
    """The owner of a table may change its policies, and a view reads with the rights of its owner."""
    schemas = {"schemas": [SCHEMA, PARTITION_SCHEMA], "owner": OWNER_ROLE}
    for row in connection.execute(sa.text(_FOREIGN), schemas):
        yield Finding(
            f"The {row.kind.lower()} {row.name} belongs to {row.owner}, not to {OWNER_ROLE}.",
            f"ALTER {row.kind} {row.name} OWNER TO {OWNER_ROLE};",
        )
