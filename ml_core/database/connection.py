"""``DatabaseConnection``: the way to the registry's Postgres, always under a role and, for tenants' rows, a tenant.

A transaction begins by taking its role, its tenant and its time limits in one statement and for itself only
(``set_config(…, true)``), so nothing is left on a pooled session for its next user, and a pooler that hands out
sessions per transaction works too. The tenant and the principal are sealed (``ml_core.database.binding``).
"""

from __future__ import annotations

import copy
import dataclasses
import os
import pwd
import select
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import orjson
import psycopg
import sqlalchemy
from sqlalchemy.engine import Connection, Engine

from ml_core.database.binding import JOB_VARIABLE, VARIABLE, JobSeal, TenantKey
from ml_core.database.errors import translated
from ml_core.database.listener import Listener
from ml_core.database.security import APP_ROLE, INGEST_ROLE, OWNER_ROLE
from ml_core.database.strict_json import dumps
from ml_core.database.tables import PLATFORM, SCHEMA_REVISION
from ml_core.database.urls import DatabaseUrls, parse, safe
from ml_core.domain.principal import Principal
from ml_core.exceptions import Action, ConfigurationError, SchemaOutOfDateError
from ml_core.ids import JobId, RunId, TenantId
from ml_core.settings import Settings

if TYPE_CHECKING:
    from ml_core.database.embedded import EmbeddedServer

# A transaction of the registry takes milliseconds; these bounds only end what hangs.
_STATEMENT_TIMEOUT = "30s"
_LOCK_TIMEOUT = "10s"
_IDLE_TIMEOUT = "60s"

# Of a statement, in one session of the embedded server; psycopg's own default is 5.
_PREPARE_AFTER = 2

# The search path and row security are set too: an earlier transaction may have left others on the session. All in one
# column: the driver looks at each.
_TAKE_ROLE = (
    "SELECT concat(set_config('role', %(role)s, true), set_config('search_path', 'pg_catalog, pg_temp', true),"
    " set_config('row_security', 'on', true),"
    f" set_config('statement_timeout', '{_STATEMENT_TIMEOUT}', true),"
    f" set_config('lock_timeout', '{_LOCK_TIMEOUT}', true),"
    f" set_config('idle_in_transaction_session_timeout', '{_IDLE_TIMEOUT}', true))"
)
_ENTER = "mlcore.enter(%(tenant)s, %(by)s, %(seal)s)"
_TAKE_ROLE_AND_ENTER = f"{_TAKE_ROLE}, {_ENTER}"


