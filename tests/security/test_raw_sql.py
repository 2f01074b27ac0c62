"""Raw SQL under the runtime role, as an injection would send it: a statement may fail, and none does harm.

Each attack runs in transactions that the platform began for its own tenant, on one server process.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import psycopg
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.engine import Connection

from ml_core.database import security
from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables import metadata, sizes
from ml_core.domain.principal import Principal
from ml_core.ids import TenantId
from ml_core.registry.datasets import DatasetRepository
from ml_core.registry.feed import FeedReader
from ml_core.registry.keys import KeyRepository
from ml_core.registry.promotion.environments import PRODUCTION, EnvironmentRepository
from ml_core.settings import DatabaseSettings, Settings
from support.filled import fill
from support.registry import TICKETS, new_tenant, register, superuser

MALLORY = Principal("mallory", frozenset())


@pytest.fixture(scope="module")
def session(db: DatabaseConnection) -> Iterator[DatabaseConnection]:
    """The registry through one server process, as somebody without a single right."""
    given = Settings(database=DatabaseSettings(pool_size=1), platform=db.settings.platform)
    with DatabaseConnection(settings=given) as connection:
        yield connection.acting_as(MALLORY, "req-1")


@pytest.fixture(scope="module")
def victim(db: DatabaseConnection) -> TenantId:
    """A tenant with rows in every table."""
    tenant = new_tenant(db)
    fill(db, tenant)
    return tenant


@pytest.fixture(scope="module")
def attacker(db: DatabaseConnection) -> TenantId:
    """The tenant in whose transactions the SQL runs."""
    tenant = new_tenant(db)
    fill(db, tenant)
    return tenant


def attempt(connection: Connection, statement: str, **parameters: object) -> list[sa.Row[tuple[object, ...]]] | None:
    """What a statement returns, or None if it is refused; the transaction goes on."""
    try:
        with connection.begin_nested():
            result = connection.execute(sa.text(statement), parameters)
            return list(result) if result.returns_rows else []
    except sa.exc.DBAPIError:
        return None


# One tenant reads and writes another's rows.

STEPS = (
    "SELECT set_config('app.tenant_id', :victim, true)",
    "SELECT set_config('app.tenant_id', :victim, false)",
    "SELECT set_config('app.by', E'\n' || :victim, true)",
    "SELECT set_config('app.seal', current_setting('stolen.seal', true), true)",
    "SELECT set_config('stolen.seal', current_setting('app.seal'), false)",
    "SELECT set_config('app.seal', encode(sha256(convert_to(:victim, 'UTF8')), 'hex'), true)",
    "SELECT mlcore.enter(:victim, E'\nroot', current_setting('app.seal'))",
    "SELECT mlcore.enter(:victim, current_setting('app.by'), current_setting('stolen.seal', true))",
    "SELECT tenant_key FROM mlcore.tenant_key",
    "RESET app.seal",
    "RESET ROLE",
    "SET ROLE mlcore_owner",
    "SET ROLE mlcore_ingest",
    "SET SESSION AUTHORIZATION mlcore_owner",
    "SET row_security = off",
    "SET search_path = pg_temp, mlcore",
    "SET timezone = 'Asia/Tokyo'",
    "SAVEPOINT s",
    "ROLLBACK TO s",
    "DISCARD TEMP",
)


def sees(connection: Connection, victim: TenantId) -> list[str]:
    """The tables of which the transaction shows a row of the victim."""
    tables = security.tenant_tables()
    counts = (f"(SELECT count(*) FROM mlcore.{table} WHERE tenant_id = :victim)" for table in tables)
    rows = attempt(connection, "SELECT " + ", ".join(counts), victim=victim)
    return [] if rows is None else [table for table, count in zip(tables, rows[0], strict=True) if count]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plan=st.lists(st.tuples(st.booleans(), st.lists(st.sampled_from(STEPS), max_size=5)), min_size=1, max_size=4))
def test_no_order_of_statements_shows_another_tenant(
    session: DatabaseConnection, attacker: TenantId, victim: TenantId, plan: list[tuple[bool, list[str]]]
) -> None:
    """Whatever was set, stolen or left behind in transactions of either tenant, the attacker's shows its own rows."""
    pids = set()
    for is_victims, statements in [*plan, (False, plan[-1][1])]:
        with session.tenant(victim if is_victims else attacker) as connection:
            pids.add(connection.scalar(sa.text("SELECT pg_backend_pid()")))
            for statement in statements:
                attempt(connection, statement, victim=victim)
            if not is_victims:
                assert sees(connection, victim) == []
    assert len(pids) == 1
    with session.tenant(attacker) as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM mlcore.versions")) == 1


