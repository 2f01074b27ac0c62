"""Whether a database keeps what the platform promises: revision, roles, policies, functions, triggers and grants.

What is declared is in ``ml_core.database.security``. Everything else is a finding: what is missing, and what is there
beyond it.
"""

from __future__ import annotations

from ml_core.database.check.finding import Finding
from ml_core.database.check.functions import check_functions
from ml_core.database.check.grants import check_grants
from ml_core.database.check.policies import check_policies, check_row_security
from ml_core.database.check.roles import check_owners, check_roles, check_sessions
from ml_core.database.check.triggers import check_triggers
from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables import SCHEMA_REVISION
from ml_core.exceptions import Action

__all__ = ["Finding", "check"]


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
        *(check_roles, check_sessions, check_owners, check_row_security, check_policies),
        *(check_functions, check_triggers, check_grants),
    )
    with db.catalogue() as connection:
        return [finding for look in looks for finding in look(connection)]
