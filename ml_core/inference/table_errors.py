"""The errors of the model table."""

from __future__ import annotations

from typing import Any

from ml_core.domain.version import ServableVersion
from ml_core.exceptions import Action, ModelLoadError, ModelNotFoundError
from ml_core.inference.pointers import PointerKey
from ml_core.models.loading import LoadedModel


def no_pointer(key: PointerKey, others: list[str]) -> ModelNotFoundError:
    """The error for a pointer that does not exist.

    Args:
        key: The pointer.
        others: The environments in which its model has a pointer.
    """
    tenant, model, environment = key
    other = f"Use {' or '.join(others)}, or promote" if others else "Promote"
    return ModelNotFoundError(
        f"Model {model!r} has no version in {environment}.",
        remedy=f"{other} a version to {environment}.",
        action=Action.of("environments.promote", tenant=tenant, model=model, environment=environment),
        tenant_id=tenant,
        model_id=model,
    )


def oversized(model: LoadedModel, max_bytes: int) -> ModelLoadError:
    """The error for a model that is larger than the memory for models."""
    return ModelLoadError(
        f"{model.version.ref} needs {model.memory_bytes / 2**20:,.1f} MB of memory; the limit for all loaded models "
        f"is {max_bytes / 2**20:,.1f} MB.",
        remedy="Raise MLCORE_MAX_MEMORY_MB (or max_memory_mb), or train a smaller model.",
        **names_of(model.version),
    )


def names_of(version: ServableVersion) -> dict[str, Any]:
    """The attributes of a ``ModelLoadError`` about a version."""
    ref = version.ref
    return {
        "tenant_id": ref.tenant_id,
        "model_id": ref.model_id,
        "version": ref.version,
        "digest": str(version.digest),
    }
