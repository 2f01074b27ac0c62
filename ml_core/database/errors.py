"""The one place where driver errors become the platform's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import sqlalchemy.exc

from ml_core.exceptions import (
    ConfigurationError,
    InvalidRequestError,
    MLFrameworkError,
    RegistryUnavailableError,
    SchemaOutOfDateError,
)

_MISSING_OBJECT = (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName, psycopg.errors.UndefinedFunction)
_MIGRATE = "Call DatabaseConnection(url).migrate()."


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Turn the driver's errors into ours: unreachable, not migrated, forbidden role, or a value that can't be stored.

    Integrity errors pass through: only the repository that caused one knows what it means.

    Args:
        where: The database as it may be shown to a user, without a password.
    """
    try:
        yield
    except sqlalchemy.exc.DBAPIError as error:
        known = _translate(error.orig, where)
        if known is None and error.connection_invalidated:
            known = _unavailable(error, where)
        if known is None:
            raise
        raise known from error
    except UnicodeEncodeError as error:
        raise InvalidRequestError(
            "The registry can't store a text that is not valid Unicode.", remedy="Use text that UTF-8 can hold."
        ) from error
    except sqlalchemy.exc.TimeoutError as error:
        raise _unavailable(error, where) from error
    except psycopg.Error as error:
        known = _translate(error, where)
        if known is None:
            raise
        raise known from error


def _translate(error: BaseException | None, where: str) -> MLFrameworkError | None:
    if isinstance(error, _MISSING_OBJECT):
        return SchemaOutOfDateError(f"The registry at {where} lacks a table that this release needs.", remedy=_MIGRATE)
    if isinstance(error, psycopg.errors.InvalidParameterValue) and "role" in str(error):
        return SchemaOutOfDateError(f"The registry at {where} lacks the platform's roles.", remedy=_MIGRATE)
    if isinstance(error, psycopg.errors.InsufficientPrivilege) and "set role" in str(error):
        return ConfigurationError(
            f"The login of {where} may not act as the platform's roles.",
            remedy="Grant it mlcore_app and mlcore_ingest, or set MLCORE_DATABASE_URL to a login that has them.",
            setting="MLCORE_DATABASE_URL",
        )
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return _unavailable(error, where)
    if isinstance(error, psycopg.DataError):
        reason = str(error).strip().splitlines()[0]
        return InvalidRequestError(
            f"The registry can't store a value: {reason}.", remedy="Use text without NUL characters and plain numbers."
        )
    return None


def _unavailable(error: BaseException, where: str) -> RegistryUnavailableError:
    cause = error.orig if isinstance(error, sqlalchemy.exc.DBAPIError) and error.orig is not None else error
    lines = str(cause).strip().splitlines()
    reason = lines[0] if lines else type(cause).__name__
    return RegistryUnavailableError(
        f"The registry at {where} can't be used now: {reason}",
        remedy="Check that Postgres runs and can be reached, then try again.",
    )
