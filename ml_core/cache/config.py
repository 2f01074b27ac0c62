"""The bounds of a cache."""

from __future__ import annotations

from dataclasses import dataclass

from ml_core.exceptions import ConfigurationError


@dataclass(frozen=True, slots=True)
class CacheConfig:
    """The bounds of a cache.

    Attributes:
        max_entries: Maximum number of entries.
        max_bytes: Maximum size of keys and values together.
        ttl_s: Lifetime of an entry, in seconds.
        url: The address of a shared cache. This release has no shared cache; only None is accepted.

    Raises:
        ConfigurationError: A bound is not positive, or ``url`` is set.
    """

    max_entries: int = 10_000
    max_bytes: int = 64 * 2**20
    ttl_s: float = 300.0
    url: str | None = None

    def __post_init__(self) -> None:
        if self.url is not None:
            raise ConfigurationError(
                "This release has no cache that processes share.",
                remedy="Omit url to use a cache in this process.",
                setting="url",
            )
        for name in ("max_entries", "max_bytes", "ttl_s"):
            if getattr(self, name) <= 0:
                raise ConfigurationError(
                    f"CacheConfig({name}={getattr(self, name)}) must be positive.",
                    remedy="To disable the cache, pass cache=None.",
                    setting=name,
                )
