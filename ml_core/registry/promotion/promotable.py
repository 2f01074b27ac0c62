"""Which versions an environment may serve."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.database.tables import versions
from ml_core.exceptions import InvalidRequestError
from ml_core.ids import ModelId, TenantId, VersionId
from ml_core.registry.missing import model_archived, model_not_found
from ml_core.registry.versions.models import lock_model
from ml_core.registry.versions.rows import IS_ARCHIVED, VERSIONS_WITH_MODEL


def lock_promotable(
    connection: Connection, tenant_id: TenantId, model_id: ModelId, version: VersionId, *, served: str | None = None
) -> None:
    """Refuse a version that cannot be served; keep one that can from being archived or deleted meanwhile.

    The lock is shared: promotions of a model do not wait for each other.

    Args:
        connection: In the tenant's transaction.
        tenant_id: The tenant.
        model_id: The model.
        version: The version.
        served: The digest that it had when it was served before, if it was.

    Raises:
        ModelNotFoundError: There is no such version, it is archived, or its digest is not the one that was served.
        InvalidRequestError: No server can load it: it has no signature, or its artifact holds types of the caller's.
    """
    lock_model(connection, tenant_id, model_id, shared=True)
    statement = (
        sa.select(
            versions.c.digest,
            versions.c.outside_types,
            IS_ARCHIVED.label("is_archived"),
            sa.func.jsonb_array_length(versions.c.signature["inputs"]).label("inputs"),
        )
        .select_from(VERSIONS_WITH_MODEL)
        .where(versions.c.tenant_id == tenant_id, versions.c.model_id == model_id, versions.c.version == version)
    )
    row = connection.execute(statement).one_or_none()
    if served is not None and (row is None or row.digest != served):
        why, remedy = "was deleted since it was served", "Promote another version."
        raise model_not_found(tenant_id, model_id, version, why=why, remedy=remedy)
    if row is None:
        raise model_not_found(tenant_id, model_id, version, connection=connection)
    if row.is_archived:
        raise model_archived(tenant_id, model_id, version, connection=connection)
    if not row.inputs:
        remedy = (
            "Register it as a new version with sample=, some rows of the table that it was fitted on, or train it with "
            "MLSystem or Trainer."
        )
        raise _unservable(tenant_id, model_id, version, "has no signature, so it can't be served", remedy)
    if row.outside_types:
        remedy = (
            "Train it again with estimators and processors of the platform's list. This version still predicts in the "
            "process that trained it, when it is asked for by its name."
        )
        what = f"holds {', '.join(row.outside_types)}, which no server loads"
        raise _unservable(tenant_id, model_id, version, what, remedy)


def _unservable(
    tenant_id: TenantId, model_id: ModelId, version: VersionId, what: str, remedy: str
) -> InvalidRequestError:
    return InvalidRequestError(
        f"Version {version!s} of {model_id!s} {what}.", remedy=remedy, tenant_id=tenant_id, field="version"
    )
