"""``CacheMechanism``: a cache of bytes whose misses are computed once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from typing import Protocol

from ml_core.cache.config import CacheConfig
from ml_core.cache.local import LocalEntries
from ml_core.observability import NO_HOOKS, Hooks


class Entries(Protocol):
    """Where the entries of a cache are. No method raises because a server does not answer."""

    def get(self, key: bytes) -> bytes | None:
        """The value of a key, or None."""

    def claim(self, key: bytes) -> bytes | None:
        """The value of a key, perhaps after another process has computed it.

        None: this process computes it, and calls ``put`` or ``abandon`` afterwards. One thread of a process may claim a
        key at a time.
        """

    def put(self, key: bytes, value: bytes) -> None:
        """Store a value that fits the bounds."""

    def abandon(self, key: bytes) -> None:
        """Give up a claim without a value."""

    def clear(self) -> None:
        """Remove all entries."""

    def size(self) -> tuple[int, int]:
        """The number of entries, and the bytes of their keys and values; zeros where the server does not answer."""


@dataclass(frozen=True, slots=True)
class CacheStatistics:
    """The size of a cache, and what happened to it.

    Attributes:
        entries: Entries now; of all processes if the cache is shared.
        size_bytes: Bytes of their keys and values.
        hits: Values that this process got from the cache, or from a thread that was computing them.
        misses: Values that it had to compute.
        errors: Calls of a shared cache that failed. Their values were computed.
    """

    entries: int
    size_bytes: int
    hits: int
    misses: int
    errors: int


class CacheMechanism:
    """A cache of bytes by key, with LRU eviction. Thread-safe.

    Args:
        config: The bounds, and the address of a shared cache; None: the defaults, in this process.
        timer: Monotonic clock in seconds, for tests.
        hooks: Called with each hit, miss and failure.

    Raises:
        ConfigurationError: The cache is shared, and the package ``redis`` is not installed.
    """

    def __init__(
        self,
        config: CacheConfig | None = None,
        *,
        timer: Callable[[], float] = time.monotonic,
        hooks: Hooks = NO_HOOKS,
    ) -> None:
        self.config = config or CacheConfig()
        self._hooks = hooks
        self._lock = threading.Lock()
        self._flights: dict[bytes, Future[bytes]] = {}
        self._hits = self._misses = self._errors = 0
        self._entries = self._opened(timer)

    def __repr__(self) -> str:
        return f"CacheMechanism({self.config!r})"

    def _opened(self, timer: Callable[[], float]) -> Entries:
        if self.config.url is None:
            return LocalEntries(self.config, timer)
        # Imported late: the client of Redis is an optional extra.
        from ml_core.cache.shared import SharedEntries

        return SharedEntries(self.config, self.config.url, timer, self._failed)

    def get(self, key: bytes) -> bytes | None:
        """The value of a key, or None."""
        value = self._entries.get(key)
        self._looked_up(is_hit=value is not None)
        return value

    def put(self, key: bytes, value: bytes) -> None:
        """Store a value. An entry that is larger than the cache is not stored."""
        if len(key) + len(value) <= self.config.max_bytes:
            self._entries.put(key, value)
        else:
            self._entries.abandon(key)

    def get_or_compute(self, key: bytes, compute: Callable[[], bytes]) -> bytes:
        """The value of a key; if there is none, it is computed and stored.

        Threads that ask for a key at the same time compute it once: one does, and the others wait for it. Processes
        that share a cache wait for each other too, for at most a second.

        Args:
            key: The key.
            compute: Returns the value. What it raises is raised in every thread that waits, and nothing is stored.
        """
        with self._lock:
            flight = self._flights.get(key)
            is_first = flight is None
            if flight is None:
                flight = self._flights[key] = Future()
        if not is_first:
            return self._joined(flight, compute)
        try:
            value = self._claimed(key, compute)
        except Exception as error:
            self._land(key).set_exception(error)
            raise
        except BaseException:  # an interrupt is for this thread; the others compute for themselves
            self._land(key).cancel()
            raise
        self._land(key).set_result(value)
        return value

    def _joined(self, flight: Future[bytes], compute: Callable[[], bytes]) -> bytes:
        try:
            value = flight.result()
        except CancelledError:
            self._looked_up(is_hit=False)
            return compute()
        self._looked_up(is_hit=True)
        return value

    def _claimed(self, key: bytes, compute: Callable[[], bytes]) -> bytes:
        known = self._entries.claim(key)
        self._looked_up(is_hit=known is not None)
        if known is not None:
            return known
        try:
            value = compute()
        except BaseException:
            self._entries.abandon(key)
            raise
        self.put(key, value)
        return value

    def _land(self, key: bytes) -> Future[bytes]:
        with self._lock:
            return self._flights.pop(key)

    def clear(self) -> None:
        """Remove all entries; of a shared cache, those of all processes."""
        self._entries.clear()

    def statistics(self) -> CacheStatistics:
        """The size of the cache, and what happened to it; a size of 0 while a shared cache does not answer."""
        entries, size_bytes = self._entries.size()
        with self._lock:
            return CacheStatistics(entries, size_bytes, self._hits, self._misses, self._errors)

    def _looked_up(self, *, is_hit: bool) -> None:
        with self._lock:
            if is_hit:
                self._hits += 1
            else:
                self._misses += 1
        self._hooks.cache_looked_up(is_hit=is_hit)

    def _failed(self, reason: str) -> None:
        with self._lock:
            self._errors += 1
        self._hooks.cache_failed(reason)
