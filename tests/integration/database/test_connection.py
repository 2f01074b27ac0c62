"""``DatabaseConnection`` against a real server: transactions, errors, restarts, foreign databases."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from ml_core.database.connection import DatabaseConnection
from ml_core.database.embedded import EmbeddedServer
from ml_core.database.tables import SCHEMA_REVISION
from ml_core.domain.api_key import Scope
from ml_core.exceptions import (
    ConfigurationError,
    InvalidRequestError,
    MLFrameworkError,
    RegistryUnavailableError,
    RequestTooLargeError,
    SchemaOutOfDateError,
)
from ml_core.ids import TenantId, VersionId
from ml_core.registry.keys import KeyRepository
from ml_core.registry.promotion.environments import PRODUCTION, EnvironmentRepository
from ml_core.registry.runs import RunRepository
from ml_core.registry.tenants import TenantRepository
from ml_core.registry.versions.repository import VersionRepository
from ml_core.settings import DatabaseSettings, PlatformSettings, Settings
from support.registry import TICKETS, new_tenant, register, settings_for, superuser, temporary_home


def with_password(url: str) -> str:
    return url.replace("@/", ":s3cret@/")


def test_a_block_commits_and_an_error_rolls_back(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """A transaction is all or nothing."""
    insert = sa.text("INSERT INTO mlcore.models (tenant_id, model_id, model_type) VALUES (:t, :m, 'x')")
    with db.tenant(tenant_id) as connection:
        connection.execute(insert, {"t": tenant_id, "m": "kept"})

    def insert_and_fail() -> None:
        with db.tenant(tenant_id) as connection:
            connection.execute(insert, {"t": tenant_id, "m": "lost"})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        insert_and_fail()
    with db.tenant(tenant_id) as connection:
        assert connection.scalars(sa.text("SELECT model_id FROM mlcore.models")).all() == ["kept"]


def test_blocks_together_are_one_transaction(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """They see what is not committed yet, an error takes all of it back, and another principal has its own."""
    with suppress(ZeroDivisionError), db.together(tenant_id) as joined:
        run_id = RunRepository(joined, tenant_id).start(TICKETS)
        RunRepository(joined, tenant_id).log_metrics(run_id, {"loss": 1.0})
        assert RunRepository(joined, tenant_id).get(run_id).metrics["loss"].last_value == 1.0
        other = joined.acting_as(db.principal)
        assert RunRepository(other, tenant_id).search().items == []
        raise ZeroDivisionError
    assert RunRepository(db, tenant_id).search().items == []


def test_passwords_are_not_shown(db: DatabaseConnection) -> None:
    """Neither the printed connection, nor its URLs, nor an error repeats a password."""
    foreign = DatabaseConnection(
        "postgresql://somebody:s3cret@127.0.0.1:1/registry?password=s3cret", settings=Settings()
    )
    with pytest.raises(RegistryUnavailableError) as caught, foreign.tenant(TenantId("acme")):
        pass
    shown = f"{foreign!r} {foreign.urls!r} {foreign.safe_url} {caught.value}"
    assert "s3cret" not in shown
    assert "somebody" in shown


@pytest.mark.parametrize(
    "url", ["sqlite:///x.db", "mysql://u:s3cret@h/d", "not a url s3cret", "postgresql://h:port/s3cret"]
)
def test_what_is_no_postgres_url_is_refused(url: str) -> None:
    """A URL that can't be used is a configuration error that does not repeat it."""
    with pytest.raises(ConfigurationError) as caught:
        DatabaseConnection(url, settings=Settings())
    assert "s3cret" not in str(caught.value)
    assert "postgresql://" in str(caught.value.remedy)


def test_an_unreachable_server_is_said_at_once() -> None:
    """No server behind the URL: one clear error within the connect timeout."""
    foreign = DatabaseConnection("postgresql://u@127.0.0.1:1/d", settings=Settings())
    with pytest.raises(RegistryUnavailableError, match="Check that Postgres runs"):
        TenantRepository(foreign).exists(TenantId("acme"))
    with pytest.raises(RegistryUnavailableError):
        foreign.listen("mlcore_feed")