class DatabaseConnection:
    """Connections to one registry. Thread-safe; sessions are pooled and replaced when Postgres was restarted.

    Without a URL, from the argument or from ``MLCORE_DATABASE_URL``, it starts or joins the embedded server under
    ``MLCORE_HOME`` and brings its schema up to date. A database that was named is only changed by ``migrate``.

    In the process of a job, which has a job's seal and no key, it acts in the job's tenant only, until the job ends.

    A transaction raises ``RegistryUnavailableError`` if Postgres can't be reached, or a lock or statement takes too
    long, ``SchemaOutOfDateError`` if the database was not migrated, and ``InvalidRequestError`` if a value can't be
    stored.

    Args:
        url: A Postgres URL, or None.
        settings: Instead of those of the environment.
        migrate_embedded: Whether the embedded server's schema is brought up to date at once.

    Attributes:
        urls: The URLs of the three roles, to hand to another process. They may hold passwords.

    Raises:
        ConfigurationError: The URL can't be used.
        PlatformError: The embedded server can't start.
    """

    def __init__(
        self, url: str | None = None, *, settings: Settings | None = None, migrate_embedded: bool = True
    ) -> None:
        self.settings = settings or Settings.from_environment()
        self.server: EmbeddedServer | None = None
        self.principal = Principal.operator(current_user())
        self._request_id = ""
        self._joined: tuple[TenantId, Connection] | None = None
        self._lock = threading.Lock()
        self._engines: dict[str, Engine] = {}
        named = url or self.settings.database.url
        if named is not None:
            own = self.settings.database if url is None else None
            self.urls = DatabaseUrls(
                app=named, ingest=(own and own.ingest_url) or named, owner=(own and own.owner_url) or named
            )
            self._app_url = parse(self.urls.app)
        else:
            self.urls = self._join_embedded()
            self._app_url = parse(self.urls.app)
        database = self.settings.database
        configured = None if named is None else database.tenant_key
        self._tenant_key = TenantKey(configured, self.urls.owner, database.connect_timeout_s)
        self._job_seal = None if database.job_seal is None else JobSeal.parse(database.job_seal)
        if self._job_seal is not None:
            self.principal = Principal(self._job_seal.job_id, frozenset(), tenant_id=self._job_seal.tenant_id)
        if named is None and migrate_embedded and self.current_revision() != SCHEMA_REVISION:
            self.migrate()

    def _join_embedded(self) -> DatabaseUrls:
        from ml_core.database.embedded import EmbeddedServer

        self.server = EmbeddedServer(self.settings.platform.home)
        self.server.start()
        return self.server.urls

    @property
    def is_embedded(self) -> bool:
        """Whether this is the embedded server."""
        return self.server is not None

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which another process reaches the same database without the owner's login: secrets.

        They also say after how many executions it prepares a statement, as this process does: it can't know that the
        server is the embedded one.

        Raises:
            ConfigurationError: The login for migrations may not act as the owner.
        """
        variables = {
            "MLCORE_DATABASE_URL": self.urls.app,
            "MLCORE_DATABASE_INGEST_URL": self.urls.ingest,
            VARIABLE: self.tenant_key,
        }
        if (prepare_after := self._prepare_after()) is not None:
            variables["MLCORE_DATABASE_PREPARE_AFTER"] = str(prepare_after)
        return variables

    def job_environment(self, tenant_id: TenantId, job_id: JobId, run_id: RunId) -> dict[str, str]:
        """The variables by which the process of an attempt acts in the job's tenant only, until the attempt ends.

        They are set over those of the platform's other processes: an empty one counts as unset.

        Raises:
            ConfigurationError, SchemaOutOfDateError, RegistryUnavailableError: As ``environment``.
        """
        with translated(self.safe_url):
            seal = self._tenant_key.job_seal(tenant_id, job_id, run_id)
        not_given = (VARIABLE, "MLCORE_DATABASE_OWNER_URL", "MLCORE_DATABASE_INGEST_URL", "MLCORE_OIDC_CLIENT_SECRET")
        return {JOB_VARIABLE: seal.text, **dict.fromkeys(not_given, "")}

    @property
    def admin_url(self) -> str:
        """A URL for backups, which must see all rows: the embedded superuser's, else that for migrations."""
        return self.urls.owner if self.server is None else self.server.admin_url

    @cached_property
    def safe_url(self) -> str:
        """The runtime URL without its password, for messages."""
        return safe(self._app_url)

    def tenant(self, tenant_id: TenantId) -> AbstractContextManager[Connection]:
        """One transaction of the runtime role for a tenant: it sees and writes that tenant's rows only.

        Commits when the block ends, rolls back when it raises.

        Raises:
            TenantNotFoundError: The principal belongs to another tenant.
        """
        if self._joined is not None and self._joined[0] == tenant_id:
            return nullcontext(self._joined[1])
        return self._transaction(self._engine(self.urls.app), APP_ROLE, tenant_id)

    @contextmanager
    def together(self, tenant_id: TenantId) -> Iterator[Self]:
        """The same connections, whose blocks of ``tenant`` for this tenant are parts of one transaction.

        An error that leaves one of them must leave this block too. Raises as ``tenant``.
        """
        with self.tenant(tenant_id) as connection:
            joined = copy.copy(self)
            joined._joined = tenant_id, connection
            yield joined

    def platform(self) -> AbstractContextManager[Connection]:
        """One transaction of the runtime role for the rows that belong to no tenant, such as the platform's keys.

        Raises:
            PermissionDeniedError: The principal belongs to a tenant.
        """
        return self._transaction(self._engine(self.urls.app), APP_ROLE, PLATFORM)

    def acting_as(self, principal: Principal, request_id: str | None = None) -> Self:
        """The same connections for another principal, which the audit names and whose scopes are checked.

        Without it the principal is the operating system's user, who may do everything: it holds the database's URL.

        Args:
            principal: Who acts.
            request_id: Of the request that it acts for, if there is one.
        """
        other = copy.copy(self)
        other.principal, other._request_id = principal, (request_id or "").replace("\n", " ")
        other._joined = None  # that transaction is another principal's
        return other

    def serving(self) -> AbstractContextManager[Connection]:
        """One transaction of the serving plane: reads what is served of all tenants, from one snapshot."""
        engine = self._engine(self.urls.ingest).execution_options(isolation_level="REPEATABLE READ")
        return self._transaction(engine, INGEST_ROLE, "")

    def ingesting(self, tenant_id: TenantId | None = None) -> AbstractContextManager[Connection]:
        """One transaction of the serving plane that writes: the prediction log of all tenants, or one tenant's labels.

        Each statement sees what was committed before it.

        Args:
            tenant_id: Whose rows may be read and written where a table is bound to the transaction's tenant.
        """
        return self._transaction(self._engine(self.urls.ingest), INGEST_ROLE, tenant_id or "")

    def maintaining(self, tenant_id: TenantId | None = None) -> AbstractContextManager[Connection]:
        """One transaction of the owner, for what runtime roles may not do, such as dropping old partitions.

        The policies hold for the owner as well.

        Args:
            tenant_id: Whose rows it sees; None: no tenant's.

        Raises:
            ConfigurationError: The login for migrations may not act as the owner.
        """
        return self._transaction(self._engine(self.urls.owner), OWNER_ROLE, tenant_id or "")

    @contextmanager
    def _transaction(self, engine: Engine, role: str, tenant: str) -> Iterator[Connection]:
        self.principal.enter(None if tenant in {"", PLATFORM} else tenant)
        with translated(self.safe_url):
            entry = self._entry(tenant) if tenant else {}
            with engine.begin() as connection:
                connection.execution_options(mlcore_entered=(self, tenant))
                self._take_role(connection, {"role": role, **entry})
                yield connection

    def _take_role(self, connection: Connection, entry: dict[str, str]) -> None:
        # By the driver alone: SQLAlchemy would add half of the time, and each transaction begins with it.
        session: psycopg.Connection[Any] = connection.connection.driver_connection  # type: ignore[assignment]  # is open
        try:
            session.execute(_TAKE_ROLE_AND_ENTER if "tenant" in entry else _TAKE_ROLE, entry)
        except psycopg.Error as error:
            if isinstance(error, psycopg.errors.InvalidAuthorizationSpecification):
                self._tenant_key.forget()
            if session.closed:
                connection.invalidate(error)  # else the rollback fails, and its error hides this one
            raise

    def _entry(self, tenant: str) -> dict[str, str]:
        if self._job_seal is not None:
            return {"tenant": tenant, "by": self._job_seal.by, "seal": self._job_seal.digits}
        by = f"{self._request_id}\n{self.principal.name}"
        return {"tenant": tenant, "by": by, "seal": self._tenant_key.seal(tenant, by)}

    @property
    def tenant_key(self) -> str:
        """The key that binds transactions to their tenant, in hexadecimal digits; see ``ml_core.database.binding``.

        Raises:
            ConfigurationError: The login for migrations may not act as the owner.
        """
        with translated(self.safe_url):
            return self._tenant_key.value().hex()

    @property
    def known_tenant_key(self) -> str | None:
        """``tenant_key``, if this process has read it; else None. Never waits."""
        known = self._tenant_key.known
        return None if known is None else known.hex()

    def set_tenant_key(self) -> None:
        """Make the key of the settings the registry's. Processes with another key can't enter a tenant any more.

        Raises:
            ConfigurationError: The settings have no key, or the login for migrations may not act as the owner.
        """
        if self.settings.database.tenant_key is None or self.is_embedded:
            raise ConfigurationError(
                "There is no tenant key to set.",
                remedy="Set MLCORE_DATABASE_URL, and MLCORE_DATABASE_TENANT_KEY to 64 hexadecimal digits.",
                setting="MLCORE_DATABASE_TENANT_KEY",
            )
        with self.maintaining() as connection:
            statement = sqlalchemy.text("UPDATE mlcore.tenant_key SET tenant_key = :key WHERE tenant_key <> :key")
            connection.execute(statement, {"key": self._tenant_key.value()})

    def catalogue(self) -> AbstractContextManager[Connection]:
        """One transaction to look at the database's catalogue, as the runtime role without a tenant."""
        return self._transaction(self._engine(self.urls.app), APP_ROLE, "")

    def listen(self, channel: str) -> Listener:
        """A listener on a session of its own. It needs a direct connection, not a transaction pooler."""
        engine = self._engine(self.urls.ingest)
        _, parameters = engine.dialect.create_connect_args(engine.url)
        return Listener({**parameters, **self._connect_arguments()}, channel, self.safe_url)

    def migrate(self) -> None:
        """Bring the schema up to date; safe to call from several processes at once.

        Raises:
            ConfigurationError: The owner's login may not create what is needed; the remedy is the SQL to run.
            SchemaOutOfDateError: The database is of a newer release.
            RegistryUnavailableError: A lock took too long; the next call continues with the migration that waited.
        """
        from ml_core.database.migrate import upgrade

        with translated(self.safe_url):
            upgrade(self._engine(self.urls.owner))

    def current_revision(self) -> str | None:
        """The schema's revision; None before the first migration."""
        from ml_core.database.migrate import read_revision

        with translated(self.safe_url), self._engine(self.urls.app).begin() as connection:
            return read_revision(connection)

    def check_schema(self) -> None:
        """Refuse a database whose schema is not this release's.

        Raises:
            SchemaOutOfDateError: Names both revisions.
        """
        current, wanted = self.current_revision(), SCHEMA_REVISION
        if current != wanted:
            raise SchemaOutOfDateError(
                f"The registry is at schema {current or 'none'}; this release needs {wanted}.",
                internal=self.safe_url,
                remedy="Upgrade the schema, or use the release that it belongs to; DatabaseConnection(url).migrate() "
                "upgrades it too.",
                action=Action.of("db.upgrade"),
                current=current,
                wanted=wanted,
            )

    def close(self) -> None:
        """Close the pooled sessions. The embedded server runs until the last process that uses it ends."""
        with self._lock:
            engines = list(self._engines.values())
            self._engines.clear()  # in place: ``acting_as`` shares them
        for engine in engines:
            engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"DatabaseConnection({self.safe_url!r})"

    def _engine(self, url: str) -> Engine:
        with self._lock:
            if url not in self._engines:
                self._engines[url] = self._create_engine(url)
            return self._engines[url]

    def _create_engine(self, url: str) -> Engine:
        database = self.settings.database
        engine = sqlalchemy.create_engine(
            parse(url),
            pool_size=database.pool_size,
            max_overflow=database.pool_size,
            pool_timeout=database.connect_timeout_s,
            hide_parameters=True,
            json_serializer=dumps,
            json_deserializer=orjson.loads,
            connect_args=self._connect_arguments(),
        )
        sqlalchemy.event.listen(engine, "checkout", _refuse_ended)
        return engine

    def _connect_arguments(self) -> dict[str, Any]:
        return {
            "connect_timeout": self.settings.database.connect_timeout_s,
            "application_name": "mlcore",
            "prepare_threshold": self._prepare_after(),
            # A replica must notice a vanished host within a minute. Keepalives (seconds) test a session that waits.
            # While data is unacknowledged the kernel sends none of them and repeats the data for a quarter of an hour:
            # that ends after ``tcp_user_timeout`` (milliseconds). A Unix socket ignores all four.
            "keepalives_idle": 15,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 30_000,
        }

    def _prepare_after(self) -> int | None:
        """A kept plan saves a third of a small query, but a transaction pooler may hand out a session without it."""
        prepare_after = self.settings.database.prepare_after
        return _PREPARE_AFTER if prepare_after is None and self.is_embedded else prepare_after


