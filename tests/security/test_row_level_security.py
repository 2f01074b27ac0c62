"""Tenants are walled off by the database itself: raw SQL under the runtime role gets nowhere."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import ProgrammingError

from ml_core.database import security
from ml_core.database.connection import DatabaseConnection
from ml_core.ids import TenantId
from ml_core.settings import DatabaseSettings, Settings
from support.filled import fill
from support.registry import new_tenant, register, superuser

TENANT_TABLES = security.tenant_tables()


def test_every_table_with_a_tenant_is_forced_behind_a_policy(db: DatabaseConnection) -> None:
    """The catalogue knows no table with a tenant_id that lacks ENABLE, FORCE and the runtime's policy."""
    query = """
        SELECT c.relname, c.relrowsecurity, c.relforcerowsecurity,
               (SELECT count(*) FROM pg_policies p
                WHERE p.schemaname = n.nspname AND p.tablename = c.relname AND 'mlcore_app' = ANY(p.roles)
                  AND p.cmd = 'ALL' AND p.permissive = 'PERMISSIVE'
                  AND p.qual LIKE '%mlcore.current_tenant()%' AND p.with_check LIKE '%mlcore.current_tenant()%')
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
        WHERE c.relkind IN ('r', 'p') AND a.attname = 'tenant_id'
          AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'mlcore_predictions') AND n.nspname !~ '^pg_temp'
    """
    with superuser(db) as session:
        found = {row[0]: row[1:] for row in session.execute(query)}
    assert set(found) == set(TENANT_TABLES)
    assert {name: state for name, state in found.items() if state != (True, True, 1)} == {}


def test_only_the_declared_policies_exist(db: DatabaseConnection) -> None:
    """No policy lets anybody else in: the runtime's and the removal's per table, the serving plane's where needed."""
    with superuser(db) as session:
        found = {
            (table, name, tuple(roles))
            for table, name, roles in session.execute(
                "SELECT tablename, policyname, roles::text[] FROM pg_policies WHERE schemaname = 'mlcore'"
            )
        }
    wanted = {(table, security.TENANT_POLICY, (security.APP_ROLE,)) for table in TENANT_TABLES}
    wanted |= {(table, security.REMOVAL_POLICY, (security.OWNER_ROLE,)) for table in TENANT_TABLES}
    wanted.add(("job_turns", "platform_turns", (security.OWNER_ROLE,)))
    wanted.add(("placements", "serving_changes", (security.INGEST_ROLE,)))
    for policy, tables in (
        (security.SERVING_POLICY, security.SERVING_READS),
        (security.SERVING_INSERT_POLICY, security.SERVING_INSERTS),
        (security.SERVING_WRITE_POLICY, security.SERVING_WRITES),
    ):
        wanted |= {(table, policy, (security.INGEST_ROLE,)) for table in tables}
    for policy, tables in {
        security.PLATFORM_POLICY: ("platform_keys", "job_batches"),
        "platform_reads": (
            *("tenants", "placements", "prediction_quotas", "dataset_versions", "jobs", "job_quotas", "job_turns"),
            *("schedules", "audit", "environments", "live_verdicts"),
        ),
        "platform_changes": ("tenants", "placements", "prediction_quotas", "jobs", "job_quotas"),
        "platform_adds": ("audit", "jobs", "job_quotas", "placements", "prediction_quotas"),
        "only_platform_adds": ("jobs", "job_quotas", "placements", "prediction_quotas"),
        "only_platform_changes": ("job_quotas", "placements", "prediction_quotas"),
    }.items():
        wanted |= {(table, policy, (security.APP_ROLE,)) for table in tables}
    assert found == wanted


@pytest.mark.parametrize("role", [security.APP_ROLE, security.INGEST_ROLE])
def test_runtime_roles_have_no_power_over_policies(db: DatabaseConnection, role: str) -> None:
    """The roles that serve requests are no superusers, bypass no policy, own nothing and belong to no other role."""
    with superuser(db) as session:
        flags = session.execute(
            "SELECT rolsuper, rolbypassrls, rolcreaterole, rolcreatedb FROM pg_roles WHERE rolname = %s", (role,)
        ).fetchone()
        # Temporary tables are a session's own, such as the one that predictions are copied into.
        owned = session.execute(
            "SELECT relname FROM pg_class WHERE pg_get_userbyid(relowner) = %s AND relpersistence <> 't'", (role,)
        ).fetchall()
        member = session.execute("SELECT roleid::regrole FROM pg_auth_members WHERE member = %s::regrole", (role,))
        assert flags == (False, False, False, False)
        assert owned == []
        assert member.fetchall() == []