def test_the_settings_of_another_transaction_are_worth_nothing(
    session: DatabaseConnection, attacker: TenantId, victim: TenantId
) -> None:
    """Tenant, principal and seal, copied from one transaction into the next of the same session, show nothing."""
    names = ("app.tenant_id", "app.by", "app.seal")
    read = sa.text("SELECT " + ", ".join(f"current_setting('{name}')" for name in names))
    with session.tenant(victim) as connection:
        stolen = connection.execute(read).one()
    with session.tenant(attacker) as connection:
        for name, value in zip(names, stolen, strict=True):
            connection.execute(sa.text("SELECT set_config(:name, :value, true)"), {"name": name, "value": value})
        assert connection.scalar(sa.text("SELECT count(*) FROM mlcore.versions")) == 0


def test_a_tenant_that_was_set_shows_nothing(session: DatabaseConnection, attacker: TenantId, victim: TenantId) -> None:
    """Neither the one that was named nor the transaction's own: its seal is for that one."""
    with session.tenant(attacker) as connection:
        connection.execute(sa.text("SELECT set_config('app.tenant_id', :victim, true)"), {"victim": victim})
        assert connection.scalar(sa.text("SELECT count(*) FROM mlcore.versions")) == 0


def test_a_login_of_the_runtime_can_not_enter_by_itself(db: DatabaseConnection, victim: TenantId) -> None:
    """Who has the password of the runtime and not the key sees no tenant."""
    with psycopg.connect(db.urls.app) as connection:
        connection.execute("SELECT set_config('app.tenant_id', %s, true)", (victim,))
        assert connection.execute("SELECT count(*) FROM mlcore.versions").fetchone() == (0,)
        with pytest.raises(psycopg.errors.InvalidAuthorizationSpecification):
            connection.execute("SELECT mlcore.enter(%s, '', '')", (victim,))


def test_a_statement_that_leaves_its_tenant_half_way_writes_nothing(
    session: DatabaseConnection, attacker: TenantId
) -> None:
    """The policies are asked once a statement; a row that comes after the seal was taken off is refused as well."""
    statement = """
        INSERT INTO mlcore.audit (tenant_id, action, principal, at)
        SELECT :tenant, 'forged', CASE WHEN n > 1 THEN set_config('app.seal', '', true) || 'root' ELSE 'root' END,
               '2000-01-01' FROM generate_series(1, 3) n
    """
    with session.tenant(attacker) as connection:
        assert attempt(connection, statement, tenant=attacker) is None


def test_the_key_is_not_told(db: DatabaseConnection) -> None:
    """Neither the connection nor its settings show it."""
    shown = f"{db!r} {db.urls!r} {vars(db)} {Settings(DatabaseSettings(tenant_key=db.tenant_key))}"
    assert db.tenant_key not in shown
    assert str(bytes.fromhex(db.tenant_key)) not in shown


# Rows that say something untrue of who wrote them and when.

