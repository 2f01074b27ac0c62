"""A cache in Redis: shared by processes, and never a reason that a prediction fails."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest

from ml_core import MLSystem
from ml_core.cache import CacheConfig, CacheMechanism, shared
from ml_core.exceptions import ModelNotFoundError
from ml_core.observability.prometheus import PrometheusHooks
from support.hooks import values
from support.redis_server import running_redis
from support.waiting import wait_until

KEY = b"k"
ENTRY = "mlcore:cache:1:entry:k"


@pytest.fixture
def cache(redis_server):
    """One process's cache."""
    return CacheMechanism(CacheConfig(url=redis_server.url))


@pytest.fixture
def other(redis_server):
    """That of another process."""
    return CacheMechanism(CacheConfig(url=redis_server.url))


def test_processes_share_entries(cache, redis_server):
    """What one computed, another gets; an entry ends by Redis's own expiry, and so does the index."""
    code = (
        "import sys; from ml_core.cache import *\n"
        "cache = CacheMechanism(CacheConfig(url=sys.argv[1]))\n"
        "sys.stdout.buffer.write(cache.get_or_compute(b'k', lambda: b'theirs'))"
    )
    done = subprocess.run([sys.executable, "-c", code, redis_server.url], capture_output=True, check=True)
    assert done.stdout == b"theirs"
    assert cache.get_or_compute(KEY, lambda: b"mine") == b"theirs"
    client = redis_server.client
    assert all(0 < client.pttl(key) <= 300_000 for key in client.keys("*"))
    assert all(key.startswith(b"mlcore:cache:1:") for key in client.keys("*"))


def test_processes_compute_a_miss_once(cache, other):
    """The one that comes later waits for the first, and for no longer than it takes."""
    begun, go_on = threading.Event(), threading.Event()

    def compute():
        begun.set()
        assert go_on.wait(10)
        return b"v"

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cache.get_or_compute, KEY, compute)
        assert begun.wait(10)
        second = pool.submit(other.get_or_compute, KEY, lambda: pytest.fail("computed twice"))
        go_on.set()
        assert (first.result(10), second.result(10)) == (b"v", b"v")


def test_a_process_that_was_killed_is_not_waited_for_long(cache, other, redis_server):
    """Its claim ends by itself."""
    assert cache._entries.claim(KEY) is None  # and nothing follows
    assert 0 < redis_server.client.pttl("mlcore:cache:1:claim:k") <= 1000 * shared.CLAIM_S
    assert other.get_or_compute(KEY, lambda: b"v") == b"v"