@pytest.mark.parametrize(
    ("role", "wanted"), [(security.APP_ROLE, security.APP_GRANTS), (security.INGEST_ROLE, security.INGEST_GRANTS)]
)
def test_grants_are_those_that_are_declared(
    db: DatabaseConnection, role: str, wanted: dict[str, tuple[str, ...]]
) -> None:
    """What the migrations granted is what ``security`` says: table privileges and the columns of UPDATE."""
    with superuser(db) as session:
        whole = session.execute(
            "SELECT table_name, privilege_type FROM information_schema.table_privileges"
            " WHERE table_schema = 'mlcore' AND grantee = %s AND table_name <> 'alembic_version'",
            (role,),
        ).fetchall()
        columns = session.execute(
            "SELECT c.relname, a.attname, x.privilege_type FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid,"
            " aclexplode(a.attacl) x WHERE c.relnamespace = 'mlcore'::regnamespace AND x.grantee = %s::regrole",
            (role,),
        ).fetchall()
    found = {(table, privilege) for table, privilege in whole} | {(t, f"{p} {c}") for t, c, p in columns}
    expected = set()
    for table, privileges in wanted.items():
        for privilege in privileges:
            name, bracket, listed = privilege.removesuffix(")").partition(" (")
            expected |= {(table, f"{name} {column}") for column in listed.split(", ")} if bracket else {(table, name)}
    assert found == expected


@pytest.mark.parametrize("table", TENANT_TABLES)
def test_another_tenants_rows_can_not_be_read(
    db: DatabaseConnection, tenant_id: TenantId, other_tenant_id: TenantId, table: str
) -> None:
    """Raw SQL that names another tenant finds nothing of it, though there are rows."""
    fill(db, other_tenant_id)
    statement = sa.text(f"SELECT count(*) FROM mlcore.{table} WHERE tenant_id = :other")
    with db.tenant(other_tenant_id) as connection:
        assert connection.scalar(statement, {"other": other_tenant_id}) > 0
    with db.tenant(tenant_id) as connection:
        assert connection.scalar(statement, {"other": other_tenant_id}) == 0


@pytest.mark.parametrize("table", TENANT_TABLES)
def test_without_a_tenant_nothing_is_seen(db: DatabaseConnection, tenant_id: TenantId, table: str) -> None:
    """A session of the runtime role that forgot the tenant, or set an empty one, sees no row at all."""
    fill(db, tenant_id)
    with psycopg.connect(db.urls.app) as session:
        assert session.execute(f"SELECT count(*) FROM mlcore.{table}").fetchone() == (0,)
        session.execute("SELECT set_config('app.tenant_id', '', true)")
        assert session.execute(f"SELECT count(*) FROM mlcore.{table}").fetchone() == (0,)


def test_another_tenants_row_can_not_be_inserted(
    db: DatabaseConnection, tenant_id: TenantId, other_tenant_id: TenantId
) -> None:
    """The policy checks what is written as well."""
    statement = sa.text("INSERT INTO mlcore.models (tenant_id, model_id, model_type) VALUES (:other, 'm', 'x')")
    with pytest.raises(ProgrammingError, match="row-level security"), db.tenant(tenant_id) as connection:
        connection.execute(statement, {"other": other_tenant_id})


def test_updates_and_deletes_do_not_reach_another_tenant(
    db: DatabaseConnection, tenant_id: TenantId, other_tenant_id: TenantId
) -> None:
    """A sweeping update or deletion changes the own rows only."""
    mine, other = register(db, tenant_id), register(db, other_tenant_id)
    with db.tenant(tenant_id) as connection:
        assert connection.execute(sa.text("UPDATE mlcore.versions SET archived_at = now()")).rowcount == 1
        assert connection.scalar(sa.text("SELECT mlcore.erase('versions', '{}')")) == 1
    with db.tenant(other_tenant_id) as connection:
        left = connection.execute(sa.text("SELECT version, archived_at FROM mlcore.versions")).all()
    assert left == [(other.version, None)]
    assert mine.version == other.version


@pytest.fixture
def one_session(db: DatabaseConnection) -> Iterator[DatabaseConnection]:
    """The registry through a pool of one session, so that the next transaction is on the same server process."""
    settings = Settings(database=DatabaseSettings(pool_size=1), platform=db.settings.platform)
    with DatabaseConnection(settings=settings) as connection:
        yield connection


def test_the_same_backend_shows_the_next_tenant_nothing_of_the_last(
    one_session: DatabaseConnection, tenant_id: TenantId, other_tenant_id: TenantId
) -> None:
    """Of two transactions on the very same server process, the second sees neither rows nor setting of the first."""
    register(one_session, tenant_id)
    pids = []
    for tenant, expected in ((tenant_id, 1), (other_tenant_id, 0)):
        with one_session.tenant(tenant) as connection:
            pids.append(connection.scalar(sa.text("SELECT pg_backend_pid()")))
            assert connection.scalar(sa.text("SELECT count(*) FROM mlcore.versions")) == expected
            assert connection.scalar(sa.text("SELECT current_setting('app.tenant_id')")) == tenant
    assert pids[0] == pids[1]


