"""The triggers, which keep rows true and immutable: those that are declared, switched on, and no other."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.database.check.finding import Finding
from ml_core.database.security import declared_triggers
from ml_core.database.tables import PARTITION_SCHEMA, SCHEMA

_TRIGGERS = """
    SELECT n.nspname, c.relname, t.tgname, t.tgenabled::text AS enabled, pg_get_triggerdef(t.oid) AS definition
    FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = ANY(:schemas) AND NOT t.tgisinternal ORDER BY 1, 2, 3
"""


def check_triggers(connection: Connection) -> Iterator[Finding]:
    """Each trigger is there as it was made, and fires."""
    missing = declared_triggers()
    for row in connection.execute(sa.text(_TRIGGERS), {"schemas": [SCHEMA, PARTITION_SCHEMA]}):
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
