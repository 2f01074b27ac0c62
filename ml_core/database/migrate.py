"""Migrations, driven from code: the roles and the schema first, then Alembic up to this release's revision."""

from __future__ import annotations

from pathlib import Path

import psycopg
import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from ml_core.database.security import APP_ROLE, INGEST_ROLE, OWNER_ROLE, ROLES, limit_roles
from ml_core.database.tables import PARTITION_SCHEMA, SCHEMA
from ml_core.exceptions import ConfigurationError, RegistryUnavailableError, SchemaOutOfDateError

MIGRATIONS = Path(__file__).parent / "migrations"

_ADVISORY_LOCK = 0x6D6C636F  # "mlco": one migration at a time in a database
_LOCK_WAIT = "60s"
_GAVE_UP = (psycopg.errors.LockNotAvailable, psycopg.errors.QueryCanceled, psycopg.errors.DeadlockDetected)
_PREPARATION = (
    "CREATE ROLE mlcore_owner; CREATE ROLE mlcore_app; CREATE ROLE mlcore_ingest; GRANT mlcore_app TO mlcore_owner; "
    "GRANT mlcore_owner, mlcore_app, mlcore_ingest TO <login>; CREATE SCHEMA mlcore AUTHORIZATION mlcore_owner; "
    "CREATE SCHEMA mlcore_predictions AUTHORIZATION mlcore_owner;"
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


def upgrade(engine: Engine) -> None:
    """Bring the schema to this release's revision: each migration in a transaction of its own, one after the other.

    Safe to repeat, and safe to call from several processes at once. If it is killed, what was applied stays applied,
    and the next call continues from there. It needs a direct connection, not a transaction pooler.

    Args:
        engine: Of a login that may act as ``mlcore_owner``, or may create it.

    Raises:
        ConfigurationError: The login may not; the remedy is the SQL for an administrator.
        SchemaOutOfDateError: The database's revision is unknown here: it is of a newer release.
        RegistryUnavailableError: A lock or a statement took too long, or another upgrade is running.
    """
    with engine.connect() as connection:
        try:
            _lock(connection)
            with connection.begin():
                _prepare_or_explain(connection)
            _run_alembic(connection)
        finally:
            connection.invalidate()  # the session ends, and with it the lock, the role and the limits


def _lock(connection: Connection) -> None:
    try:
        with connection.begin():
            connection.execute(sa.text("SELECT set_config('lock_timeout', :wait, true)"), {"wait": _LOCK_WAIT})
            connection.execute(sa.text("SELECT pg_advisory_lock(:key)"), {"key": _ADVISORY_LOCK})
    except sa.exc.OperationalError as error:
        if not isinstance(error.orig, psycopg.errors.LockNotAvailable):
            raise
        raise RegistryUnavailableError(
            f"Another process is upgrading this registry; this one waited {_LOCK_WAIT} for it.",
            remedy="Wait until it is done, then try again.",
        ) from error


def _prepare_or_explain(connection: Connection) -> None:
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


def create_roles(connection: Connection) -> None:
    """Make the platform's roles, as far as they are missing."""
    present = set(
        connection.scalars(sa.text("SELECT rolname FROM pg_roles WHERE rolname = ANY(:roles)"), {"roles": list(ROLES)})
    )
    for role in ROLES:
        if role not in present:
            connection.execute(sa.text(f"CREATE ROLE {role} NOLOGIN"))
    if not present.issuperset(ROLES):
        for statement in limit_roles():
            connection.execute(sa.text(statement))


def _prepare(connection: Connection) -> None:
    """Make what is missing of the roles and the schema, and go on as the owner."""
    create_roles(connection)
    login, is_superuser = connection.execute(
        sa.text("SELECT quote_ident(session_user), rolsuper FROM pg_roles WHERE rolname = session_user")
    ).one()
    if not is_superuser and login != OWNER_ROLE:
        for role in ROLES:
            if not connection.scalar(sa.text("SELECT pg_has_role(session_user, :role, 'SET')"), {"role": role}):
                connection.execute(sa.text(f"GRANT {role} TO {login}"))
    for schema in (SCHEMA, PARTITION_SCHEMA):
        if not connection.scalar(sa.text("SELECT true FROM pg_namespace WHERE nspname = :name"), {"name": schema}):
            connection.execute(sa.text(f"CREATE SCHEMA {schema} AUTHORIZATION {OWNER_ROLE}"))
    connection.execute(sa.text(f"SET ROLE {OWNER_ROLE}"))
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
    except sa.exc.OperationalError as error:
        if not isinstance(error.orig, _GAVE_UP):
            raise
        raise RegistryUnavailableError(
            f"A migration gave up, so as not to block the platform: {str(error.orig).strip().splitlines()[0]}.",
            remedy=f"Nothing of it was changed; the schema is at {_applied(connection) or 'no revision'}. "
            "Look for long transactions (pg_stat_activity), then run the upgrade again: it continues from there.",
        ) from error
    except sa.exc.PendingRollbackError as error:  # Alembic tried to go on with a session that was gone
        raise RegistryUnavailableError(
            "The connection to Postgres was lost during the upgrade.",
            remedy="Check that Postgres runs and can be reached, then run the upgrade again: it continues from there.",
        ) from error
    except CommandError as error:
        raise SchemaOutOfDateError(
            f"The registry's schema can't be brought up to date: {error}.",
            remedy="Use the newer release that the database belongs to. A registry of an unreleased version can't be "
            "upgraded: set MLCORE_HOME to a new folder, or name an empty database.",
        ) from error


def _applied(connection: Connection) -> str | None:
    """The revision of the last migration that was applied, as the owner sees it."""
    connection.rollback()
    if not sa.inspect(connection).has_table("alembic_version", schema=SCHEMA):
        return None
    revision = connection.scalar(sa.text(f"SELECT version_num FROM {SCHEMA}.alembic_version"))  # noqa: S608 - a constant
    return None if revision is None else str(revision)
