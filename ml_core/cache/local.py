"""The entries of a cache in this process."""

from __future__ import annotations

import threading
from collections.abc import Callable

import cachetools

from ml_core.cache.config import CacheConfig


class LocalEntries:
    """Bytes by key, with LRU eviction. Thread-safe.

    Args:
        config: The bounds.
        timer: Monotonic clock, in seconds.
    """

    # Keys and values are bytes: their size is known exactly, and callers can't change a cached value.

    def __init__(self, config: CacheConfig, timer: Callable[[], float]) -> None:
        self._config = config
        self._lock = threading.Lock()
        # The value carries the size of the entry, because getsizeof does not get the key.
        self._entries: cachetools.TTLCache[bytes, tuple[int, bytes]] = cachetools.TTLCache(
            config.max_bytes, config.ttl_s, timer=timer, getsizeof=lambda entry: entry[0]
        )

    def get(self, key: bytes) -> bytes | None:
        """See ``mechanism.Entries``."""
        with self._lock:
            entry = self._entries.get(key)
        return None if entry is None else entry[1]

    def claim(self, key: bytes) -> bytes | None:
        """See ``mechanism.Entries``. No other process computes entries of this cache."""
        return self.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        """See ``mechanism.Entries``."""
        with self._lock:
            self._entries[key] = (len(key) + len(value), value)
            while len(self._entries) > self._config.max_entries:
                self._entries.popitem()

    def abandon(self, key: bytes) -> None:
        """See ``mechanism.Entries``."""

    def clear(self) -> None:
        """See ``mechanism.Entries``."""
        with self._lock:
            self._entries.clear()

    def size(self) -> tuple[int, int]:
        """See ``mechanism.Entries``."""
        with self._lock:
            self._entries.expire()
            return len(self._entries), int(self._entries.currsize)