FORGED = {
    "audit": "(tenant_id, at, principal, request_id, action) VALUES (:t, '2000-01-01', 'root', 'other', 'forged')",
    "idempotency_keys": "(tenant_id, principal, key, request_digest, created_at)"
    " VALUES (:t, 'root', 'forged', '', '2000-01-01')",
    "models": "(tenant_id, model_id, model_type, created_at) VALUES (:t, 'forged', 'x', '2000-01-01')",
    "runs": "(tenant_id, run_id, model_id, kind, status, started_at, created_by)"
    " VALUES (:t, 'forged', 'm', 'train', 'finished', '2000-01-01', 'root')",
    "datasets": "(tenant_id, dataset_id, created_at, created_by) VALUES (:t, 'forged', '2000-01-01', 'root')",
    "versions": "(tenant_id, model_id, version, number, digest, size_bytes, format, created_at, created_by)"
    " VALUES (:t, 'tickets', 'forged', 900, repeat('0', 64), 1, 'x', '2000-01-01', 'root')",
    "approvals": "(tenant_id, model_id, version, environment, approver, reason, at)"
    " VALUES (:t, 'tickets', '2', 'production', 'root', '', '2000-01-01')",
    "holds": "(tenant_id, model_id, version, name, reason, created_at, created_by)"
    " VALUES (:t, 'tickets', '2', 'forged', '', '2000-01-01', 'root')",
    "gates": "(tenant_id, model_id, environment, name, kind, created_at, created_by)"
    " VALUES (:t, 'tickets', 'production', 'forged', 'approval', '2000-01-01', 'root')",
    "environment_policies": "(tenant_id, environment, is_protected, updated_at, updated_by)"
    " VALUES (:t, 'forged', false, '2000-01-01', 'root')",
}
WHO = {"principal", "created_by", "actor", "updated_by", "approver"}
WHEN = {"at", "created_at", "started_at", "updated_at"}


@pytest.mark.parametrize("table", FORGED)
def test_a_row_says_who_wrote_it_and_when(session: DatabaseConnection, attacker: TenantId, table: str) -> None:
    """Whatever a statement says, the row carries the transaction's own principal, request and time."""
    with session.tenant(attacker) as connection:
        now = connection.scalar(sa.text("SELECT now()"))
        statement = sa.text(f"INSERT INTO mlcore.{table} {FORGED[table]} RETURNING *")
        row = connection.execute(statement, {"t": attacker}).mappings().one()
        connection.rollback()
    assert {row[name] for name in WHO & row.keys()} <= {"mallory"}
    assert {row[name] for name in WHEN & row.keys()} == {now}
    assert row.get("request_id", "req-1") == "req-1"


def test_every_table_that_says_who_or_when_is_stamped(db: DatabaseConnection) -> None:
    """A table of a later release that has such a column and no trigger is found here."""
    named = {
        table.name for table in metadata.sorted_tables if "tenant_id" in table.c and (WHO | WHEN) & set(table.c.keys())
    }
    with superuser(db) as connection:
        query = "SELECT tgrelid::regclass::text FROM pg_trigger WHERE tgname = 'stamp'"
        stamped = {row[0].removeprefix("mlcore.") for row in connection.execute(query)}
    # What a caller measured or was told, at a moment that it names.
    assert named - stamped == {"predictions", "feedback", "run_metrics"}


def test_a_gate_that_is_changed_says_by_whom(session: DatabaseConnection, attacker: TenantId) -> None:
    """An update is stamped like an insertion."""
    with session.tenant(attacker) as connection:
        statement = "UPDATE mlcore.gates SET settings = '{}', created_by = 'root' RETURNING created_by"
        assert connection.scalars(sa.text(statement)).all() == ["mallory"]
        connection.rollback()


# A version's name and a number are used once.

VERSION = """
    INSERT INTO mlcore.versions (tenant_id, model_id, version, number, digest, size_bytes, format, created_by)
    VALUES (:t, 'tickets', :v, :n, repeat(:d, 64), 1, 'skops/1', 'x')
"""


def test_a_name_never_means_other_bytes(db: DatabaseConnection, session: DatabaseConnection) -> None:
    """Pointer to nothing, delete the version, insert it with other bytes, pointer back: refused at the insertion."""
    tenant = new_tenant(db)
    version = register(db, tenant)
    EnvironmentRepository(db, tenant).promote(TICKETS, version.version, PRODUCTION)
    with session.tenant(tenant) as connection:
        withdraw = "UPDATE mlcore.environments SET version = NULL, generation = generation + 1"
        assert attempt(connection, withdraw) == []
        assert attempt(connection, "SELECT mlcore.erase('versions', '{\"version\": [\"1\"]}')") == [(1,)]
        for number in (1, 2, 50):
            assert attempt(connection, VERSION, t=tenant, v="1", n=number, d="0") is None
        assert attempt(connection, "SELECT version FROM mlcore.deleted_versions") == [("1",)]


