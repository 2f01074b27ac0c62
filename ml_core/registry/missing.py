"""The one wording of "there is no such model", and of "it is hidden"."""

from __future__ import annotations

from ml_core.exceptions import ModelNotFoundError
from ml_core.ids import ModelId, TenantId, VersionId


def model_not_found(
    tenant_id: TenantId,
    model_id: ModelId,
    version: VersionId | None = None,
    *,
    why: str | None = None,
    remedy: str = "List the tenant's models and versions.",
) -> ModelNotFoundError:
    """The error for a model, or one of its versions, that does not exist (or ``why`` else it can't be used)."""
    if version is None:
        message = f"The model {model_id!s} {why or 'does not exist or has no version'}."
    else:
        message = f"Version {version!s} of the model {model_id!s} {why or 'does not exist'}."
    return ModelNotFoundError(message, remedy=remedy, tenant_id=tenant_id, model_id=model_id, version=version)


def model_archived(tenant_id: TenantId, model_id: ModelId, version: VersionId) -> ModelNotFoundError:
    """The error for a version that is hidden, by itself or with its model."""
    remedy = "Restore it with restore_model first, or use another version."
    return model_not_found(tenant_id, model_id, version, why="is archived", remedy=remedy)
