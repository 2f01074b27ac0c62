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
    """What a cache holds and how often it helped."""

    entries: int
    size_bytes: int
    hits: int
    misses: int


class CacheMechanism:
    """Bytes by key, least recently used first to go.

    Keys and values are bytes, so that what an entry costs is known exactly and nothing cached can be
    changed by accident.

    Args:
        config: The bounds; the defaults where it is left out.
        timer: Seconds that only grow; for tests.
    """

    def __init__(self, config: CacheConfig | None = None, *, timer: Callable[[], float] = time.monotonic) -> None:
        self.config = config or CacheConfig()
        self._lock = threading.Lock()
        # The size of an entry is that of its key too, which cachetools does not show: values carry it along.
        self._entries: cachetools.TTLCache[bytes, tuple[int, bytes]] = cachetools.TTLCache(
            self.config.max_bytes, self.config.ttl_s, timer=timer, getsizeof=lambda entry: entry[0]
        )
        self._hits = 0
        self._misses = 0

    def get(self, key: bytes) -> bytes | None:
        """The value under a key, or None."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                self._misses += 1
                return None
            self._hits += 1
            return entry[1]

    def put(self, key: bytes, value: bytes) -> None:
        """Remember a value. One that is larger than the whole cache is not kept."""
        size = len(key) + len(value)
        if size > self.config.max_bytes:
            return
        with self._lock:
            self._entries[key] = (size, value)
            while len(self._entries) > self.config.max_entries:
                self._entries.popitem()

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()

    def statistics(self) -> CacheStatistics:
        """What the cache holds and how often it helped."""
        with self._lock:
            self._entries.expire()
            return CacheStatistics(len(self._entries), int(self._entries.currsize), self._hits, self._misses)
