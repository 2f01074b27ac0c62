"""Failed loads with their exponential backoff, and the errors of the model table, which holds the lock."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from cachetools import LRUCache

from ml_core.domain.version import ServableVersion
from ml_core.exceptions import Action, MLFrameworkError, ModelLoadError, ModelNotFoundError
from ml_core.inference.pointers import PointerKey, version_key
from ml_core.inference.residents import VersionKey
from ml_core.models.loading import LoadedModel

RETRY_FIRST_S = 1.0
"""Pause after the first failed load of a version; doubles with each further failure."""
RETRY_MAX_S = 60.0
"""Longest pause between two attempts."""
_REMEMBERED = 10_000


class Failure:
    """The last failed load of a version. ``retry_at`` is on the clock of the table, in seconds."""

    __slots__ = ("attempts", "error", "retry_at", "version")

    def __init__(self, version: ServableVersion, error: MLFrameworkError, attempts: int, now: float) -> None:
        self.version = version
        self.error = error
        self.attempts = attempts
        self.retry_at = now + min(RETRY_MAX_S, RETRY_FIRST_S * 2.0 ** min(attempts - 1, 10))

    def fresh_error(self) -> MLFrameworkError:
        """A copy of the error, to raise."""
        return copy.copy(self.error)  # raising one object repeatedly would grow its traceback with each request


class Failures:
    """The last failure of each version, until a load succeeds.

    Args:
        clock: Monotonic, in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._by_key: LRUCache[VersionKey, Failure] = LRUCache(_REMEMBERED)

    def record(self, version: ServableVersion, error: MLFrameworkError) -> Failure:
        """Record a failed load."""
        key = version_key(version)
        before = self._by_key.get(key)
        failure = Failure(version, error, before.attempts + 1 if before else 1, self._clock())
        self._by_key[key] = failure
        return failure

    def clear(self, key: VersionKey) -> None:
        """Remove the failure of a version."""
        self._by_key.pop(key, None)

    def cooling(self, version: ServableVersion) -> Failure | None:
        """The failure of a version whose pause is not over; None if the version may be loaded."""
        failure = self._by_key.get(version_key(version))
        return failure if failure is not None and self._clock() < failure.retry_at else None

    def due(self) -> list[Failure]:
        """The failures whose pause is over."""
        now = self._clock()
        return [failure for failure in self._by_key.values() if failure.retry_at <= now]

    def all(self) -> list[Failure]:
        """All failures."""
        return list(self._by_key.values())


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
