"""What a cache promises, wherever its entries are: the same tests for one in this process and one in Redis."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml_core.cache import CacheConfig, CacheMechanism
from support.redis_server import RedisServer
from support.waiting import wait_until

Made = Callable[..., CacheMechanism]


@pytest.fixture(params=["in this process", "redis"])
def made(request: pytest.FixtureRequest) -> Made:
    """Makes a cache with the bounds that are given."""
    url = None if request.param == "in this process" else request.getfixturevalue("redis_server").url
    return lambda **bounds: CacheMechanism(CacheConfig(url=url, **bounds))


def test_a_value_is_found_again(made: Made) -> None:
    """What was put is what is got, whatever its bytes; both looks are counted."""
    cache, key = made(), b"\x00\xff\r\n"
    cache.put(key, b"")
    assert (cache.get(key), cache.get(b"other")) == (b"", None)
    cache.put(key, b"\x00" * 1000)
    assert cache.get(key) == b"\x00" * 1000
    found = cache.statistics()
    assert (found.entries, found.size_bytes, found.hits, found.misses, found.errors) == (1, 1004, 2, 1, 0)


def test_the_least_recently_used_entry_is_evicted(made: Made) -> None:
    """With room for two entries the one that was not touched goes."""
    cache = made(max_entries=2)
    cache.put(b"a", b"1")
    cache.put(b"b", b"2")
    cache.get(b"a")
    cache.put(b"c", b"3")
    assert [cache.get(key) for key in (b"a", b"b", b"c")] == [b"1", None, b"3"]


def test_bytes_are_bounded(made: Made) -> None:
    """Keys and values together stay within the bound."""
    cache = made(max_bytes=100)
    for index in range(50):
        cache.put(b"key%02d" % index, b"x" * 15)
    assert cache.statistics().size_bytes == 100
    assert cache.get(b"key49") == b"x" * 15


def test_a_value_larger_than_the_cache_is_not_stored(made: Made) -> None:
    """It would evict everything else and not fit anyway."""
    cache = made(max_bytes=100)
    cache.put(b"small", b"1")
    cache.put(b"large", b"x" * 200)
    assert (cache.get(b"small"), cache.get(b"large")) == (b"1", None)
    assert cache.get_or_compute(b"large", lambda: b"x" * 200) == b"x" * 200
    assert cache.statistics().entries == 1


def test_entries_age(made: Made) -> None:
    """After the time to live an entry is gone, and takes no room."""
    cache = made(ttl_s=0.2)
    cache.put(b"k", b"v")
    assert cache.get(b"k") == b"v"
    wait_until(lambda: cache.get(b"k") is None)
    assert (cache.statistics().entries, cache.statistics().size_bytes) == (0, 0)


def test_clear_removes_all_entries(made: Made) -> None:
    """And the cache can be used on."""
    cache = made()
    cache.put(b"k", b"v")
    cache.clear()
    assert cache.get(b"k") is None
    assert cache.statistics().entries == 0
    assert cache.get_or_compute(b"k", lambda: b"w") == cache.get(b"k") == b"w"


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    calls=st.lists(st.tuples(st.sampled_from(b"abcdefgh"), st.integers(0, 40), st.booleans()), min_size=10, max_size=60)
)
def test_redis_answers_as_a_cache_in_this_process(redis_server: RedisServer, calls: list) -> None:
    """After any sequence of reads and writes: the same entries, and the same size."""
    redis_server.client.flushall()
    bounds = {"max_entries": 5, "max_bytes": 120}
    here, shared = (CacheMechanism(CacheConfig(url=url, **bounds)) for url in (None, redis_server.url))
    for number, size, writes in calls:
        key = bytes([number])
        if writes:
            here.put(key, b"x" * size)
            shared.put(key, b"x" * size)
        else:
            assert shared.get(key) == here.get(key)
    assert shared.statistics() == here.statistics()


THREADS = 8


def at_once(ask: Callable[[], bytes]) -> list[bytes | BaseException]:
    """What each of several threads got that asked at the same time."""
    together = threading.Barrier(THREADS)

    def one(_: int) -> bytes | BaseException:
        together.wait(10)
        try:
            return ask()
        except ZeroDivisionError as error:
            return error

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(one, range(THREADS)))


def test_a_miss_is_computed_once(made: Made) -> None:
    """Threads that ask while it is computed wait for it."""
    cache, computed, asked = made(), [], threading.Semaphore(0)

    def compute() -> bytes:
        computed.append(1)
        for _ in range(THREADS - 1):
            assert asked.acquire(timeout=10)
        return b"v"

    def ask() -> bytes:
        asked.release()
        return cache.get_or_compute(b"k", compute)

    assert at_once(ask) == [b"v"] * THREADS
    assert len(computed) == 1
    assert (cache.statistics().misses, cache.statistics().hits) == (1, THREADS - 1)


def test_a_failure_is_raised_in_every_thread_and_not_stored(made: Made) -> None:
    """The next one computes again."""
    cache, computed = made(), []

    def compute() -> bytes:
        computed.append(1)
        wait_until(lambda: len(cache._flights[b"k"]._condition._waiters) == THREADS - 1)
        raise ZeroDivisionError

    answers = at_once(lambda: cache.get_or_compute(b"k", compute))
    assert [type(answer) for answer in answers] == [ZeroDivisionError] * THREADS
    assert len(computed) == 1
    assert cache.get(b"k") is None
    assert cache.get_or_compute(b"k", lambda: b"v") == b"v"


def test_an_interrupted_computation_leaves_the_others_to_compute(made: Made) -> None:
    """An interrupt is for the thread that got it."""
    cache, begun, go_on = made(), threading.Event(), threading.Event()

    def interrupted() -> bytes:
        begun.set()
        assert go_on.wait(10)
        raise KeyboardInterrupt

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cache.get_or_compute, b"k", interrupted)
        assert begun.wait(10)
        second = pool.submit(cache.get_or_compute, b"k", lambda: b"v")
        go_on.set()
        with pytest.raises(KeyboardInterrupt):
            first.result(10)
        assert second.result(10) == b"v"
