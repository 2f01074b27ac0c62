"""What binds a transaction to its tenant and principal: a seal that the application makes and no query can.

The database keeps a random key in a table that only the owner reads. The application, which holds the key too, seals
the tenant, the principal and the request of each transaction; ``mlcore.enter`` checks the seal and makes another one of
it, valid in this transaction of this session only, which ``mlcore.current_tenant`` checks once a statement. SQL that is
injected into a transaction can read and change its settings, but can't make a seal for other values.

Rows that belong to no tenant, such as the platform's keys, are protected in the same way: a transaction enters ``*``,
which can't be a tenant's name (``DatabaseConnection.platform``). So under the runtime role only a process that has the
key can create or list a platform key, and no SQL that is injected into a tenant's transaction can.

The process of a job has no key but the seal of its attempt (``JobSeal``). The database accepts it for the job's tenant,
in the name of whoever submitted the job, and while the attempt holds cores.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass, field
from typing import Self

import psycopg
import sqlalchemy as sa

from ml_core.database.security import OWNER_ROLE
from ml_core.database.urls import parse, safe
from ml_core.exceptions import Action, ConfigurationError, MLFrameworkError
from ml_core.ids import JobId, RunId, TenantId

VARIABLE = "MLCORE_DATABASE_TENANT_KEY"
JOB_VARIABLE = "MLCORE_DATABASE_JOB_SEAL"


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
        return hashlib.sha256(self.value() + _digest(tenant, by)).hexdigest()

    def job_seal(self, tenant_id: TenantId, job_id: JobId, run_id: RunId) -> JobSeal:
        """The seal of an attempt.

        Raises:
            ConfigurationError: The key can't be read.
        """
        digits = hashlib.sha256(_digest(tenant_id, f"{job_id}\n{run_id}") + self.value()).hexdigest()
        return JobSeal(tenant_id, job_id, run_id, digits)

    def value(self) -> bytes:
        """The key: 32 bytes.

        Raises:
            ConfigurationError: The key can't be read.
        """
        with self._lock:
            if self._key is None:
                self._key = self._read() if self._configured is None else _decoded(self._configured)
            return self._key

    @property
    def known(self) -> bytes | None:
        """The key, if it was read; None: ``value`` may have to ask the database. Never waits."""
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


@dataclass(frozen=True, slots=True)
class JobSeal:
    """The seal of an attempt: with it a transaction enters the job's tenant while the attempt holds cores."""

    tenant_id: TenantId
    job_id: JobId
    run_id: RunId
    digits: str = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what ``text`` gives.

        Raises:
            ConfigurationError: It is no seal. The text is not repeated.
        """
        try:
            tenant, job, run, digits = text.split("/")
            return cls(TenantId(tenant), JobId(job), RunId(run), digits)
        except (ValueError, MLFrameworkError):
            raise ConfigurationError(
                f"{JOB_VARIABLE} is not the seal of a job.", remedy="Unset it.", setting=JOB_VARIABLE
            ) from None

    @property
    def text(self) -> str:
        """``TENANT/JOB/RUN/DIGITS``: a secret until the attempt has ended."""
        return "/".join((self.tenant_id, self.job_id, self.run_id, self.digits))

    @property
    def by(self) -> str:
        """What ``mlcore.enter`` gets in place of request and principal."""
        return f"{self.job_id}\n{self.run_id}"


def _digest(tenant: str, by: str) -> bytes:
    return hashlib.sha256(f"{tenant}\n{by}".encode()).digest()


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