RESURRECTION = {
    "delete": "DELETE FROM mlcore.versions WHERE version = '1'",
    "erase": "SELECT mlcore.erase('versions', '{\"version\": [\"1\"]}')",
    "erase all": "SELECT mlcore.erase('versions', '{}')",
    "erase the tombstone": "SELECT mlcore.erase('deleted_versions', '{}')",
    "delete the tombstone": "DELETE FROM mlcore.deleted_versions",
    "another tombstone": "INSERT INTO mlcore.deleted_versions (tenant_id, model_id, version, digest)"
    " VALUES (:t, 'tickets', '1', repeat('0', 64)) ON CONFLICT DO NOTHING",
    "the tombstone's digest": "UPDATE mlcore.deleted_versions SET digest = repeat('0', 64)",
    "the digest": "UPDATE mlcore.versions SET digest = repeat('0', 64)",
    "count down": "UPDATE mlcore.models SET next_number = 1",
    "forget the model": "SELECT mlcore.erase('models', '{}')",
    "insert": VERSION.replace(":v", "'1'").replace(":n", "1").replace(":d", "'0'"),
    "insert later": VERSION.replace(":v", "'1'").replace(":n", "70").replace(":d", "'0'"),
    "upsert": VERSION.replace(":v", "'1'").replace(":n", "71").replace(":d", "'0'")
    + " ON CONFLICT (tenant_id, model_id, version) DO UPDATE SET digest = excluded.digest",
    "withdraw": "UPDATE mlcore.environments SET version = NULL, generation = generation + 1",
}


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(st.sampled_from(sorted(RESURRECTION)), min_size=3, max_size=10))
def test_no_order_of_statements_gives_a_name_other_bytes(
    db: DatabaseConnection, session: DatabaseConnection, names: list[str]
) -> None:
    """In one transaction or several, version 1 has its own bytes or is gone, and no number is given out twice."""
    tenant = new_tenant(db)
    digest = register(db, tenant).servable.digest
    EnvironmentRepository(db, tenant).promote(TICKETS, register(db, tenant).version, PRODUCTION)
    for part in (names[:4], names[4:]):
        with session.tenant(tenant) as connection:
            for name in part:
                attempt(connection, RESURRECTION[name], t=tenant)
    with db.tenant(tenant) as connection:
        said = "SELECT digest FROM mlcore.{} WHERE version = '1'"
        found = {
            row[0]
            for table in ("versions", "deleted_versions")
            for row in connection.execute(sa.text(said.format(table)))
        }
        assert found == {digest}
        assert connection.scalar(sa.text("SELECT next_number FROM mlcore.models")) >= 3


def test_a_dataset_s_number_is_used_once(db: DatabaseConnection, session: DatabaseConnection) -> None:
    """Deleted or not, no other bytes come under the number of a dataset's version, and numbers go up."""
    tenant = new_tenant(db)
    datasets = DatasetRepository(db, tenant)
    for value in (1, 2):
        datasets.create("d", {"x": [value]})
    insert = """
        INSERT INTO mlcore.dataset_versions
            (tenant_id, dataset_id, number, digest, size_bytes, row_count, columns, created_by)
        VALUES (:t, 'd', :n, repeat('0', 64), 1, 1, '[]', 'x')
    """
    with session.tenant(tenant) as connection:
        assert attempt(connection, "SELECT mlcore.erase('dataset_versions', '{\"number\": [2]}')") == [(1,)]
        assert attempt(connection, "UPDATE mlcore.datasets SET next_number = 1") is None
        assert [attempt(connection, insert, t=tenant, n=number) for number in (1, 2)] == [None, None]
        assert attempt(connection, insert, t=tenant, n=3) == []


# Pointers, their histories, and the feed.


@pytest.mark.parametrize(
    "change",
    [
        "generation = 0",
        "generation = generation - 1",
        "generation = generation + 2",
        "version = NULL",
        "shadow_version = '2'",
        "feed_generation = 9000000000000000000",
        "feed_generation = 0",
    ],
)
def test_a_pointer_moves_forward_by_one(db: DatabaseConnection, attacker: TenantId, change: str) -> None:
    """Nothing else than one generation more changes what it serves, and replicas read each change once."""
    with db.tenant(attacker) as connection:
        assert attempt(connection, f"UPDATE mlcore.environments SET {change}") is None


