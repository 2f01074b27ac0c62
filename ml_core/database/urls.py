"""Database URLs: parsed once, completed with the driver, and shown without their password."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy
from sqlalchemy.engine import URL

from ml_core.exceptions import ConfigurationError

_SCHEMES = ("postgres", "postgresql", "postgresql+psycopg")


@dataclass(frozen=True, slots=True)
class DatabaseUrls:
    """One URL for each role: runtime, serving plane and migrations. A login may be the same for all."""

    app: str
    ingest: str
    owner: str

    def __repr__(self) -> str:
        shown = (f"{name}={safe(parse(getattr(self, name)))!r}" for name in ("app", "ingest", "owner"))
        return f"DatabaseUrls({', '.join(shown)})"


def parse(text: str) -> URL:
    """A Postgres URL with the psycopg driver.

    Raises:
        ConfigurationError: It is not a Postgres URL. The text is not repeated: it may hold a password.
    """
    try:
        url = sqlalchemy.make_url(text)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        raise _refused("The database URL can't be read.") from None
    if url.drivername not in _SCHEMES:
        raise _refused(f"The database URL is of kind {url.drivername!r}; the registry needs PostgreSQL.")
    return url.set(drivername="postgresql+psycopg")


def safe(url: URL) -> str:
    """The URL without password and options, for messages and logs."""
    bare = url.set(drivername="postgresql")
    socket_folder = bare.query.get("host")
    shown = bare.set(query={"host": socket_folder} if socket_folder else {})
    return shown.render_as_string(hide_password=True)


def _refused(message: str) -> ConfigurationError:
    return ConfigurationError(
        message, remedy="Use postgresql://user:password@host:5432/database.", setting="MLCORE_DATABASE_URL"
    )
