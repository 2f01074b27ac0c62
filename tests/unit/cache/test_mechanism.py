"""The in-process cache and its three bounds."""

import pytest

from ml_core.cache import CacheConfig, CacheMechanism
from ml_core.exceptions import ConfigurationError


def test_a_value_is_found_again():
    """What was put is what is got, and both looks are counted."""
    cache = CacheMechanism()
    cache.put(b"k", b"v")
    assert (cache.get(b"k"), cache.get(b"other")) == (b"v", None)
    assert (cache.statistics().hits, cache.statistics().misses) == (1, 1)


def test_entries_are_bounded_and_the_least_recently_used_goes():
    """With room for two entries the one that was not touched is forgotten."""
    cache = CacheMechanism(CacheConfig(max_entries=2))
    cache.put(b"a", b"1")
    cache.put(b"b", b"2")
    cache.get(b"a")
    cache.put(b"c", b"3")
    assert [cache.get(key) for key in (b"a", b"b", b"c")] == [b"1", None, b"3"]


def test_bytes_are_bounded():
    """Keys and values together stay under the byte bound."""
    cache = CacheMechanism(CacheConfig(max_bytes=100))
    for index in range(50):
        cache.put(b"key%02d" % index, b"x" * 15)
    assert 0 < cache.statistics().size_bytes <= 100
    assert cache.get(b"key49") == b"x" * 15


def test_a_value_larger_than_the_cache_is_not_kept():
    """It would push everything else out and not fit anyway."""
    cache = CacheMechanism(CacheConfig(max_bytes=100))
    cache.put(b"small", b"1")
    cache.put(b"large", b"x" * 200)
    assert (cache.get(b"small"), cache.get(b"large")) == (b"1", None)


def test_entries_age():
    """After the time to live an entry is gone; the clock is the test's own."""
    now = [0.0]
    cache = CacheMechanism(CacheConfig(ttl_s=10), timer=lambda: now[0])
    cache.put(b"k", b"v")
    now[0] = 9.9
    assert cache.get(b"k") == b"v"
    now[0] = 10.1
    assert cache.get(b"k") is None


@pytest.mark.parametrize("bounds", [{"max_entries": 0}, {"max_bytes": -1}, {"ttl_s": 0}])
def test_a_bound_must_be_positive(bounds):
    """A cache that can keep nothing is a mistake, not a setting."""
    with pytest.raises(ConfigurationError, match="must be positive"):
        CacheConfig(**bounds)


def test_a_shared_cache_is_refused_clearly():
    """The name is promised; this release says that it can't keep it, instead of caching somewhere else."""
    with pytest.raises(ConfigurationError, match="no cache that processes share"):
        CacheConfig(url="redis://127.0.0.1")
