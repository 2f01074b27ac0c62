"""Whether a database keeps what the platform promises: revision, roles, policies, functions, triggers and grants.

What is declared is in ``ml_core.database.security``. Everything else is a finding: what is missing, and what exists
beyond it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.database.connection import DatabaseConnection
from ml_core.database.security import (
    APP_GRANTS,
    APP_ROLE,
    CLOSED_FUNCTIONS,
    FUNCTIONS,
    INGEST_GRANTS,
    INGEST_ROLE,
    OWNER_ROLE,
    PINNED_PATH,
    PLATFORM_TABLES,
    REVISION_GRANTS,
    ROLE_SETTINGS,
    Policy,
    close_functions,
    declared_policies,
    declared_triggers,
    tenant_tables,
)
from ml_core.database.tables import PARTITION_SCHEMA, SCHEMA, SCHEMA_REVISION
from ml_core.exceptions import Action

_SCHEMAS = {"schemas": [SCHEMA, PARTITION_SCHEMA]}


@dataclass(frozen=True, slots=True)
class Finding:
    """One promise that the database does not keep, and what to do about it: SQL, a sentence, or an operation."""

    what: str
    remedy: str
    action: Action | None = None


def check(db: DatabaseConnection) -> list[Finding]:
    """Look at the database through its own catalogue, changing nothing.

    Returns:
        What is wrong; nothing if all is well. A database of another revision gets that one finding.

    Raises:
        RegistryUnavailableError: Postgres can't be reached.
        ConfigurationError: A login may not act as the platform's roles.
    """
    current = db.current_revision()
    if current != SCHEMA_REVISION:
        what = f"The schema is at {current or 'no revision'}; this release needs {SCHEMA_REVISION}."
        return [Finding(what, "Upgrade the schema.", Action.of("db.upgrade"))]
    looks = (
        *(_check_roles, _check_sessions, _check_owners, _check_row_security, _check_policies),
        *(_check_functions, _check_triggers, _check_grants),
    )
    with db.catalogue() as connection:
        return [finding for look in looks for finding in look(connection)]


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


def _check_roles(connection: Connection) -> Iterator[Finding]:
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


def _check_sessions(connection: Connection) -> Iterator[Finding]:
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


def _check_owners(connection: Connection) -> Iterator[Finding]:
    """The owner of a table may change its policies, and a view reads with the rights of its owner."""
    schemas = {**_SCHEMAS, "owner": OWNER_ROLE}
    for row in connection.execute(sa.text(_FOREIGN), schemas):
        yield Finding(
            f"The {row.kind.lower()} {row.name} belongs to {row.owner}, not to {OWNER_ROLE}.",
            f"ALTER {row.kind} {row.name} OWNER TO {OWNER_ROLE};",
        )


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


def _check_row_security(connection: Connection) -> Iterator[Finding]:
    """Policies hold on every table with a tenant, those of the platform and every partition, for the owner too."""
    forced = set(connection.scalars(sa.text(_FORCED), _SCHEMAS))
    wanted = [f"{SCHEMA}.{table}" for table in (*tenant_tables(), *PLATFORM_TABLES)]
    wanted += [f"{PARTITION_SCHEMA}.{name}" for name in _partitions(connection)]
    for table in wanted:
        if table not in forced:
            yield Finding(
                f"The table {table} lacks forced row-level security, or is not there.",
                f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;",
            )


def _check_policies(connection: Connection) -> Iterator[Finding]:
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


# A function without an access list is open to PUBLIC, as ``acldefault`` says.
_FUNCTIONS = """
    SELECT n.nspname, p.proname || '(' || oidvectortypes(p.proargtypes) || ')' AS signature, p.prosecdef,
           pg_get_userbyid(p.proowner) AS owner, COALESCE(p.proconfig, '{}') AS settings,
           ARRAY(SELECT COALESCE(r.rolname, 'public')
                 FROM aclexplode(COALESCE(p.proacl, acldefault('f', p.proowner))) a
                 LEFT JOIN pg_roles r ON r.oid = a.grantee ORDER BY 1) AS callers
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = ANY(:schemas) ORDER BY 1, 2
"""


def _check_functions(connection: Connection) -> Iterator[Finding]:
    """Each function is declared, belongs to the owner, has its search path pinned, and its callers and no other."""
    found = {f"{row.nspname}.{row.signature}": row for row in connection.execute(sa.text(_FUNCTIONS), _SCHEMAS)}
    wanted = {f"{SCHEMA}.{signature}": function for signature, function in FUNCTIONS.items()}
    for name, row in found.items():
        function = wanted.get(name)
        if function is None:
            yield Finding(f"The platform did not make the function {name}.", f"DROP FUNCTION {name};")
            continue
        if row.owner != OWNER_ROLE:
            what = f"The function {name} belongs to {row.owner}, not to {OWNER_ROLE}."
            yield Finding(what, f"ALTER FUNCTION {name} OWNER TO {OWNER_ROLE};")
        if row.prosecdef != function.is_definer:
            acts, wants = ("DEFINER", "INVOKER") if row.prosecdef else ("INVOKER", "DEFINER")
            yield Finding(f"The function {name} is SECURITY {acts}.", f"ALTER FUNCTION {name} SECURITY {wants};")
        if PINNED_PATH not in row.settings:
            what = f"The function {name} has no pinned search path, so a caller can substitute other tables."
            yield Finding(what, f"ALTER FUNCTION {name} SET search_path = pg_catalog, pg_temp;")
        yield from _callers(name, set(row.callers), {OWNER_ROLE, *function.callers})
    for name in wanted.keys() - found.keys():
        yield Finding(f"The function {name} is missing.", "Restore the schema from a backup; it was changed by hand.")


def _callers(name: str, found: set[str], wanted: set[str]) -> Iterator[Finding]:
    for role in sorted(found - wanted):
        yield Finding(f"{role} may call {name}, which it must not.", f"REVOKE EXECUTE ON FUNCTION {name} FROM {role};")
    for role in sorted(wanted - found):
        yield Finding(f"{role} may not call {name}.", f"GRANT EXECUTE ON FUNCTION {name} TO {role};")


_TRIGGERS = """
    SELECT n.nspname, c.relname, t.tgname, t.tgenabled::text AS enabled, pg_get_triggerdef(t.oid) AS definition
    FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = ANY(:schemas) AND NOT t.tgisinternal ORDER BY 1, 2, 3
