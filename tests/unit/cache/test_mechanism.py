"""The configuration of a cache, and its clock; ``tests/integration/cache`` has what both kinds of cache promise."""

import math
import sys

import pytest

from ml_core.cache import CacheConfig, CacheMechanism
from ml_core.exceptions import ConfigurationError


def test_entries_age():
    """After the time to live an entry is gone; the clock is the test's own."""
    now = [0.0]
    cache = CacheMechanism(CacheConfig(ttl_s=10), timer=lambda: now[0])
    cache.put(b"k", b"v")
    now[0] = 9.9
    assert cache.get(b"k") == b"v"
    now[0] = 10.1
    assert cache.get(b"k") is None


@pytest.mark.parametrize("bounds", [{"max_entries": 0}, {"max_bytes": -1}, {"ttl_s": 0}, {"ttl_s": math.nan}])
def test_a_bound_must_be_positive(bounds):
    """A cache that can keep nothing is a mistake, not a setting."""
    with pytest.raises(ConfigurationError, match=f"{next(iter(bounds))} is .*above 0.* pass cache=None"):
        CacheConfig(**bounds)


@pytest.mark.parametrize(
    "url", ["127.0.0.1:6379", "http://:secret@host", "redis://", "redis://:secret@host:port", "redis://h?db=secret"]
)
def test_an_address_that_is_none_is_refused_and_not_repeated(url):
    """It may hold a password."""
    with pytest.raises(ConfigurationError, match="address of a Redis server") as caught:
        CacheMechanism(CacheConfig(url=url))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("redis://:s/cret@host:6379/0", "redis://***@host:6379/0"),
        ("rediss://user:secret@host?ssl_cert_reqs=none", "rediss://***@host?ssl_cert_reqs=none"),
        ("unix:///run/redis.sock?password=secret&db=1", "unix:///run/redis.sock?password=***&db=1"),
    ],
)
def test_credentials_are_not_shown(url, shown):
    """A cache may be logged."""
    config = CacheConfig(url=url)
    assert repr(config) == f"CacheConfig(max_entries=10000, max_bytes=67108864, ttl_s=300.0, url={shown!r})"


def test_without_the_extra_a_shared_cache_says_what_to_install(monkeypatch):
    """Instead of an ImportError, and instead of caching somewhere else."""
    for name in [name for name in sys.modules if name == "ml_core.cache.shared" or name.partition(".")[0] == "redis"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ConfigurationError, match=r'pip install "ml-core-platform\[redis\]"'):
        CacheMechanism(CacheConfig(url="redis://127.0.0.1"))
