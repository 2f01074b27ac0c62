"""Types outside the platform's list that this very process trained with: its own, so it may load them again.

A caller's own estimator or ``DataProcessor`` subclass is code that the caller's process runs anyway. A server trained
nothing, so its list is empty and it refuses them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from threading import Lock

_lock = Lock()
_types: set[str] = set()


def remember(names: Iterable[str]) -> None:
    """Vouch for types, by ``module.qualified_name``, for the rest of this process's life."""
    with _lock:
        _types.update(names)


def known() -> Collection[str]:
    """The types that this process vouches for."""
    with _lock:
        return frozenset(_types)
