"""The bounds of a cache, and where it is."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ml_core.exceptions import ConfigurationError
from ml_core.settings import MANY, MOST, check_number

_URL = re.compile(r"(redis|rediss|unix)://.+")
_BEFORE_HOST, _IN_QUERY = re.compile(r"(?<=://).*(?=@)"), re.compile(r"(?<=password=)[^&]*")


@dataclass(frozen=True, slots=True)
class CacheConfig:
    """The bounds of a cache, and where it is.

    Attributes:
        max_entries: Maximum number of entries.
        max_bytes: Maximum size of keys and values together.
        ttl_s: Lifetime of an entry, in seconds.
        url: The address of a Redis server whose cache processes share, such as ``redis://:password@host:6379/0``,
            ``rediss://…`` for TLS or ``unix:///path``; None: a cache in this process. ``repr`` masks its credentials.

    Raises:
        ConfigurationError: A bound is out of range, or ``url`` is not the address of a Redis server.
    """

    max_entries: int = 10_000
    max_bytes: int = 64 * 2**20
    ttl_s: float = 300.0
    url: str | None = None

    def __post_init__(self) -> None:
        for name, most in (("max_entries", MANY), ("max_bytes", MANY), ("ttl_s", MOST)):
            check_number(name, getattr(self, name), most, remedy="To disable the cache, pass cache=None.")
        if self.url is not None and _URL.fullmatch(self.url) is None:
            # The value is not in the message: it may contain a password.
            raise ConfigurationError(
                "CacheConfig(url=…) is not the address of a Redis server.",
                remedy="Give one such as redis://127.0.0.1:6379/0, or omit url to use a cache in this process.",
                setting="url",
            )

    def __repr__(self) -> str:
        url = None if self.url is None else _IN_QUERY.sub("***", _BEFORE_HOST.sub("***", self.url))
        return (
            f"CacheConfig(max_entries={self.max_entries}, max_bytes={self.max_bytes}, ttl_s={self.ttl_s}, url={url!r})"
        )
