"""What binds a transaction to its tenant and principal: a seal that the application makes and no query can.

The database keeps a random key in a table that only the owner reads. The application, which holds the key too, seals
the tenant, the principal and the request of each transaction; ``mlcore.enter`` checks the seal and makes another one of
it, valid in this transaction of this session only, which ``mlcore.current_tenant`` checks once a statement. SQL that is
injected into a transaction can read and change its settings, but can't make a seal for other values.

Rows that belong to no tenant, such as the platform's keys, are protected in the same way: a transaction enters ``*``,
which can't be a tenant's name (``DatabaseConnection.platform``). So under the runtime role only a process that has the
key can create or list a platform key, and no SQL that is injected into a tenant's transaction can.
"""

from __future__ import annotations

import hashlib
import threading

import psycopg
import sqlalchemy as sa

from ml_core.database.security import OWNER_ROLE
from ml_core.database.urls import parse, safe
from ml_core.exceptions import Action, ConfigurationError

VARIABLE = "MLCORE_DATABASE_TENANT_KEY"


class TenantKey:
    """The key of one registry, read on first use.

    Args:
        configured: The key in hexadecimal digits; None: it is read from the database as the owner.
        owner_url: Of a login that may act as the owner.
        connect_timeout_s: Seconds to wait for a connection.
    """

    def __init__(self, configured: str | None, owner_url: str, connect_timeout_s: int) -> None:
        self._configured = configured
        self._owner_url = owner_url
        self._connect_timeout_s = connect_timeout_s
        self._lock = threading.Lock()
        self._key: bytes | None = None

    def seal(self, tenant: str, by: str) -> str:
        """The seal with which a transaction enters a tenant.

        Args:
            tenant: The tenant.
            by: For which request and by whom: the request's id, a line break and the principal's name.

        Raises:
            ConfigurationError: The key can't be read.
        """
        return hashlib.sha256(self.value() + hashlib.sha256(f"{tenant}\n{by}".encode()).digest()).hexdigest()

    def value(self) -> bytes:
        """The key: 32 bytes.

        Raises:
            ConfigurationError: The key can't be read.
        """
        with self._lock:
            if self._key is None:
                self._key = self._read() if self._configured is None else _decoded(self._configured)
            return self._key

    def forget(self) -> None:
        """Read it again at the next use: the database has another one."""
        with self._lock:
            self._key = None

    def _read(self) -> bytes:
        engine = sa.create_engine(
            parse(self._owner_url),
            poolclass=sa.NullPool,
            hide_parameters=True,
            connect_args={"connect_timeout": self._connect_timeout_s},
        )
        try:
            with engine.begin() as connection:
                connection.execute(sa.text(f"SET LOCAL ROLE {OWNER_ROLE}"))
                return bytes(connection.scalar(sa.text("SELECT tenant_key FROM mlcore.tenant_key")))
        except sa.exc.ProgrammingError as error:
            if not isinstance(error.orig, psycopg.errors.InsufficientPrivilege):
                raise
            raise ConfigurationError(
                f"The login of {safe(parse(self._owner_url))} may not read the key that binds transactions to tenants.",
                remedy="Grant it mlcore_app, mlcore_ingest and mlcore_owner; or grant it the first two only and set "
                f"{VARIABLE} to the key, as printed where the owner's URL is known.",
                action=Action.of("db.tenant_key"),
                setting=VARIABLE,
            ) from error


def _decoded(digits: str) -> bytes:
    try:
        key = bytes.fromhex(digits)
    except ValueError:
        key = b""
    if len(key) != hashlib.sha256().digest_size:
        raise ConfigurationError(
            f"{VARIABLE} is not a key of 64 hexadecimal digits.",
            remedy="Set it to the registry's key.",
            action=Action.of("db.tenant_key"),
            setting=VARIABLE,
        )
    return key