def test_each_move_is_in_the_history(db: DatabaseConnection, session: DatabaseConnection) -> None:
    """Moves by SQL alone leave their entries, without a gap, with what was served, by whom and when."""
    tenant = new_tenant(db)
    first, second = register(db, tenant), register(db, tenant)
    environments = EnvironmentRepository(db, tenant)
    environments.promote(TICKETS, first.version, PRODUCTION)
    with session.tenant(tenant) as connection:
        for version in ("'2'", "NULL", "'1'"):
            assert (
                attempt(connection, f"UPDATE mlcore.environments SET version = {version}, generation = generation + 1")
                == []
            )
    entries = list(environments.history(TICKETS, PRODUCTION).items)
    assert [entry.generation for entry in entries] == [4, 3, 2, 1]
    assert [entry.digest for entry in entries] == [
        first.servable.digest,
        None,
        second.servable.digest,
        first.servable.digest,
    ]
    assert {entry.actor for entry in entries[:3]} == {"mallory"}


@pytest.mark.parametrize("generation", [0, 1, 3, 100])
def test_the_history_tells_the_pointer_s_own_moves(
    db: DatabaseConnection, session: DatabaseConnection, generation: int
) -> None:
    """An entry of a move that was never made is refused."""
    tenant = new_tenant(db)
    EnvironmentRepository(db, tenant).promote(TICKETS, register(db, tenant).version, PRODUCTION)
    statement = """
        INSERT INTO mlcore.environment_history
            (tenant_id, model_id, environment, generation, action, version, restored_generation, actor, reason)
        VALUES (:t, 'tickets', 'production', :g, 'promote', '7', 1, 'root', '')
    """
    with session.tenant(tenant) as connection:
        assert attempt(connection, statement, t=tenant, g=generation) is None


def test_a_revoked_key_stays_revoked(db: DatabaseConnection, session: DatabaseConnection) -> None:
    """Neither directly nor by hiding the revocation from replicas."""
    tenant = new_tenant(db)
    keys = KeyRepository(db, tenant)
    keys.revoke(keys.create("k", ["read"]).key_id)
    with session.tenant(tenant) as connection:
        for change in ("revoked_at = NULL", "feed_generation = 0", "feed_generation = 9000000000000000000"):
            assert attempt(connection, f"UPDATE mlcore.api_keys SET {change}") is None


def test_a_key_s_id_tells_nothing_of_other_tenants(
    db: DatabaseConnection, session: DatabaseConnection, attacker: TenantId, victim: TenantId
) -> None:
    """An id that another tenant has is taken like any other, and both tenants' keys are in the feed, each its own."""
    key = KeyRepository(db, victim).create("k", ["read"])
    statement = """
        INSERT INTO mlcore.api_keys (tenant_id, key_id, salt, hash, scopes, name, feed_generation)
        VALUES (:t, :k, '', decode(repeat('00', 32), 'hex'), ARRAY['admin'], 'n', mlcore.advance_feed())
    """
    with session.tenant(attacker) as connection:
        assert attempt(connection, statement, t=attacker, k=key.key_id) == []
    records = {ref: record for ref, record in FeedReader(db).read(None).keys.items() if ref.key_id == key.key_id}
    assert {ref.tenant_id for ref in records} == {attacker, victim}
    assert [ref.tenant_id for ref, record in records.items() if record and record.matches(key.secret)] == [victim]


# One session in the way of all.

MODES = (
    "ROW EXCLUSIVE",
    "SHARE UPDATE EXCLUSIVE",
    "SHARE",
    "SHARE ROW EXCLUSIVE",
    "EXCLUSIVE",
    "ACCESS EXCLUSIVE",
)


@pytest.mark.parametrize("role", [security.APP_ROLE, security.INGEST_ROLE])
def test_no_table_can_be_locked_against_others(db: DatabaseConnection, role: str) -> None:
    """Of all tables no lock can be had that keeps others from reading or writing it."""
    url = db.urls.app if role == security.APP_ROLE else db.urls.ingest
    tables = [f"{table.schema}.{table.name}" for table in metadata.sorted_tables]
    with psycopg.connect(url, autocommit=True) as connection:
        for table, mode in itertools.product(tables, MODES[1:]):
            with pytest.raises(psycopg.errors.InsufficientPrivilege), connection.transaction():
                connection.execute(f"LOCK TABLE {table} IN {mode} MODE NOWAIT")


