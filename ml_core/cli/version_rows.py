"""Versions as rows, and tags as people write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ml_core.exceptions import InvalidRequestError

if TYPE_CHECKING:
    from ml_core.domain.version import ModelVersion
    from ml_core.registry.promotion.pointers import Pointer

_HEADLINES = ("accuracy", "r2")


def version_row(version: ModelVersion) -> dict[str, Any]:
    """What a list shows of a version."""
    training = training_record(version)
    return {
        "tenant_id": version.tenant_id,
        "model_id": version.model_id,
        "version": version.version,
        "model_type": version.servable.model_type,
        "held_out": headline(version.metrics.get("validation", {})),
        "metrics": version.metrics,
        "algorithm": training.get("algorithm"),
        "hyperparameters": version.hyperparameters,
        "effective_hyperparameters": training.get("effective_hyperparameters", {}),
        "digest": version.servable.digest,
        "size_bytes": version.servable.size_bytes,
        "tags": version.tags,
        "created_at": version.created_at,
        "created_by": version.created_by,
        "archived_at": version.archived_at,
    }


def training_record(version: ModelVersion) -> Mapping[str, Any]:
    """What the training noted in the version; empty for a model file that was registered."""
    record = version.metadata.get("training")
    return record if isinstance(record, Mapping) else {}


def serving_roles(pointers: Sequence[Pointer]) -> Mapping[str, dict[str, list[str]]]:
    """Version → the names of the ``environments`` that it is the stable version, the canary and the shadow of."""
    found: dict[str, dict[str, list[str]]] = {}
    for pointer in pointers:
        canary = None if pointer.canary is None else pointer.canary.version
        parts = {"environments": pointer.version, "canary_in": canary, "shadow_in": pointer.shadow}
        for role, version in parts.items():
            if version is not None:
                found.setdefault(str(version), no_roles())[role].append(str(pointer.environment))
    return found


def no_roles() -> dict[str, list[str]]:
    """The roles of a version that no environment knows."""
    return {"environments": [], "canary_in": [], "shadow_in": []}


def role_words(roles: Mapping[str, list[str]]) -> list[str]:
    """The roles as one cell of a table: ``production, staging (canary)``."""
    return [
        *roles["environments"],
        *(f"{name} (canary)" for name in roles["canary_in"]),
        *(f"{name} (shadow)" for name in roles["shadow_in"]),
    ]


def parse_tags(texts: list[str]) -> dict[str, str]:
    """KEY=VALUE texts as a mapping.

    Raises:
        InvalidRequestError: One has no equals sign, or no key before it.
    """
    for text in texts:
        if not text.partition("=")[0].strip() or "=" not in text:
            raise InvalidRequestError(f"{text!r} is not a tag.", remedy="Write KEY=VALUE.", field="tag")
    return dict(text.split("=", 1) for text in texts)


def headline(metrics: Mapping[str, float]) -> str | None:
    """The one metric that people ask for first; JSON output carries them all."""
    name = next((name for name in (*_HEADLINES, *metrics) if name in metrics), None)
    return f"{name} {metrics[name]:.3f}" if name else None
