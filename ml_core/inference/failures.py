"""Failed loads and their exponential backoff. Not thread-safe: the model table holds the lock."""

from __future__ import annotations

import copy
from collections.abc import Callable

from cachetools import LRUCache

from ml_core.domain.version import ServableVersion
from ml_core.exceptions import MLFrameworkError
from ml_core.inference.pointers import version_key
from ml_core.inference.residents import VersionKey

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
