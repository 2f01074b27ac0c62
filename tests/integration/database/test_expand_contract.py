"""Expand, then contract: while releases change, programs of the one before go on working on the new schema.

``releases/0001.json`` is every statement that release 0001 sent while it was used from end to end, captured from that
release itself. They are played on its own schema, then the schema is upgraded, then they are played again.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from psycopg.types.json import Jsonb

from ml_core.database.connection import DatabaseConnection
from ml_core.database.migrate import upgrade
from ml_core.database.security import UPGRADE_POLICY
from ml_core.database.tables import SCHEMA_REVISION
from ml_core.exceptions import RegistryUnavailableError
from ml_core.ids import TenantId
from ml_core.registry.promotion.environments import PRODUCTION, EnvironmentRepository
from ml_core.registry.runs import RunRepository
from ml_core.registry.versions.repository import VersionRepository
from ml_core.registry.versions.search import MetricRange, VersionQuery
from ml_core.settings import Settings
from support.registry import TICKETS, superuser

RELEASE = json.loads((Path(__file__).parent / "releases" / "0001.json").read_text())
BEFORE, AFTER = TenantId("before"), TenantId("after")
# What a later schema may not take away while programs of the release before still run.
TAKES_AWAY = ("DROP COLUMN", "DROP TABLE", " RENAME ", "SET NOT NULL", "ALTER COLUMN", "DROP POLICY", "REVOKE")


@pytest.fixture
def old(db: DatabaseConnection, request: pytest.FixtureRequest) -> Iterator[DatabaseConnection]:
    """A database at the schema of release 0001, filled by its own statements."""
    name = f"old{abs(hash(request.node.name)) % 10**8}"
    with superuser(db) as session:
        session.execute(f"DROP DATABASE IF EXISTS {name}")
        session.execute(f"CREATE DATABASE {name} OWNER mlcore_owner")
    url = db.urls.owner.replace("mlcore_owner@/mlcore?", f"postgres@/{name}?")
    with DatabaseConnection(url, settings=Settings()) as connection:
        upgrade(connection._engine(url), "0001")
        play(connection, BEFORE)
        yield connection
    with superuser(db) as session:
        session.execute(f"DROP DATABASE {name} WITH (FORCE)")


def play(db: DatabaseConnection, tenant: TenantId) -> None:
    """Send the statements of release 0001 again, as the roles that sent them, for a tenant."""
    with psycopg.connect(db.urls.owner, autocommit=True) as session:
        for transaction in RELEASE:
            with session.transaction():
                session.execute("SELECT set_config('role', %s, true)", (transaction["role"],))
                if transaction["tenant"]:
                    entry = db._entry(_value(transaction["tenant"], tenant))
                    session.execute("SELECT mlcore.enter(%(tenant)s, %(by)s, %(seal)s)", entry)
                for statement in transaction["statements"]:
                    parameters = {name: _value(value, tenant) for name, value in statement["parameters"].items()}
                    session.execute(statement["sql"], parameters)


def _value(value: Any, tenant: TenantId) -> Any:
    """A captured parameter, with the names that are unique over all tenants made the tenant's own."""
    if isinstance(value, dict):
        return base64.b64decode(value["base64"]) if value.keys() == {"base64"} else Jsonb(value)
    if value == BEFORE:
        return str(tenant)
    is_key = isinstance(value, str) and len(value) == 16 and set(value) <= set("0123456789abcdef")
    return value[::-1] if is_key and tenant != BEFORE else value


def test_what_the_release_before_wrote_is_read(old: DatabaseConnection) -> None:
    """After the upgrade its versions, pointers, histories and runs are all there, and found by their metrics."""
    old.migrate()
    versions = VersionRepository(old, BEFORE)
    assert [version.version for version in versions.list(TICKETS)] == ["2", "1"]
    found = versions.search(VersionQuery(metrics=[MetricRange("accuracy", at_least=0.15)]))
    assert [version.version for version in found.items] == ["2"]
    environments = EnvironmentRepository(old, BEFORE)
    assert environments.get(TICKETS, PRODUCTION).version == "1"
    assert [entry.action for entry in environments.history(TICKETS, PRODUCTION)] == ["rollback", "promote", "promote"]
    (run,) = RunRepository(old, BEFORE).list(TICKETS)
    assert RunRepository(old, BEFORE).get(run.run_id).status == "finished"