@pytest.mark.parametrize("function", ["pg_terminate_backend", "pg_cancel_backend"])
def test_no_session_ends_another(session: DatabaseConnection, attacker: TenantId, function: str) -> None:
    """Although both are of one role."""
    with psycopg.connect(session.urls.app) as other, session.tenant(attacker) as connection:
        assert attempt(connection, f"SELECT {function}(:pid)", pid=other.info.backend_pid) is None
        assert other.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT pg_advisory_lock(1835167600, hashtext('shared'))",
        "SELECT pg_try_advisory_lock(1835167600, hashtext('shared'))",
        "SELECT pg_advisory_lock_shared(1835167600, hashtext('shared'))",
        "SELECT count(pg_advisory_lock(key)) FROM generate_series(1, 1000000) key",
        "SELECT lo_from_bytea(0, '')",
        "SELECT lo_create(0)",
    ],
)
def test_nothing_outlives_a_transaction(db: DatabaseConnection, statement: str) -> None:
    """A session's lock would, so that nothing ends it: writers wait for ever. A large object would, of any size."""
    for url in (db.urls.app, db.urls.ingest):
        with psycopg.connect(url) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement)


def test_who_keeps_the_clock_of_the_feed_is_ended(db: DatabaseConnection) -> None:
    """A session without any time limit holds the clock of all tenants; after a minute the next writer gets it."""
    with superuser(db) as admin, psycopg.connect(db.urls.app) as holder:
        row = admin.execute("SELECT pg_get_functiondef('mlcore.advance_feed()'::regprocedure)").fetchone()
        assert row is not None
        assert "interval '1 minute'" in row[0]
        admin.execute(row[0].replace("interval '1 minute'", "interval '0'"))
        try:
            for limit in security.ROLE_SETTINGS:
                holder.execute(f"SET {limit} = 0")
            holder.execute("SELECT mlcore.advance_feed()")
            new_tenant(db)
            with pytest.raises(psycopg.OperationalError):
                holder.execute("SELECT 1")
        finally:
            admin.execute(row[0])


# Rows that fill every replica.


@pytest.mark.parametrize("column", ["signature", "self_test", "metadata", "metrics", "format"])
def test_a_row_has_a_size(session: DatabaseConnection, attacker: TenantId, column: str) -> None:
    """A version that is larger than what a replica can hold is not stored, however well it can be compressed."""
    limit = sizes.limits(metadata.tables["mlcore.versions"])[column]
    large = f"repeat('x', {limit + 1})" if column == "format" else f"to_jsonb(repeat('x', {limit}))"
    columns = f"(tenant_id, model_id, version, number, digest, size_bytes, created_by, {column}"
    columns += ")" if column == "format" else ", format)"
    value = large if column == "format" else f"{large}, 'x'"
    statement = f"""
        INSERT INTO mlcore.versions {columns}
        VALUES (:t, 'tickets', 'large', 999, repeat('0', 64), 1, 'x', {value})
    """
    with session.tenant(attacker) as connection:
        assert attempt(connection, statement, t=attacker) is None
        assert attempt(connection, statement.replace(str(limit), "10").replace(str(limit + 1), "10"), t=attacker) == []
        connection.rollback()


@pytest.mark.parametrize(("digest", "size"), [("repeat('0', 64)", "NULL"), ("NULL", "1")])
def test_a_compiled_form_has_a_digest_and_a_size(
    session: DatabaseConnection, attacker: TenantId, digest: str, size: str
) -> None:
    """The check of all tenants' artifacts adds up the sizes, and would end at one that is not there."""
    statement = f"""
        INSERT INTO mlcore.versions (tenant_id, model_id, version, number, digest, size_bytes, format, created_by,
          compiled_digest, compiled_size_bytes)
        VALUES (:t, 'tickets', 'odd', 999, repeat('0', 64), 1, 'skops/1', 'x', {digest}, {size})
    """
    with session.tenant(attacker) as connection:
        assert attempt(connection, statement, t=attacker) is None
        whole = statement.replace(f"{digest}, {size})", "repeat('0', 64), 1)")
        assert attempt(connection, whole, t=attacker) == []
        connection.rollback()
