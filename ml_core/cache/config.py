"""The bounds of a cache."""

from __future__ import annotations

from dataclasses import dataclass

from ml_core.exceptions import ConfigurationError


@dataclass(frozen=True, slots=True)
class CacheConfig:
    """The bounds of a cache.

    Attributes:
        max_entries: Entries kept.
        max_bytes: Bytes kept, keys and values together.
        ttl_s: Seconds until an entry is forgotten.
        url: Of a shared cache; this release has none, so anything but None is refused.

    Raises:
        ConfigurationError: A bound is not positive, or a shared cache is asked for.
    """

    max_entries: int = 10_000
    max_bytes: int = 64 * 2**20
    ttl_s: float = 300.0
    url: str | None = None

    def __post_init__(self) -> None:
        if self.url is not None:
            raise ConfigurationError(
                "A cache that processes share is not in this release.",
                remedy="Leave url out: the cache is then in this process.",
                setting="url",
            )
        for name in ("max_entries", "max_bytes", "ttl_s"):
            if getattr(self, name) <= 0:
                raise ConfigurationError(
                    f"CacheConfig({name}={getattr(self, name)}) must be positive.",
                    remedy="To work without a cache, pass cache=None where a cache is taken.",
                    setting=name,
                )
