"""Types outside the allow-list that this process trained with, and may therefore load.

An estimator or ``DataProcessor`` subclass of the caller is code that the caller's process runs anyway. A server does
not train, so its list is empty and it refuses such types.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from threading import Lock

_lock = Lock()
_types: set[str] = set()


def remember(names: Iterable[str]) -> None:
    """Trust types, by ``module.qualified_name``, for the lifetime of this process."""
    with _lock:
        _types.update(names)


def known() -> Collection[str]:
    """The types that this process trusts."""
    with _lock:
        return frozenset(_types)  # a copy: another thread may add one while this one loads
