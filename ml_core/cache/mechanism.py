"""A bounded, thread-safe cache in this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import cachetools

from ml_core.cache.config import CacheConfig


@dataclass(frozen=True, slots=True)
class CacheStatistics:
    """The size of a cache, and its hits and misses."""

    entries: int
    size_bytes: int
    hits: int
    misses: int


class CacheMechanism:
    """A cache of bytes by key, with LRU eviction.

    Args:
        config: The bounds; None: the defaults.
        timer: Monotonic clock in seconds, for tests.
    """

    # Keys and values are bytes: their size is known exactly, and callers can't change a cached value.

    def __init__(self, config: CacheConfig | None = None, *, timer: Callable[[], float] = time.monotonic) -> None:
        self.config = config or CacheConfig()
        self._lock = threading.Lock()
        # The value carries the size of the entry, because getsizeof does not get the key.
        self._entries: cachetools.TTLCache[bytes, tuple[int, bytes]] = cachetools.TTLCache(
            self.config.max_bytes, self.config.ttl_s, timer=timer, getsizeof=lambda entry: entry[0]
        )
        self._hits = 0
        self._misses = 0

    def get(self, key: bytes) -> bytes | None:
        """The value of a key, or None."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                self._misses += 1
                return None
            self._hits += 1
            return entry[1]

    def put(self, key: bytes, value: bytes) -> None:
        """Store a value. An entry that is larger than the cache is not stored."""
        size = len(key) + len(value)
        if size > self.config.max_bytes:
            return
        with self._lock:
            self._entries[key] = (size, value)
            while len(self._entries) > self.config.max_entries:
                self._entries.popitem()

    def clear(self) -> None:
        """Remove all entries."""
        with self._lock:
            self._entries.clear()

    def statistics(self) -> CacheStatistics:
        """The size of the cache, and its hits and misses."""
        with self._lock:
            self._entries.expire()
            return CacheStatistics(len(self._entries), int(self._entries.currsize), self._hits, self._misses)