def test_a_full_pool_is_an_error_with_a_deadline(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """When every session is taken, the next caller is told so instead of waiting for ever."""
    few_sessions = DatabaseSettings(url=db.urls.app, tenant_key=db.tenant_key, pool_size=1, connect_timeout_s=1)
    with (
        DatabaseConnection(settings=Settings(few_sessions)) as few,
        few.tenant(tenant_id),
        few.tenant(tenant_id),
        pytest.raises(RegistryUnavailableError, match="can't be used now"),
        few.tenant(tenant_id),
    ):
        pass


def test_a_session_that_ends_before_its_transaction_begins_is_replaced(
    db: DatabaseConnection, tenant_id: TenantId
) -> None:
    """The transaction fails with the reason that Postgres gave, and the next one gets another session."""
    with DatabaseConnection(settings=Settings(DatabaseSettings(url=db.urls.app, tenant_key=db.tenant_key))) as own:
        ended: list[int] = []

        def end(connection: sa.Connection) -> None:
            if not ended:
                session = connection.connection.driver_connection
                assert session is not None
                ended.append(session.info.backend_pid)
                with superuser(db) as admin:
                    admin.execute("SELECT pg_terminate_backend(%s, 5000)", (ended[0],))

        sa.event.listen(own._engine(own.urls.app), "begin", end)
        with pytest.raises(RegistryUnavailableError, match="terminating connection"), own.tenant(tenant_id):
            pass
        with own.tenant(tenant_id) as connection:
            assert connection.scalar(sa.text("SELECT pg_backend_pid()")) != ended[0]


def test_another_process_prepares_statements_as_this_one_does(db: DatabaseConnection) -> None:
    """It has the embedded server's URL, and can't know that there is no pooler, as there may be of another server."""
    assert db.environment["MLCORE_DATABASE_PREPARE_AFTER"] == str(db._connect_arguments()["prepare_threshold"])
    foreign = DatabaseConnection(settings=Settings(DatabaseSettings(url=db.urls.app, tenant_key=db.tenant_key)))
    assert "MLCORE_DATABASE_PREPARE_AFTER" not in foreign.environment


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
def test_text_that_can_not_be_stored_is_the_callers_error(
    db: DatabaseConnection, tenant_id: TenantId, text: str
) -> None:
    """NUL and broken Unicode, such as a terminal passes on, are refused with a sentence wherever they come in."""
    register(db, tenant_id)
    versions, environments = VersionRepository(db, tenant_id), EnvironmentRepository(db, tenant_id)
    for call in (
        lambda: versions.update_metadata(TICKETS, {"note": text}),
        lambda: versions.update_metadata(TICKETS, {text: 1}),
        lambda: KeyRepository(db, tenant_id).create(text, [Scope.READ]),
        lambda: environments.promote(TICKETS, VersionId("1"), PRODUCTION, actor="me", reason=text),
        lambda: RunRepository(db, tenant_id).start(TICKETS, kind=text),
    ):
        with pytest.raises(InvalidRequestError, match="can't"):
            call()
    assert environments.list().items == []


def test_a_row_over_its_size_is_too_large(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """The bound of the database is the same kind of error as those that are checked before, 413 over HTTP."""
    insert = sa.text("INSERT INTO mlcore.models (tenant_id, model_id, model_type) VALUES (:t, 'm', :long)")
    with pytest.raises(RequestTooLargeError, match="models"), db.tenant(tenant_id) as connection:
        connection.execute(insert, {"t": tenant_id, "long": "x" * 65_537})


def test_a_server_that_stops_is_an_error_and_its_return_is_enough() -> None:
    """Writes fail clearly while Postgres is down, and the same connection works again once it is back."""
    with temporary_home() as home, DatabaseConnection(settings=settings_for(home)) as db:
        tenant = new_tenant(db)
        failures: list[MLFrameworkError] = []
        wrote_once, stop_writing = threading.Event(), threading.Event()

        def write() -> None:
            while not stop_writing.is_set():
                try:
                    register(db, tenant)
                    wrote_once.set()
                except MLFrameworkError as error:
                    failures.append(error)
                    return

        writers = [threading.Thread(target=write) for _ in range(3)]
        for writer in writers:
            writer.start()
        assert wrote_once.wait(10)
        EmbeddedServer(home).stop()
        for writer in writers:
            writer.join(30)
        stop_writing.set()
        assert [type(error) for error in failures] == [RegistryUnavailableError] * 3
        with pytest.raises(RegistryUnavailableError):
            register(db, tenant)
        EmbeddedServer(home).start()
        version = register(db, tenant)
        assert VersionRepository(db, tenant).get(TICKETS) == version


def test_killed_sessions_are_replaced(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """A session that an administrator ended costs nobody an error: the pool tests it before use."""
    with db.tenant(tenant_id) as connection:
        pid = connection.scalar(sa.text("SELECT pg_backend_pid()"))
    with superuser(db) as session:
        session.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
    assert TenantRepository(db).exists(tenant_id)


def foreign_url(db: DatabaseConnection, database: str, login: str) -> str:
    """A database and a login of somebody else's on the session's server."""
    with superuser(db) as session:
        session.execute(f"DROP DATABASE IF EXISTS {database}")
        session.execute(f"DROP ROLE IF EXISTS {login}")
        session.execute(f"CREATE ROLE {login} LOGIN CREATEROLE")
        session.execute(f"CREATE DATABASE {database} OWNER {login}")
        session.execute(f"GRANT mlcore_owner, mlcore_app, mlcore_ingest TO {login} WITH ADMIN OPTION")
    return db.urls.app.replace("mlcore_app@/mlcore?", f"{login}@/{database}?")


def test_a_foreign_database_is_changed_by_migrate_only(db: DatabaseConnection) -> None:
    """Connecting to a named database changes nothing; using it says to migrate; migrating makes it work, twice too."""
    url = foreign_url(db, "foreign1", "stranger1")
    with DatabaseConnection(url, settings=Settings()) as foreign:
        assert foreign.current_revision() is None
        with pytest.raises(SchemaOutOfDateError, match="migrate"):
            foreign.check_schema()
        with pytest.raises(SchemaOutOfDateError, match="migrate"):
            TenantRepository(foreign).create(TenantId("acme"))
        foreign.migrate()
        foreign.migrate()
        foreign.check_schema()
        TenantRepository(foreign).create(TenantId("acme"))
        assert [tenant.tenant_id for tenant in TenantRepository(foreign).list().items] == ["acme"]


def test_a_login_of_another_name_works_under_the_runtime_role(db: DatabaseConnection) -> None:
    """Whoever logs in, a transaction runs as the runtime role, and the session goes back as it was."""
    url = foreign_url(db, "foreign2", "stranger2")
    with DatabaseConnection(url, settings=Settings()) as foreign:
        foreign.migrate()
        with foreign.tenant(TenantId("acme")) as connection:
            assert connection.scalar(sa.text("SELECT current_user")) == "mlcore_app"
        with foreign.serving() as connection:
            assert connection.scalar(sa.text("SELECT current_user")) == "mlcore_ingest"
        with foreign._engine(foreign.urls.app).begin() as connection:
            assert connection.scalar(sa.text("SELECT current_user")) == "stranger2"


def test_a_login_without_the_roles_is_told_what_to_run(db: DatabaseConnection) -> None:
    """A login that may neither act as the roles nor prepare the database gets the SQL for an administrator."""
    with superuser(db) as session:
        session.execute("DROP DATABASE IF EXISTS foreign3")
        session.execute("DROP ROLE IF EXISTS stranger3")
        session.execute("CREATE ROLE stranger3 LOGIN")
        session.execute("CREATE DATABASE foreign3")
    url = db.urls.app.replace("mlcore_app@/mlcore?", "stranger3@/foreign3?")
    with DatabaseConnection(url, settings=Settings()) as foreign:
        with pytest.raises(ConfigurationError, match="CREATE SCHEMA mlcore AUTHORIZATION mlcore_owner"):
            foreign.migrate()
        with pytest.raises(ConfigurationError, match="Grant it mlcore_app"), foreign.tenant(TenantId("acme")):
            pass


def test_a_database_of_a_newer_release_is_refused(db: DatabaseConnection) -> None:
    """A revision that this release does not know is neither used nor migrated."""
    url = foreign_url(db, "foreign4", "stranger4")
    with DatabaseConnection(url, settings=Settings()) as foreign:
        foreign.migrate()
        with psycopg.connect(url.replace("stranger4@", "postgres@"), autocommit=True) as session:
            session.execute("UPDATE mlcore.alembic_version SET version_num = '9999'")
        with pytest.raises(SchemaOutOfDateError) as caught:
            foreign.check_schema()
        assert (caught.value.current, caught.value.wanted) == ("9999", SCHEMA_REVISION)  # type: ignore[attr-defined]
        with pytest.raises(SchemaOutOfDateError, match="newer release"):
            foreign.migrate()


def test_two_migrations_at_once_are_one(db: DatabaseConnection) -> None:
    """Several processes that migrate an empty database together all succeed."""
    url = foreign_url(db, "foreign5", "stranger5")
    errors: list[MLFrameworkError] = []

    def migrate() -> None:
        try:
            with DatabaseConnection(url, settings=Settings()) as foreign:
                foreign.migrate()
        except MLFrameworkError as error:
            errors.append(error)

    threads = [threading.Thread(target=migrate) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []


def test_no_home_is_touched_for_a_named_database(db: DatabaseConnection, tmp_path: Path) -> None:
    """With a URL, given or in the settings, nothing is started or written under the home."""
    home = tmp_path / "home"
    settings = Settings(database=DatabaseSettings(url=db.urls.app), platform=PlatformSettings(home=home))
    with DatabaseConnection(settings=settings) as named:
        named.check_schema()
        assert not named.is_embedded
    assert not home.exists()