"""


def _check_triggers(connection: Connection) -> Iterator[Finding]:
    """Each trigger is there as it was made, and fires."""
    missing = declared_triggers()
    for row in connection.execute(sa.text(_TRIGGERS), _SCHEMAS):
        where = f"{row.nspname}.{row.relname}"
        wanted = missing.pop((row.relname, row.tgname), None)
        if wanted is None:
            what = f"The table {where} has a trigger {row.tgname} that the platform did not make."
            yield Finding(what, f'DROP TRIGGER "{row.tgname}" ON {where};')
        elif row.definition != wanted:
            what = f"The trigger {row.tgname} of {where} was changed."
            yield Finding(what, f"DROP TRIGGER {row.tgname} ON {where}; {wanted};")
        elif row.enabled not in "OA":
            what = f"The trigger {row.tgname} of {where} is switched off."
            yield Finding(what, f"ALTER TABLE {where} ENABLE TRIGGER {row.tgname};")
    for (table, name), wanted in missing.items():
        yield Finding(f"The table {SCHEMA}.{table} lacks its trigger {name}.", f"{wanted};")


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


def _check_grants(connection: Connection) -> Iterator[Finding]:
    """Tables, their columns, partitions, views and the schemas themselves."""
    rows = connection.execute(sa.text(_GRANTS), _SCHEMAS)
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
