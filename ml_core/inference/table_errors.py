"""The errors of the model table."""

from __future__ import annotations

from typing import Any

from ml_core.domain.version import ServableVersion
from ml_core.exceptions import ModelLoadError, ModelNotFoundError
from ml_core.inference.pointers import PointerKey
from ml_core.models.loading import LoadedModel


def no_pointer(key: PointerKey, others: list[str]) -> ModelNotFoundError:
    """The error for a pointer that does not exist.

    Args:
        key: The pointer.
        others: The environments in which its model has one.
    """
    tenant, model, environment = key
    if others:
        remedy = f"Ask for {' or '.join(others)}, or promote a version to {environment}."
    else:
        remedy = f"Promote one: mlcore promote --tenant {tenant} --model {model} --version VERSION."
    return ModelNotFoundError(
        f"Model {model!r} has no version in {environment}.", remedy=remedy, tenant_id=tenant, model_id=model
    )


def oversized(model: LoadedModel, max_bytes: int) -> ModelLoadError:
    """The error for a model that does not fit into memory even alone."""
    return ModelLoadError(
        f"{model.version.ref} occupies {model.memory_bytes / 2**20:,.1f} MB in memory; all loaded models "
        f"together may take {max_bytes / 2**20:,.1f} MB.",
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
