"""The one place where driver errors become the platform's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import sqlalchemy.exc

from ml_core.database.tables import SCHEMA
from ml_core.exceptions import (
    Action,
    ConfigurationError,
    InvalidRequestError,
    JobStateError,
    MLFrameworkError,
    RegistryUnavailableError,
    RequestTooLargeError,
    SchemaOutOfDateError,
)

_MISSING_OBJECT = {
    psycopg.errors.UndefinedTable: "table",
    psycopg.errors.InvalidSchemaName: "schema",
    psycopg.errors.UndefinedColumn: "column",
}


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


def is_timeout(error: MLFrameworkError) -> bool:
    """Whether Postgres ended a statement because it took too long."""
    cause = error.__cause__
    cause = cause.orig if isinstance(cause, sqlalchemy.exc.DBAPIError) else cause
    return isinstance(cause, psycopg.errors.QueryCanceled)


def _translate(error: BaseException | None, where: str) -> MLFrameworkError | None:
    if (what := _missing_object(error)) is not None:
        return _outdated(f"The registry lacks a {what} that this release needs.", where)
    if isinstance(error, psycopg.errors.InvalidParameterValue) and "role" in str(error):
        return _outdated("The registry lacks the platform's roles.", where)
    if isinstance(error, psycopg.errors.InvalidAuthorizationSpecification) and "seal of the tenant" in str(error):
        return ConfigurationError(
            "The registry has another tenant key than this process.",
            internal=where,
            remedy="Set MLCORE_DATABASE_TENANT_KEY to the registry's key, or try again where it is not set: the key is "
            "read again.",
            action=Action.of("db.tenant_key"),
            setting="MLCORE_DATABASE_TENANT_KEY",
        )
    if isinstance(error, psycopg.errors.InvalidAuthorizationSpecification) and "goes on without" in str(error):
        return JobStateError(str(error.diag.message_primary), remedy="Stop its process.")
    if isinstance(error, psycopg.errors.InsufficientPrivilege) and "set role" in str(error):
        return ConfigurationError(
            "The login of the registry may not act as the platform's roles.",
            internal=where,
            remedy="Grant it mlcore_app and mlcore_ingest, or set MLCORE_DATABASE_URL to a login that has them.",
            setting="MLCORE_DATABASE_URL",
        )
    if isinstance(error, psycopg.errors.CheckViolation) and (error.diag.constraint_name or "").endswith("_sizes"):
        return RequestTooLargeError(
            f"A row of {error.diag.table_name} would be larger than the registry stores.",
            remedy="Store large values in a file of a run.",
        )
    if _is_over_a_limit(error):
        reason = str(error).strip().splitlines()[0]
        return RequestTooLargeError(
            f"The registry can't store so much at once: {reason}.", remedy="Use shorter names and fewer values."
        )
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return _unavailable(error, where)
    if isinstance(error, psycopg.DataError):
        reason = str(error).strip().splitlines()[0]
        return InvalidRequestError(
            f"The registry can't represent a value: {reason}.",
            remedy="Use text without NUL characters, and integers of at most 64 bits.",
        )
    return None


def _outdated(message: str, where: str) -> SchemaOutOfDateError:
    return SchemaOutOfDateError(
        message,
        internal=where,
        remedy="Upgrade the schema; DatabaseConnection(url).migrate() does it too. If it is up to date, check it: what "
        "differs is listed.",
        action=Action.of("db.upgrade"),
    )


def _missing_object(error: BaseException | None) -> str | None:
    """What the schema lacks, where that is the error."""
    # An undefined operator is the same error, and means that a parameter was of a wrong type.
    if isinstance(error, psycopg.errors.UndefinedFunction):
        return "function" if f"function {SCHEMA}." in str(error) else None
    return next((what for kind, what in _MISSING_OBJECT.items() if isinstance(error, kind)), None)


def _is_over_a_limit(error: BaseException | None) -> bool:
    """Whether it would fail the next time too: a value too long for an index, more parameters than a statement has."""
    if isinstance(error, psycopg.errors.ProgramLimitExceeded):
        return True
    # libpq refuses this by itself, so there is no code.
    is_coded = isinstance(error, psycopg.Error) and error.sqlstate is not None
    return isinstance(error, psycopg.OperationalError) and not is_coded and "number of parameters" in str(error)


def _unavailable(error: BaseException, where: str) -> RegistryUnavailableError:
    cause = error.orig if isinstance(error, sqlalchemy.exc.DBAPIError) and error.orig is not None else error
    lines = str(cause).strip().splitlines()
    reason = lines[0] if lines else type(cause).__name__
    return RegistryUnavailableError(
        "The registry can't be used now.",
        internal=f"{where}: {reason}",
        remedy="Check that Postgres runs and can be reached, then try again.",
    )
