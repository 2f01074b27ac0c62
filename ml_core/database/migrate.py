"""Migrations, driven from code: the roles and the schema first, then Alembic up to this release's revision."""

from __future__ import annotations

from pathlib import Path

import psycopg
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.database.security import APP_ROLE, INGEST_ROLE, OWNER_ROLE, ROLES
from ml_core.database.tables import SCHEMA
from ml_core.exceptions import ConfigurationError, SchemaOutOfDateError

MIGRATIONS = Path(__file__).parent / "migrations"

_ADVISORY_LOCK = 0x6D6C636F  # "mlco": one migration at a time in a database
_PREPARATION = (
    "CREATE ROLE mlcore_owner; CREATE ROLE mlcore_app; CREATE ROLE mlcore_ingest; "
    "GRANT mlcore_owner, mlcore_app, mlcore_ingest TO <login>; CREATE SCHEMA mlcore AUTHORIZATION mlcore_owner;"
)


def read_revision(connection: Connection) -> str | None:
    """The schema's revision, or None if the database was never migrated. Leaves the transaction in the runtime role."""
    exists = connection.scalar(
        sa.text(
            "SELECT true FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE n.nspname = :schema AND c.relname = 'alembic_version'"
        ),
        {"schema": SCHEMA},
    )
    if not exists:
        return None
    connection.execute(sa.text("SELECT set_config('role', :role, true)"), {"role": APP_ROLE})
    revision = connection.scalar(sa.text(f"SELECT version_num FROM {SCHEMA}.alembic_version"))  # noqa: S608 - a constant
    return None if revision is None else str(revision)


def upgrade(connection: Connection) -> None:
    """Bring the schema to this release's revision, in the caller's transaction.

    Args:
        connection: In a transaction, as a login that may act as ``mlcore_owner``, or may create it.

    Raises:
        ConfigurationError: The login may not; the remedy is the SQL for an administrator.
        SchemaOutOfDateError: The database's revision is unknown here: it is of a newer release.
    """
    connection.execute(sa.text("SELECT set_config('lock_timeout', '60s', true)"))
    connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
    try:
        _prepare(connection)
    except sa.exc.ProgrammingError as error:
        if not isinstance(error.orig, psycopg.errors.InsufficientPrivilege):
            raise
        raise ConfigurationError(
            f"The login for migrations may not prepare the database: {str(error.orig).strip()}",
            remedy=f"Let an administrator run, as far as it is missing: {_PREPARATION}",
            setting="MLCORE_DATABASE_OWNER_URL",
        ) from error
    _run_alembic(connection)


def _prepare(connection: Connection) -> None:
    """Make what is missing of the roles and the schema, and go on as the owner."""
    present = set(
        connection.scalars(sa.text("SELECT rolname FROM pg_roles WHERE rolname = ANY(:roles)"), {"roles": list(ROLES)})
    )
    for role in ROLES:
        if role not in present:
            connection.execute(sa.text(f"CREATE ROLE {role} NOLOGIN"))
    login, is_superuser = connection.execute(
        sa.text("SELECT quote_ident(session_user), rolsuper FROM pg_roles WHERE rolname = session_user")
    ).one()
    if not is_superuser and login != OWNER_ROLE:
        for role in ROLES:
            if not connection.scalar(sa.text("SELECT pg_has_role(session_user, :role, 'SET')"), {"role": role}):
                connection.execute(sa.text(f"GRANT {role} TO {login}"))
    if not connection.scalar(sa.text("SELECT true FROM pg_namespace WHERE nspname = :name"), {"name": SCHEMA}):
        connection.execute(sa.text(f"CREATE SCHEMA {SCHEMA} AUTHORIZATION {OWNER_ROLE}"))
    connection.execute(sa.text("SELECT set_config('role', :role, true)"), {"role": OWNER_ROLE})
    connection.execute(sa.text(f"GRANT USAGE ON SCHEMA {SCHEMA} TO {APP_ROLE}, {INGEST_ROLE}"))


def _run_alembic(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.util.exc import CommandError

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise SchemaOutOfDateError(
            f"The registry's schema can't be brought up to date: {error}.",
            remedy="Use the newer release that the database belongs to.",
        ) from error
