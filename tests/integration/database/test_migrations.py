"""The migrations: their sum is what the code declares."""

from __future__ import annotations

import re

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from psycopg.errors import CheckViolation

from ml_core.database import migrate, tables
from ml_core.database.connection import DatabaseConnection
from ml_core.database.migrate import MIGRATIONS
from ml_core.database.tables import sizes
from ml_core.exceptions import RegistryUnavailableError
from ml_core.settings import Settings
from support.registry import superuser

# A column and its bytes at most, in a constraint as Postgres prints it.
SIZE = re.compile(r"octet_length\(\(?(\w+)\)?(?:::text)?\) <= (\d+)")
# Tenant, key id, salt and hash of a key, as SQL.
KEY = "'t', '0123456789abcdef', '', decode(repeat('00', 32), 'hex')"


def test_the_tables_in_code_are_the_sum_of_the_migrations(db: DatabaseConnection) -> None:
    """A migrated database differs from ``tables.py`` in nothing: tables, columns, types, defaults, keys, indexes."""
    options = {
        "include_schemas": True,
        "include_name": lambda name, kind, parents: kind != "schema" or name == tables.SCHEMA,
        "compare_type": True,
        "compare_server_default": True,
        "version_table_schema": tables.SCHEMA,
    }
    with db._engine(db.urls.owner).connect() as connection:
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, tables.metadata) == []


def test_names_of_constraints_are_those_declared(db: DatabaseConnection) -> None:
    """Repositories tell errors apart by constraint names, so code and migrations agree on every one of them."""
    query = """
        SELECT conname FROM pg_constraint JOIN pg_class c ON c.oid = conrelid
        WHERE connamespace = 'mlcore'::regnamespace AND contype NOT IN ('n', 't') AND c.relname <> 'alembic_version'
    """
    with superuser(db) as session:
        found = {row[0] for row in session.execute(query)}
    with db._engine(db.urls.owner).connect() as connection:
        preparer = connection.dialect.identifier_preparer
        constraints = [each for table in tables.metadata.sorted_tables for each in table.constraints]
        named = {preparer.format_constraint(constraint) for constraint in constraints}
    assert found == named


def test_names_are_checked_as_the_code_parses_them(db: DatabaseConnection) -> None:
    """Each check that ``tables.py`` declares over a name's grammar is in the database with the same pattern."""
    declared = {
        check.sqltext.text.split("'")[1]
        for table in tables.metadata.sorted_tables
        for check in table.constraints
        if isinstance(check, sa.CheckConstraint) and "~" in check.sqltext.text
    }
    with superuser(db) as session:
        rows = session.execute(
            "SELECT pg_get_constraintdef(oid) FROM pg_constraint"
            " WHERE contype = 'c' AND connamespace = 'mlcore'::regnamespace"
        )
        found = {row[0].split("'")[1] for row in rows if " ~ " in row[0]}
    assert found == declared


@pytest.mark.parametrize(
    ("table", "columns", "values"),
    [
        ("tenants", "tenant_id, feed_generation", "'Not A Name', 1"),
        ("models", "tenant_id, model_id, model_type", "'t', '../up', 'x'"),
        ("api_keys", "tenant_id, key_id, salt, hash, scopes, name, feed_generation", f"{KEY}, '{{}}', 'n', 1"),
        ("api_keys", "tenant_id, key_id, salt, hash, scopes, name, feed_generation", f"{KEY}, '{{NULL}}', 'n', 1"),
        ("api_keys", "tenant_id, key_id, salt, hash, scopes, name, feed_generation", f"{KEY}, '{{read}}', '', 1"),
    ],
)
def test_the_database_refuses_what_no_code_of_ours_writes(
    db: DatabaseConnection, table: str, columns: str, values: str
) -> None:
    """Checks hold for everybody, a superuser as well."""
    with superuser(db) as session, pytest.raises(CheckViolation):
        session.execute(f"INSERT INTO mlcore.{table} ({columns}) VALUES ({values})")


def test_the_declared_revision_is_the_newest_migration() -> None:
    """``SCHEMA_REVISION``, which is compared at start without loading Alembic, is Alembic's head."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_current_head() == tables.SCHEMA_REVISION


def test_a_second_upgrade_waits_for_the_first_and_says_so(
    db: DatabaseConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One migrates at a time; whoever waited long enough is told for what, and the next call is served."""
    monkeypatch.setattr(migrate, "_LOCK_WAIT", "50ms")
    with superuser(db) as session:
        session.execute("SELECT pg_advisory_lock(%s)", (migrate._ADVISORY_LOCK,))
        with pytest.raises(RegistryUnavailableError, match="Another process is upgrading"):
            db.migrate()
    db.migrate()


def test_each_migration_can_be_undone(db: DatabaseConnection) -> None:
    """Down to nothing and up again, in a database of its own; each step leaves no table of a later one."""
    from alembic import command

    with superuser(db) as session:
        session.execute("DROP DATABASE IF EXISTS undone")
        session.execute("CREATE DATABASE undone OWNER mlcore_owner")
    try:
        with DatabaseConnection(db.urls.owner.replace("/mlcore?", "/undone?"), settings=Settings()) as other:
            other.migrate()
            with other._engine(other.urls.owner).connect() as connection:
                config = Config()
                config.set_main_option("script_location", str(MIGRATIONS))
                config.attributes["connection"] = connection
                command.downgrade(config, "base")
                left = sa.inspect(connection).get_table_names(schema=tables.SCHEMA)
            assert left == ["alembic_version"]
            other.migrate()
            with other._engine(other.urls.owner).connect() as connection:
                revision = connection.scalar(sa.text("SELECT version_num FROM mlcore.alembic_version"))
            assert revision == tables.SCHEMA_REVISION
    finally:
        with superuser(db) as session:
            session.execute("DROP DATABASE undone WITH (FORCE)")


def test_sizes_are_bounded_as_the_code_says(db: DatabaseConnection) -> None:
    """Every text and document of a tenant's row has its limit, the same in ``tables`` and in the database."""
    query = "SELECT conrelid::regclass::text, pg_get_constraintdef(oid) FROM pg_constraint WHERE conname LIKE '%_sizes'"
    with superuser(db) as session:
        found = {
            table.removeprefix("mlcore."): {name: int(size) for name, size in SIZE.findall(rule)}
            for table, rule in session.execute(query)
        }
    declared = {table.name: sizes.limits(table) for table in tables.metadata.sorted_tables}
    assert found == {name: limits for name, limits in declared.items() if limits}