def _refuse_ended(session: psycopg.Connection[Any], *_: object) -> None:
    """Let the pool replace a session that Postgres has ended."""
    # An idle session has nothing to read but its end. ``pool_pre_ping`` would cost each transaction a round trip.
    poll = select.poll()
    poll.register(session.fileno(), select.POLLIN)
    if poll.poll(0):
        raise sqlalchemy.exc.DisconnectionError


def acting(connection: Connection) -> Principal:
    """On whose behalf a transaction of ``DatabaseConnection`` runs."""
    db, _ = connection.get_execution_options()["mlcore_entered"]
    principal: Principal = db.principal
    return principal


def sign(connection: Connection, actor: str | None) -> str:
    """Let a transaction continue in the name of whom an operator acts for; only an operator may name another.

    Args:
        connection: In a tenant's transaction of ``DatabaseConnection``.
        actor: Whom; None: the connection's principal.

    Returns:
        The name that rows and the audit carry from here on.
    """
    db, tenant = connection.get_execution_options()["mlcore_entered"]
    name: str = db.principal.signs_as(actor)
    if name != db.principal.name:
        other = db.acting_as(dataclasses.replace(db.principal, name=name), db._request_id)
        connection.exec_driver_sql(f"SELECT {_ENTER}", other._entry(tenant))
        connection.execution_options(mlcore_entered=(other, tenant))
    return name


def current_user() -> str:
    """Who runs this process, for histories: the name of its user, or the number where it has no name."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"uid {os.geteuid()}"