def test_no_migration_takes_anything_away(old: DatabaseConnection) -> None:
    """An upgrade only adds. A release that contracts says here what it takes away, and since when nobody needs it.

    What is listed was never released: the wall of 0007 takes from the runtime what let it delete rows and lock tables.
    """
    sent: list[str] = []
    engine = old._engine(old.urls.owner)

    def note(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        sent.append(" ".join(statement.split()))

    sa.event.listen(engine, "before_cursor_execute", note)
    old.migrate()
    own = f"DROP POLICY IF EXISTS {UPGRADE_POLICY} "  # which the upgrade made, while it moves data
    taken = [each for each in sent for word in TAKES_AWAY if word in each.upper() and not each.startswith(own)]
    assert any("ADD COLUMN" in statement for statement in sent)
    passed_over = ("FROM PUBLIC", "CREATE FUNCTION", "CK_ENVIRONMENT_HISTORY_RESTORED_GENERATION")
    assert [each for each in taken if not any(word in each.upper() for word in passed_over)] == []


def test_a_migration_gives_up_rather_than_block(old: DatabaseConnection) -> None:
    """While a long transaction holds a table, it ends after its lock timeout, says so, and has changed nothing."""
    with psycopg.connect(old.urls.owner) as holder:
        holder.execute("LOCK TABLE mlcore.environments IN ACCESS SHARE MODE")
        with pytest.raises(RegistryUnavailableError, match="Nothing of it was changed; the schema is at 0001"):
            old.migrate()
        assert old.current_revision() == "0001"
    old.migrate()
    assert old.current_revision() == SCHEMA_REVISION


def test_a_migration_that_gives_up_leaves_those_before_it(old: DatabaseConnection) -> None:
    """Each is a transaction: the ones before the table that is held are applied, and the error says which."""
    with psycopg.connect(old.urls.owner) as holder:
        holder.execute("LOCK TABLE mlcore.outbox IN ACCESS SHARE MODE")
        with pytest.raises(RegistryUnavailableError, match="the schema is at 0002"):
            old.migrate()
        assert holder.execute("SELECT to_regclass('mlcore.gates'), to_regclass('mlcore.audit')").fetchone() == (
            "mlcore.gates",
            None,
        )
    old.migrate()
    assert old.current_revision() == SCHEMA_REVISION


def test_every_migration_has_time_limits(old: DatabaseConnection) -> None:
    """Each is stamped in a transaction that has them."""
    limits: list[tuple[str, ...]] = []
    engine = old._engine(old.urls.owner)

    def note(_c: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("UPDATE mlcore.alembic_version"):
            settings = "SELECT current_setting('lock_timeout'), current_setting('statement_timeout')"
            limits.append(cursor.connection.execute(settings).fetchone())

    sa.event.listen(engine, "before_cursor_execute", note)
    old.migrate()
    assert len(limits) >= 5
    assert set(limits) == {("4s", "5s")}


def test_an_upgrade_leaves_nothing_on_the_session(old: DatabaseConnection) -> None:
    """The pool gives out no session that still acts as the owner, has the migrations' limits or holds their lock."""
    old.migrate()
    with old._engine(old.urls.owner).begin() as connection:
        kept = connection.execute(sa.text("SELECT CURRENT_USER, current_setting('lock_timeout')")).one()
        locks = connection.scalar(sa.text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted"))
    assert (*kept, locks) == ("postgres", "0", 0)


def fill_up(old: DatabaseConnection, versions: int, points: int) -> None:
    """Versions with two metrics each, and runs with a series of so many points each."""
    with psycopg.connect(old.urls.owner, autocommit=True) as session:
        session.execute(
            "INSERT INTO mlcore.versions (tenant_id, model_id, version, number, digest, size_bytes, format,"
            " created_by, metrics) SELECT tenant_id, model_id, 'v' || i, 100 + i, md5(i::text) || md5('x' || i), 1,"
            """ 's', 'x', '{"validation": {"a": 0.5, "b": "no number", "c": 2}}'"""
            " FROM mlcore.models, generate_series(1, %s) i WHERE model_id = 'tickets'",
            (versions,),
        )
        session.execute(
            "INSERT INTO mlcore.runs (tenant_id, run_id, model_id, kind, status)"
            " SELECT 'before', 'many' || i, 'm', 'train', 'finished' FROM generate_series(1, 250) i"
        )
        session.execute(
            "INSERT INTO mlcore.run_metrics (tenant_id, run_id, metric, step, value)"
            " SELECT 'before', 'many' || i, 'loss', s, CASE WHEN s = 2 THEN 'NaN'::float8 ELSE s END"
            " FROM generate_series(1, 250) i, generate_series(1, %s) s",
            (points,),
        )


MOVED = """
SELECT (SELECT count(*) FROM mlcore.version_metrics WHERE split = 'validation' AND metric IN ('a', 'c')),
  (SELECT count(*) FROM mlcore.run_metric_summaries
   WHERE run_id LIKE 'many%' AND (points, not_finite, last_step, last_value, minimum, maximum) = (10, 1, 10, 10, 1, 10))
"""


def test_data_is_moved_in_batches_of_which_none_is_forgotten(old: DatabaseConnection) -> None:
    """Of more versions and runs than a batch holds each has its rows, and the owner can read no tenant's afterwards."""
    fill_up(old, versions=2_500, points=10)
    old.migrate()
    with psycopg.connect(old.urls.owner) as session:
        assert session.execute(MOVED).fetchone() == (5_000, 250)
        left = session.execute("SELECT count(*) FROM pg_policy WHERE polname = %s", (UPGRADE_POLICY,)).fetchone()
    assert left == (0,)


@pytest.mark.parametrize("table", ["version_metrics", "run_metric_summaries"])
def test_an_upgrade_that_is_killed_while_it_moves_data_goes_on(old: DatabaseConnection, table: str) -> None:
    """A session that dies in the second batch leaves the first; run again, the upgrade does all of it."""
    fill_up(old, versions=2_500, points=10)
    batches: list[str] = []
    engine = old._engine(old.urls.owner)

    def kill(_c: Any, cursor: Any, statement: str, *_: Any) -> None:
        if f"INSERT INTO mlcore.{table}" in statement:
            batches.append(statement)
            if len(batches) == 2:
                with psycopg.connect(old.urls.owner, autocommit=True) as session:
                    session.execute("SELECT pg_terminate_backend(%s)", (cursor.connection.info.backend_pid,))

    sa.event.listen(engine, "before_cursor_execute", kill)
    with pytest.raises(RegistryUnavailableError):
        old.migrate()
    with psycopg.connect(old.urls.owner) as session:
        moved = session.execute(f"SELECT count(*) FROM mlcore.{table}").fetchone()
    assert moved is not None
    assert 0 < moved[0] < {"version_metrics": 5_000, "run_metric_summaries": 250}[table]
    assert old.current_revision() in {"0003", "0004"}
    old.migrate()
    with psycopg.connect(old.urls.owner) as session:
        assert session.execute(MOVED).fetchone() == (5_000, 250)


def test_environments_are_read_while_data_is_moved(old: DatabaseConnection) -> None:
    """In the middle of it a replica reads pointers, versions and runs without waiting, and a program writes."""
    fill_up(old, versions=2_500, points=10)
    answered: list[str] = []
    engine = old._engine(old.urls.owner)

    def read(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "WITH batch AS" in statement:
            with psycopg.connect(old.urls.owner, autocommit=True) as session:
                session.execute("SET lock_timeout = '1ms'")
                for table in ("environments", "versions", "runs", "run_metrics"):
                    session.execute(f"SELECT 1 FROM mlcore.{table} LIMIT 1")
                session.execute("UPDATE mlcore.versions SET metadata = '{}' WHERE version = 'v1'")
                session.execute("UPDATE mlcore.runs SET heartbeat_at = now() WHERE run_id = 'many1'")
            answered.append(statement)

    sa.event.listen(engine, "before_cursor_execute", read)
    old.migrate()
    assert len(answered) >= 6
