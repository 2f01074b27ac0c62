"""The one wording of "there is no such model", of "it is hidden", and of "there is no such tenant (any more)".

The remedy names the nearest name: of the tenant's own models, never of another tenant's.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables import models, tenants, versions
from ml_core.exceptions import ModelNotFoundError, TenantNotFoundError
from ml_core.ids import ModelId, TenantId, VersionId

_COMPARED = 1_000
"""Names that a typo is compared with at most: about 10 ms of one core, and one short range of an index."""
_SHOWN = 5
"""Newest versions that a message names."""


def did_you_mean(wanted: str, known: Iterable[str]) -> str:
    """``Did you mean tickets? `` with a space at its end, or nothing if no known name is near or begins like it."""
    names = [str(name) for name in known]
    close = difflib.get_close_matches(wanted, names, n=1) or [name for name in names if name.startswith(wanted)]
    return f"Did you mean {close[0]}? " if close else ""


def model_not_found(
    tenant_id: TenantId,
    model_id: ModelId,
    version: VersionId | None = None,
    *,
    why: str | None = None,
    remedy: str | None = None,
    connection: Connection | None = None,
) -> ModelNotFoundError:
    """The error for a model, or one of its versions, that does not exist (or ``why`` else it can't be used).

    Args:
        tenant_id: The tenant.
        model_id: The model.
        version: The version; None: it is the model that is not there.
        why: What holds instead of "does not exist".
        remedy: What to do; None: the nearest name, as far as it can be looked up, and the command that lists them.
        connection: In the tenant's transaction, to look names up; None: nothing is looked up.
    """
    if version is None:
        if why is None and connection is not None:
            why, remedy = _why_no_version(connection, tenant_id, model_id) or (None, remedy)
        message = f"The model {model_id!s} {why or 'does not exist or has no version'}."
    else:
        message = f"Version {version!s} of the model {model_id!s} {why or 'does not exist'}."
    if remedy is None:
        remedy = _remedy(connection, tenant_id, model_id, version)
    return ModelNotFoundError(message, remedy=remedy, tenant_id=tenant_id, model_id=model_id, version=version)


def require_model(db: DatabaseConnection, tenant_id: TenantId, model_id: ModelId) -> None:
    """Refuse a model that does not exist; an archived one does.

    Raises:
        ModelNotFoundError: Names the nearest model that there is.
    """
    with db.tenant(tenant_id) as connection:
        require_model_in(connection, tenant_id, model_id)


def require_model_in(connection: Connection, tenant_id: TenantId, model_id: ModelId) -> None:
    """The same in the tenant's transaction.

    Raises:
        ModelNotFoundError: Names the nearest model that there is.
    """
    if not _exists(connection, tenant_id, model_id):
        raise model_not_found(tenant_id, model_id, why="does not exist", connection=connection)


def _why_no_version(connection: Connection, tenant_id: TenantId, model_id: ModelId) -> tuple[str, str] | None:
    """Why a model that exists has no version to use, and what to do; None: no version was registered."""
    of_model = (models.c.tenant_id == tenant_id, models.c.model_id == model_id, models.c.deleted_at.is_(None))
    is_archived = connection.scalar(sa.select(models.c.archived_at.is_not(None)).where(*of_model))
    names = f"--tenant {tenant_id!s} --model {model_id!s}"
    if is_archived:
        return "is archived", f"Restore it: mlcore models restore {names}"
    of_versions = (versions.c.tenant_id == tenant_id, versions.c.model_id == model_id)
    newest = sa.select(versions.c.version).where(*of_versions).order_by(versions.c.number.desc()).limit(1)
    version = None if is_archived is None else connection.scalar(newest)
    if version is None:
        return None
    remedy = (
        f"Restore the newest: mlcore versions restore {names} --version {version!s}. "
        f"List them: {_list_versions(tenant_id, model_id)} --archived"
    )
    return "has only archived versions", remedy


def _remedy(
    connection: Connection | None, tenant_id: TenantId, model_id: ModelId, version: VersionId | None
) -> str | None:
    listed = f"List them: mlcore models list --tenant {tenant_id!s}"
    if connection is None:
        return listed if version is None else f"List them: {_list_versions(tenant_id, model_id)}"
    is_tenant = sa.exists().where(tenants.c.tenant_id == tenant_id, tenants.c.deleted_at.is_(None))
    if not connection.scalar(sa.select(is_tenant)):
        return str(tenant_not_found(tenant_id))
    if not _exists(connection, tenant_id, model_id):
        of = (models.c.tenant_id == tenant_id, models.c.deleted_at.is_(None))
        names = sa.select(models.c.model_id).where(*of).order_by(models.c.model_id).limit(_COMPARED)
        hint = did_you_mean(model_id, connection.scalars(names))
        return (f"The tenant has no model {model_id!s}. " if version is not None else "") + hint + listed
    if version is None:  # nothing was registered yet
        return f"Train a version of it: mlcore train FILE --tenant {tenant_id!s} --model {model_id!s} --target COLUMN"
    of_model = (versions.c.tenant_id == tenant_id, versions.c.model_id == model_id, versions.c.archived_at.is_(None))
    newest = sa.select(versions.c.version).where(*of_model).order_by(versions.c.number.desc()).limit(_SHOWN)
    found = [str(name) for name in connection.scalars(newest)]
    shown = f"The newest {'are' if len(found) > 1 else 'is'} {', '.join(found)}. " if found else ""
    return f"{shown}List them: {_list_versions(tenant_id, model_id)}"


def _list_versions(tenant_id: TenantId, model_id: ModelId) -> str:
    return f"mlcore versions list --tenant {tenant_id!s} --model {model_id!s}"


def _exists(connection: Connection, tenant_id: TenantId, model_id: ModelId) -> bool:
    one = sa.exists().where(
        models.c.tenant_id == tenant_id, models.c.model_id == model_id, models.c.deleted_at.is_(None)
    )
    return bool(connection.scalar(sa.select(one)))


def model_archived(tenant_id: TenantId, model_id: ModelId, version: VersionId) -> ModelNotFoundError:
    """The error for a version that is hidden, by itself or with its model."""
    names = f"--tenant {tenant_id!s} --model {model_id!s}"
    remedy = (
        f"Restore it: mlcore versions restore {names} --version {version!s}, or its model, if that is archived: "
        f"mlcore models restore {names}. Or use another version."
    )
    return model_not_found(tenant_id, model_id, version, why="is archived", remedy=remedy)


def tenant_not_found(tenant_id: TenantId) -> TenantNotFoundError:
    """The error for a tenant that does not exist."""
    return TenantNotFoundError(
        f"There is no tenant {tenant_id!s}.",
        remedy=f"Create it: mlcore tenants create {tenant_id!s}.",
        tenant_id=tenant_id,
    )


def tenant_deleted(tenant_id: TenantId) -> TenantNotFoundError:
    """The error for a tenant that was deleted: neither it nor its name comes back."""
    return TenantNotFoundError(
        f"The tenant {tenant_id!s} was deleted.",
        remedy="Its name is never given out again: create a tenant of another name.",
        tenant_id=tenant_id,
    )
