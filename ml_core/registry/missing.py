"""The errors for what does not exist, or is archived or deleted.

A remedy names the nearest name among the tenant's own models, never one of another tenant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.database.tables import models, tenants, versions
from ml_core.exceptions import Action, MLFrameworkError, ModelNotFoundError, TenantNotFoundError, did_you_mean
from ml_core.ids import ModelId, TenantId, VersionId

if TYPE_CHECKING:
    from ml_core.registry.pages import AnyRow

Error = TypeVar("Error", bound=MLFrameworkError)

_COMPARED = 1_000
"""Names that a typo is compared with: about 10 ms of one core, and a short range of an index."""
_SHOWN = 5
"""Newest versions that a message names."""


def model_not_found(
    tenant_id: TenantId,
    model_id: ModelId,
    version: VersionId | None = None,
    *,
    why: str | None = None,
    remedy: str | None = None,
    action: Action | None = None,
    connection: Connection | None = None,
) -> ModelNotFoundError:
    """The error for a model, or one of its versions, that does not exist or can't be used.

    Args:
        tenant_id: The tenant.
        model_id: The model.
        version: The version; None: the error is about the model.
        why: The state that prevents its use; None: it does not exist.
        remedy: What to do; None: the nearest name, where it can be looked up, and where names are listed.
        action: The operation that does it.
        connection: In the tenant's transaction, to look names up; None: nothing is looked up.
    """
    if version is None and why is None and connection is not None:
        why, remedy, action = _why_no_version(connection, tenant_id, model_id) or (None, remedy, action)
    if remedy is None:
        remedy, action = _suggestion(connection, tenant_id, model_id, version)
    if version is None:
        message = f"The model {model_id!s} {why or 'does not exist or has no version'}."
    else:
        message = f"Version {version!s} of the model {model_id!s} {why or 'does not exist'}."
    return ModelNotFoundError(
        message, remedy=remedy, action=action, tenant_id=tenant_id, model_id=model_id, version=version
    )


def require_model_in(connection: Connection, tenant_id: TenantId, model_id: ModelId) -> None:
    """Refuse a model that does not exist; an archived one does.

    Raises:
        ModelNotFoundError: There is no such model; names the nearest.
    """
    if not _exists(connection, tenant_id, model_id):
        raise model_not_found(tenant_id, model_id, why="does not exist", connection=connection)


def not_shown(
    row: AnyRow | None,
    tenant_id: TenantId,
    model_id: ModelId,
    version: VersionId,
    *,
    connection: Connection | None = None,
) -> ModelNotFoundError:
    """The error for a version that does not exist, if it has no row, or is archived, by itself or with its model."""
    if row is None:
        return model_not_found(tenant_id, model_id, version, connection=connection)
    action = Action.of("versions.restore", tenant=tenant_id, model=model_id, version=version)
    remedy = "Restore it, or its model if that is archived, or use another version."
    of_model = sa.select(models.c.archived_at).filter_by(tenant_id=tenant_id, model_id=model_id)
    if connection is not None and connection.scalar(of_model) is not None:
        action, remedy = Action.of("models.restore", tenant=tenant_id, model=model_id), "Restore its model."
    return model_not_found(tenant_id, model_id, version, why="is archived", remedy=remedy, action=action)


def not_found(kind: type[Error], noun: str, name: str, tenant_id: TenantId) -> Error:
    """The error for a noun, such as ``job``, of which the tenant has none of this name."""
    shown = str(name)[:40]
    named: dict[str, Any] = {kind.fields[0]: shown}
    return kind(
        f"There is no {noun} {shown!r}.",
        remedy=f"List the tenant's {noun}s.",
        action=Action.of(f"{noun}s.list", tenant=str(tenant_id)),
        tenant_id=tenant_id,
        **named,
    )


def tenant_not_found(tenant_id: TenantId) -> TenantNotFoundError:
    """The error for a tenant that does not exist."""
    return TenantNotFoundError(
        f"There is no tenant {tenant_id!s}.",
        remedy="Create it first.",
        action=Action.of("tenants.create", tenant=tenant_id),
        tenant_id=tenant_id,
    )


def tenant_deleted(tenant_id: TenantId) -> TenantNotFoundError:
    """The error for a tenant that was deleted: neither the tenant nor its name comes back."""
    return TenantNotFoundError(
        f"The tenant {tenant_id!s} was deleted.",
        remedy="Its name is never reused: create a tenant with another name.",
        tenant_id=tenant_id,
    )


def _why_no_version(
    connection: Connection, tenant_id: TenantId, model_id: ModelId
) -> tuple[str, str, Action | None] | None:
    """Why a model that exists has no version to use, and what to do; None: no version was registered."""
    of_model = sa.select(models.c.archived_at.is_not(None))
    is_archived = connection.scalar(of_model.filter_by(tenant_id=tenant_id, model_id=model_id, deleted_at=None))
    if is_archived:
        return "is archived", "Restore it.", Action.of("models.restore", tenant=tenant_id, model=model_id)
    newest = [] if is_archived is None else _newest(connection, tenant_id, model_id, 1, with_archived=True)
    if not newest:
        return None
    restore = Action.of("versions.restore", tenant=tenant_id, model=model_id, version=newest[0])
    return "has only archived versions", f"Restore one; the newest is {newest[0]}.", restore


def _suggestion(
    connection: Connection | None, tenant_id: TenantId, model_id: ModelId, version: VersionId | None
) -> tuple[str, Action]:
    """What a person may have meant, as far as it can be looked up, and the operation that lists the names."""
    list_models = Action.of("models.list", tenant=tenant_id)
    list_versions = Action.of("versions.list", tenant=tenant_id, model=model_id)
    if connection is None:
        return ("List the models.", list_models) if version is None else ("List its versions.", list_versions)
    if not connection.scalar(sa.select(tenants.c.tenant_id).filter_by(tenant_id=tenant_id, deleted_at=None)):
        return str(tenant_not_found(tenant_id)), Action.of("tenants.create", tenant=tenant_id)
    if not _exists(connection, tenant_id, model_id):
        names = sa.select(models.c.model_id).filter_by(tenant_id=tenant_id, deleted_at=None)
        names = names.order_by(models.c.model_id).limit(_COMPARED)
        hint = did_you_mean(model_id, connection.scalars(names)) or "List the models."
        lead = f"The tenant has no model {model_id!s}. " if version is not None else ""
        return f"{lead}{hint}".rstrip(), list_models
    if version is None:
        return "Train its first version.", Action.of("jobs.submit", tenant=tenant_id, model=model_id)
    found = _newest(connection, tenant_id, model_id, _SHOWN)
    shown = f"The newest {'are' if len(found) > 1 else 'is'} {', '.join(found)}. " if found else ""
    return f"{shown}List its versions.", list_versions


def _newest(
    connection: Connection, tenant_id: TenantId, model_id: ModelId, limit: int, *, with_archived: bool = False
) -> list[str]:
    """The newest versions of a model."""
    statement = sa.select(versions.c.version).filter_by(tenant_id=tenant_id, model_id=model_id)
    if not with_archived:
        statement = statement.where(versions.c.archived_at.is_(None))
    return list(connection.scalars(statement.order_by(versions.c.number.desc()).limit(limit)))


def _exists(connection: Connection, tenant_id: TenantId, model_id: ModelId) -> bool:
    one = sa.select(models.c.model_id).filter_by(tenant_id=tenant_id, model_id=model_id, deleted_at=None)
    return connection.scalar(one) is not None