def test_a_failure_gives_the_claim_up(cache, other, redis_server):
    """So that other processes need not wait."""
    with pytest.raises(ZeroDivisionError):
        cache.get_or_compute(KEY, lambda: bytes(1 // 0))
    assert redis_server.client.keys("*") == []


def truncated(client):
    client.set(ENTRY, client.get(ENTRY)[:-1])


def of_another_key(client):
    client.copy("mlcore:cache:1:entry:other", ENTRY, replace=True)


def of_another_type(client):
    client.delete(ENTRY)
    client.rpush(ENTRY, b"v")


@pytest.mark.parametrize(
    "spoil", [truncated, of_another_key, of_another_type, lambda client: client.set(ENTRY, b"v" * 40)]
)
def test_a_foreign_value_is_a_miss(cache, redis_server, spoil):
    """It is computed again, and replaced."""
    cache.put(KEY, b"value")
    cache.put(b"other", b"another")
    spoil(redis_server.client)
    assert cache.get(KEY) is None
    assert cache.get_or_compute(KEY, lambda: b"value") == b"value"
    assert cache.get(KEY) == b"value"
    assert cache.statistics().errors == 0


@pytest.mark.parametrize("lost", ["used", "expires", "sizes"])
def test_bounds_hold_after_the_server_evicted_the_index(redis_server, lost):
    """As a server with a bound on its memory may. What is left of the old entries ends by its expiry."""
    cache = CacheMechanism(CacheConfig(url=redis_server.url, max_entries=3))
    for number in range(5):
        cache.put(b"old%d" % number, b"v")
    redis_server.client.delete(f"mlcore:cache:1:{lost}")
    for number in range(5):
        cache.put(b"new%d" % number, b"v")
    assert [cache.get(b"new%d" % number) for number in range(5)] == [None, None, b"v", b"v", b"v"]
    assert (cache.statistics().entries, cache.statistics().size_bytes) == (3, 15)


def test_a_dead_server_costs_one_error_and_is_asked_again(caplog):
    """Values are computed meanwhile. Once it is back, entries are found again."""
    now, hooks = [0.0], PrometheusHooks()
    with running_redis() as server:
        cache = CacheMechanism(CacheConfig(url=server.url), timer=lambda: now[0], hooks=hooks)
        cache.put(KEY, b"v")
        server.stop()
        with caplog.at_level(logging.INFO, "ml_core.cache"):
            for _ in range(100):
                assert cache.get_or_compute(KEY, lambda: b"computed") == b"computed"
            now[0] += shared.PAUSE_S
            assert cache.get(KEY) is None  # it is asked once, and still dead
            assert cache.get(KEY) is None
            found = cache.statistics()
            assert (found.entries, found.misses, found.errors) == (0, 102, 2)
            assert values(hooks.registry, "mlcore_cache_errors_total") == {("connection",): 2}
            assert values(hooks.registry, "mlcore_cache_lookups_total") == {("miss",): 102}
            server.start()
            now[0] += shared.PAUSE_S
            assert cache.get_or_compute(KEY, lambda: b"again") == b"again"
            assert cache.get(KEY) == b"again"
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2, said
    assert "does not answer" in said[0]
    assert "answers again" in said[1]
    assert server.password not in caplog.text


def test_a_server_that_restarted_is_no_error(cache):
    """The connection that it closed is opened again."""
    with running_redis() as server:
        cache = CacheMechanism(CacheConfig(url=server.url))
        cache.put(KEY, b"v")
        server.stop()
        server.start()
        cache.put(KEY, b"w")
        assert cache.get(KEY) == b"w"
        assert cache.statistics().errors == 0


def test_a_server_that_hangs_is_timed_out_once():
    """Many threads at once pay one timeout each at most, and later ones none."""
    with running_redis() as server:
        cache = CacheMechanism(CacheConfig(url=server.url), timer=lambda: 0.0)
        cache.put(KEY, b"v")
        with server.hanging():
            assert [cache.get_or_compute(KEY, lambda: b"computed") for _ in range(50)] == [b"computed"] * 50
        assert cache.statistics().errors == 1


def test_a_full_server_is_no_error_to_the_caller(cache, redis_server):
    """Values that it does not store are computed; those that it has are found."""
    cache.put(KEY, b"v")
    client = redis_server.client
    before = client.config_get("maxmemory")["maxmemory"]
    client.config_set("maxmemory", 1)
    try:
        assert cache.get_or_compute(b"new", lambda: b"computed") == b"computed"
        assert cache.get_or_compute(b"new", lambda: b"computed") == b"computed"
        assert cache.get(KEY) == b"v"
    finally:
        client.config_set("maxmemory", before)
    assert cache.statistics().errors == 2  # two values were not stored
    cache.put(b"new", b"v")
    assert cache.get(b"new") == b"v"


def test_a_wrong_password_is_computed_and_not_shown(redis_server, caplog):
    """Neither in an error nor in the log."""
    cache = CacheMechanism(CacheConfig(url=redis_server.url.replace(redis_server.password, "hunter2")))
    assert cache.get_or_compute(KEY, lambda: b"v") == b"v"
    assert cache.statistics().errors == 1
    assert "hunter2" not in caplog.text + repr(cache)


def test_systems_of_a_tenant_share_predictions_and_those_of_others_do_not(
    db, tenant_id, other_tenant_id, redis_server, monkeypatch
):
    """Two tenants with the same data, model name and version are two; two processes of one tenant are one."""
    frame = pd.DataFrame({"a": np.arange(60.0), "b": np.arange(60.0) % 7})
    data = (frame, np.where(frame["a"] > 30, "high", "low"))
    config = CacheConfig(url=redis_server.url)

    def system(tenant):
        return MLSystem(db, CacheMechanism(config), tenant_id=tenant)

    with system(tenant_id) as first, system(tenant_id) as second, system(other_tenant_id) as foreign:
        for owner in (first, foreign):
            owner.train_model("m", "classification", data, hyperparameters={"algorithm": "logistic_regression"})
        assert first.predict("m", frame.iloc[3]) == "low"
        assert foreign.predict("m", frame.iloc[3]) == "low"
        assert foreign.predictor._cache.statistics().hits == 0
        assert second.predict("m", frame.iloc[3]) == "low"
        assert second.predictor._cache.statistics().hits == 1
        assert second.predict("m", frame.iloc[:50]).tolist() == first.predict("m", frame.iloc[:50]).tolist()
    wait_until(lambda: redis_server.client.ping())


def test_a_cache_hides_no_change_of_the_registry(db, tenant_id, redis_server):
    """A move, an archival and a version that was deleted and made again are seen by the next prediction."""
    frame = pd.DataFrame({"a": np.arange(60.0)})
    fast = {"algorithm": "logistic_regression"}
    labels = {name: np.where(frame["a"] > 30, f"high {name}", f"low {name}") for name in "abc"}
    with MLSystem(db, CacheMechanism(CacheConfig(url=redis_server.url)), tenant_id=tenant_id) as system:
        for name in "ab":
            system.train_model("m", "classification", (frame, labels[name]), hyperparameters=fast)
        row, asked = frame.iloc[3], []
        for version in ("1", "2", "1"):
            system.promote("m", version)
            asked += [system.predict("m", row), system.predict("m", row)]
        assert asked == ["low a", "low a", "low b", "low b", "low a", "low a"]
        assert system.rollback("m").version == "2"
        assert system.predict("m", row) == "low b"
        system.withdraw("m")
        system.archive_model("m", "1")
        with pytest.raises(ModelNotFoundError, match="archived"):
            system.predict("m", row, version="1")
        assert system.predict("m", row) == "low b"  # the newest
        system.train_model("other", "classification", (frame, labels["a"]), hyperparameters=fast)
        assert system.predict("other", row) == "low a"
        system.delete_model("other")
        system.train_model("other", "classification", (frame, labels["c"]), hyperparameters=fast)
        assert system.predict("other", row) == "low c"