def test_a_session_in_the_pool_has_no_tenant(one_session: DatabaseConnection, tenant_id: TenantId) -> None:
    """The tenant ends with its transaction: code that takes the pooled session without naming one sees nothing."""
    register(one_session, tenant_id)
    with one_session.tenant(tenant_id) as connection:
        pid = connection.scalar(sa.text("SELECT pg_backend_pid()"))
    with one_session._engine(one_session.urls.app).connect() as connection:
        assert connection.scalar(sa.text("SELECT pg_backend_pid()")) == pid
        assert connection.scalar(sa.text("SELECT current_setting('app.tenant_id', true)")) == ""
        assert connection.scalar(sa.text("SELECT count(*) FROM mlcore.versions")) == 0


def test_a_transaction_that_failed_leaves_no_tenant_behind(
    one_session: DatabaseConnection, tenant_id: TenantId, other_tenant_id: TenantId
) -> None:
    """Rolled back or committed, the session goes back to the pool without a tenant."""
    register(one_session, tenant_id)
    with pytest.raises(ZeroDivisionError), one_session.tenant(tenant_id):
        raise ZeroDivisionError
    with one_session.tenant(other_tenant_id) as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM mlcore.versions")) == 0


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE mlcore.versions SET digest = repeat('0', 64)",
        "UPDATE mlcore.versions SET metrics = '{}'",
        "UPDATE mlcore.versions SET signature = '{}'",
        "UPDATE mlcore.versions SET created_by = 'me'",
        "UPDATE mlcore.versions SET version = '2'",
        "UPDATE mlcore.environment_history SET actor = 'me'",
        "DELETE FROM mlcore.environment_history",
        "DELETE FROM mlcore.versions",
        "INSERT INTO mlcore.deleted_versions SELECT * FROM mlcore.deleted_versions",
        "DELETE FROM mlcore.deleted_versions",
        "UPDATE mlcore.deleted_versions SET digest = 'x'",
        "UPDATE mlcore.versions SET outside_types = '{}'",
        "DELETE FROM mlcore.audit",
        "UPDATE mlcore.audit SET position = 1",
        "DELETE FROM mlcore.idempotency_keys",
        "DELETE FROM mlcore.environments",
        "UPDATE mlcore.api_keys SET scopes = ARRAY['admin']",
        "UPDATE mlcore.api_keys SET hash = 'x'",
        "DELETE FROM mlcore.api_keys",
        "UPDATE mlcore.feed_clock SET generation = 0",
        "DELETE FROM mlcore.tenants",
        "UPDATE mlcore.tenants SET created_at = now()",
        "TRUNCATE mlcore.versions",
        "ALTER TABLE mlcore.versions DISABLE ROW LEVEL SECURITY",
        "UPDATE mlcore.schedules SET scopes = ARRAY['admin']",
        "UPDATE mlcore.schedules SET created_by = 'operator'",
        "CREATE TABLE mlcore.mine (x int)",
    ],
)
def test_the_runtime_may_not(db: DatabaseConnection, tenant_id: TenantId, statement: str) -> None:
    """What is immutable, append-only or not the runtime's is so by missing grants, for its own tenant's rows too."""
    fill(db, tenant_id)
    with pytest.raises(ProgrammingError, match=r"permission denied|must be owner"), db.tenant(tenant_id) as connection:
        connection.execute(sa.text(statement))


@pytest.mark.parametrize("role", ["mlcore_owner", "mlcore_ingest", "postgres"])
def test_the_runtime_can_not_become_another_role(db: DatabaseConnection, role: str) -> None:
    """Neither the owner nor the serving plane nor the superuser is within reach of the runtime's login."""
    with psycopg.connect(db.urls.app) as session, pytest.raises(psycopg.errors.InsufficientPrivilege):
        session.execute(f"SET ROLE {role}")


@pytest.mark.parametrize("table", ["versions", "environments", "api_keys", "tenants", "models"])
def test_the_serving_plane_reads_all_tenants_and_writes_none(db: DatabaseConnection, table: str) -> None:
    """The serving role sees rows of several tenants and may change none."""
    tenants = {new_tenant(db), new_tenant(db)}
    for tenant in tenants:
        fill(db, tenant)
    with db.serving() as connection:
        assert tenants <= set(connection.scalars(sa.text(f"SELECT tenant_id FROM mlcore.{table}")))
    with pytest.raises(ProgrammingError, match="permission denied"), db.serving() as connection:
        connection.execute(sa.text(f"DELETE FROM mlcore.{table}"))


def test_the_serving_plane_sees_no_runs(db: DatabaseConnection) -> None:
    """What serving does not need it may not read."""
    with pytest.raises(ProgrammingError, match="permission denied"), db.serving() as connection:
        connection.execute(sa.text("SELECT 1 FROM mlcore.runs"))
