"""The registry's database as a file, and back: PostgreSQL's own programs, called with care.

``pg_dump`` reads one snapshot, so what it writes is consistent whatever happens meanwhile. It must see every tenant's
rows, so it needs a login that row-level security does not hold back: a superuser's, or one with BYPASSRLS.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.engine import Connection

from ml_core.database.binaries import installed_programs, last_lines
from ml_core.database.errors import translated
from ml_core.database.migrate import create_roles
from ml_core.database.tables import SCHEMA
from ml_core.database.urls import parse, safe
from ml_core.exceptions import ConfigurationError, PlatformError

_SERVICE = "mlcore"
_SCHEMAS = f"{SCHEMA}*"  # also that of the prediction log's partitions


def dump(url: str, file: Path) -> None:
    """Write the registry's schemas with all rows into a file, in PostgreSQL's custom format.

    Args:
        url: Of a login that sees all rows.
        file: Where to; replaced if it is there.

    Raises:
        ConfigurationError: The login is under row-level security, so the dump would lack every tenant.
        PlatformError: ``pg_dump`` failed; carries what it printed.
        RegistryUnavailableError: Postgres can't be reached.
    """
    query = sa.text("SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user")
    with admin_session(url) as connection:
        sees_all = connection.scalar(query)
    if not sees_all:
        raise ConfigurationError(
            f"The login of {safe(parse(url))} is under row-level security, so a backup would lack every tenant.",
            remedy="Give --url a login that is a superuser or has BYPASSRLS.",
        )
    _run(
        "pg_dump", url, "--format=custom", f"--schema={_SCHEMAS}", "--no-password", "--lock-wait-timeout=60s",
        f"--file={file}",
    )  # fmt: skip


def restore(url: str, file: Path) -> None:
    """Read a dump into a database that has no registry yet; all of it or nothing.

    Args:
        url: Of a login that may create roles and act as them: a superuser's.
        file: As ``dump`` wrote it.

    Raises:
        ConfigurationError: The database has a registry already, or the login may not create what is needed.
        PlatformError: ``pg_restore`` failed; nothing was changed.
        RegistryUnavailableError: Postgres can't be reached.
    """
    with admin_session(url) as connection:
        if connection.scalar(sa.text("SELECT true FROM pg_namespace WHERE nspname = :name"), {"name": SCHEMA}):
            raise ConfigurationError(
                f"The database at {safe(parse(url))} holds a registry already.",
                remedy="Restore into an empty one: another database, or a new MLCORE_HOME.",
                setting="MLCORE_DATABASE_URL",
            )
        create_roles(connection)
    _run("pg_restore", url, "--single-transaction", "--exit-on-error", "--no-password", str(file))


@contextmanager
def holding(url: str, lock: int) -> Iterator[None]:
    """Hold an advisory lock alone while a block runs, on a session of its own.

    Raises:
        RegistryUnavailableError: Another session holds it for longer than a minute.
    """
    with admin_session(url) as connection:
        for name, value in (("lock_timeout", "60s"), ("idle_in_transaction_session_timeout", "0")):
            connection.execute(sa.select(sa.func.set_config(name, value, True)))
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(lock)))
        yield


@contextmanager
def admin_session(url: str) -> Iterator[Connection]:
    """One transaction as a login that was named, on a session of its own.

    Raises:
        RegistryUnavailableError: Postgres can't be reached.
    """
    engine = sa.create_engine(parse(url), poolclass=sa.NullPool, hide_parameters=True)
    with translated(safe(parse(url))), engine.begin() as connection:
        yield connection


def _run(program: str, url: str, *arguments: str) -> None:
    """Run a program of PostgreSQL's against a database.

    The parameters of the connection are passed in a service file that only this user can read: every user can see the
    arguments of a process, and so a password among them.
    """
    with tempfile.NamedTemporaryFile("w", prefix="mlcore-service-") as service, tempfile.TemporaryFile() as output:
        service.write(_service(url))
        service.flush()
        done = subprocess.run(  # noqa: S603 - our own program, no shell
            [str(installed_programs() / program), *arguments, f"--dbname=service={_SERVICE}"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, "PGSERVICEFILE": service.name},
            umask=0o077,
            check=False,
        )
        output.seek(0)
        printed = output.read().decode(errors="replace").strip()
    if done.returncode != 0:
        raise PlatformError(
            f"{program} failed with exit code {done.returncode}: {last_lines(printed)}",
            remedy="Correct that and try again; a restore that failed changed nothing.",
            component="postgres",
        )


def _service(url: str) -> str:
    """A service file's text for a URL: every parameter of the connection on a line of its own.

    Raises:
        ConfigurationError: A parameter has a line break, which such a file can't hold.
    """
    plain = parse(url).set(drivername="postgresql").render_as_string(hide_password=False)
    parameters = {name: str(value) for name, value in conninfo_to_dict(plain).items() if value is not None}
    if any("\n" in value for value in parameters.values()):
        raise ConfigurationError("A parameter of the database URL has a line break.", remedy="Take it out.")
    return "\n".join([f"[{_SERVICE}]", *(f"{name}={value}" for name, value in parameters.items()), ""])
