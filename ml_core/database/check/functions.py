"""The functions of the schema: which exist, whether they run as the owner, and who may call them."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.database.check.finding import Finding
from ml_core.database.security import FUNCTIONS, OWNER_ROLE, PINNED_PATH
from ml_core.database.tables import PARTITION_SCHEMA, SCHEMA

# A function without an access list is open to PUBLIC, as ``acldefault`` says.
_FUNCTIONS = """
    SELECT n.nspname, p.proname || '(' || oidvectortypes(p.proargtypes) || ')' AS signature, p.prosecdef,
           pg_get_userbyid(p.proowner) AS owner, COALESCE(p.proconfig, '{}') AS settings,
           ARRAY(SELECT COALESCE(r.rolname, 'public')
                 FROM aclexplode(COALESCE(p.proacl, acldefault('f', p.proowner))) a
                 LEFT JOIN pg_roles r ON r.oid = a.grantee ORDER BY 1) AS callers
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = ANY(:schemas) ORDER BY 1, 2
"""


def check_functions(connection: Connection) -> Iterator[Finding]:
    """Each function is declared, belongs to the owner, has its search path pinned, and its callers and no other."""
    found = {
        f"{row.nspname}.{row.signature}": row
        for row in connection.execute(sa.text(_FUNCTIONS), {"schemas": [SCHEMA, PARTITION_SCHEMA]})
    }
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
