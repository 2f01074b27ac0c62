"""The load queue: urgent first, one load per version, errors to whoever waits."""

from __future__ import annotations

import dataclasses
import threading
from collections import Counter

import pytest

from ml_core.domain.version import RequiredModule
from ml_core.exceptions import ModelLoadError
from ml_core.ids import TenantId, VersionId, VersionRef
from ml_core.inference import loads
from ml_core.inference.loads import (
    MAX_LOST_PER_TENANT,
    MAX_OWN,
    MAX_OWN_PER_TENANT,
    LoadPriority,
    LoadQueue,
    LoadsOfOwners,
)
from ml_core.inference.pointers import version_key
from support.inprocess_cell import GLOBEX, renamed, servable
from support.waiting import wait_until


@pytest.fixture
def versions(store, fitted_measures):
    version = servable(store, fitted_measures)
    return [renamed(version, name) for name in ("a", "b", "c")]


class Recorder:
    """Holds the first load until it is let go, so that the others queue up behind it."""

    def __init__(self):
        self.order = []
        self.started, self.go_on = threading.Event(), threading.Event()

    def __call__(self, version, priority):
        self.order.append(version.ref.version)
        self.started.set()
        assert self.go_on.wait(10)
        return version.ref.version


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def queue(recorder):
    queue = LoadQueue(threads=1)
    yield queue
    recorder.go_on.set()
    queue.close()


def test_a_waiting_request_goes_before_loading_ahead(queue, recorder, versions):
    """What is loading is finished first, then the urgent one."""
    queue.submit_ahead(versions[0], recorder)
    assert recorder.started.wait(10)
    queue.submit_ahead(versions[1], recorder)
    urgent = queue.submit(versions[2], LoadPriority.DEMAND, recorder)
    recorder.go_on.set()
    assert urgent.result(10) == "c"
    assert queue.wait_idle(10)
    assert recorder.order == ["a", "c", "b"]


def test_a_request_makes_a_queued_load_urgent(queue, recorder, versions):
    """It joins the load that is queued, moves it to the front, and it runs once."""
    queue.submit_ahead(versions[0], recorder)
    assert recorder.started.wait(10)
    queue.submit_ahead(versions[1], recorder)
    queue.submit_ahead(versions[2], recorder)
    urgent = queue.submit(versions[2], LoadPriority.DEMAND, recorder)
    assert queue.submit(versions[2], LoadPriority.FLIP, recorder) is urgent
    queue.submit_ahead(versions[2], recorder)
    recorder.go_on.set()
    assert queue.wait_idle(10)
    assert recorder.order == ["a", "c", "b"]


def test_an_error_reaches_who_waits_and_the_thread_lives(queue, recorder, versions):
    """The next load runs on the same thread."""
    threads = []

    def run(version, priority):
        threads.append(threading.current_thread())
        if version.ref.version == "b":
            raise ValueError("no")
        return "loaded"

    queue.submit(versions[0], LoadPriority.DEMAND, recorder)
    failing = queue.submit(versions[1], LoadPriority.DEMAND, run)
    sound = queue.submit(versions[2], LoadPriority.DEMAND, run)
    recorder.go_on.set()
    with pytest.raises(ValueError, match="no"):
        failing.result(10)
    assert sound.result(10) == "loaded"
    assert len(set(threads)) == 1


def test_a_thread_ends_with_the_queue_and_the_next_load_starts_another(queue, versions):
    """A queue that is kept costs no thread."""

    def run(version, priority):
        return threading.current_thread()

    first = queue.submit(versions[0], LoadPriority.DEMAND, run).result(10)
    first.join(10)
    assert not first.is_alive()
    assert queue.submit(versions[1], LoadPriority.DEMAND, run).result(10) is not first


def test_what_is_queued_of_a_dropped_queue_is_loaded(recorder, versions):
    """Whoever waits for it gets it."""
    queue = LoadQueue(threads=1)
    queue.submit(versions[0], LoadPriority.DEMAND, recorder)
    queued = queue.submit(versions[1], LoadPriority.DEMAND, recorder)
    assert recorder.started.wait(10)
    del queue
    recorder.go_on.set()
    assert queued.result(10) == "b"


def test_closing_drops_what_has_not_started(queue, recorder, versions):
    """Who waits for it learns at once; later loads are refused."""
    queue.submit(versions[0], LoadPriority.DEMAND, recorder)
    assert recorder.started.wait(10)
    queued = queue.submit(versions[1], LoadPriority.DEMAND, recorder)
    queue.close()
    assert queued.cancelled()
    with pytest.raises(RuntimeError, match="closed"):
        queue.submit(versions[2], LoadPriority.DEMAND, recorder)


def test_loads_ahead_leave_a_thread_free(recorder, versions):
    """They run one at a time, so that a request never waits for two of them."""
    queue = LoadQueue(threads=2)
    for version in versions[:2]:
        queue.submit_ahead(version, recorder)
    assert recorder.started.wait(10)
    urgent = queue.submit(versions[2], LoadPriority.DEMAND, lambda version, _: version.ref.version)
    assert urgent.result(10) == "c"
    assert recorder.order == ["a"]
    recorder.go_on.set()
    assert queue.wait_idle(10)
    assert recorder.order == ["a", "b"]


def test_a_load_ahead_may_be_first_of_them(queue, recorder, versions):
    """One of a new pointer does not wait for those of a snapshot."""
    for version in versions[:2]:
        queue.submit_ahead(version, recorder)
    assert recorder.started.wait(10)
    queue.submit_ahead(versions[2], recorder, first=True)
    assert queue.next_ahead(5) == [version_key(versions[2]), version_key(versions[1])]
    recorder.go_on.set()
    assert queue.wait_idle(10)
    assert recorder.order == ["a", "c", "b"]


def test_a_request_ends_the_rest_after_a_load_ahead(recorder, versions):
    """Also where there is one thread only."""
    queue = LoadQueue(threads=1)
    queue.rest = 1e6
    recorder.go_on.set()
    for version in versions[:2]:
        queue.submit_ahead(version, recorder)
    assert queue.wait_for([version_key(versions[0])], 10), "the second waits until the rest is over"
    assert queue.submit(versions[2], LoadPriority.DEMAND, recorder).result(10) == "c"
    assert recorder.order[:2] == ["a", "c"]
    queue.close()


def test_closing_ends_a_rest(recorder, versions):
    """And drops the loads ahead."""
    queue = LoadQueue(threads=1)
    queue.rest = 1e6
    recorder.go_on.set()
    for version in versions[:2]:
        queue.submit_ahead(version, recorder)
    assert queue.wait_for([version_key(versions[0])], 10)
    queue.close()
    assert queue.wait_idle(10)
    assert recorder.order == ["a"]


@pytest.mark.parametrize("priority", [LoadPriority.FLIP, LoadPriority.PRELOAD])
def test_a_load_that_nobody_wants_any_more_is_forgotten(queue, recorder, versions, priority):
    """It is not run, and its version, which may have megabytes of documents, is not held; one that runs goes on."""
    queue.submit(versions[0], LoadPriority.DEMAND, recorder)
    assert recorder.started.wait(10)
    if priority is LoadPriority.FLIP:
        queue.submit(versions[1], priority, recorder)
    else:
        queue.submit_ahead(versions[1], recorder)
    queue.submit(versions[2], LoadPriority.FLIP, recorder)
    for version in versions[:2]:
        queue.forget(version_key(version))
    assert len(queue) == 2
    held = [job.version for _, _, job in queue._heap]
    assert held == [versions[2]]
    recorder.go_on.set()
    assert queue.wait_idle(10)
    assert recorder.order == ["a", "c"]


def test_a_load_that_a_request_waits_for_is_not_forgotten(queue, recorder, versions):
    """The pointer moved on; the request began with this version."""
    queue.submit(versions[0], LoadPriority.DEMAND, recorder)
    queue.submit(versions[1], LoadPriority.FLIP, recorder)
    waiting = queue.submit(versions[1], LoadPriority.DEMAND, recorder)
    queue.forget(version_key(versions[1]))
    recorder.go_on.set()
    assert waiting.result(10) == "b"


@pytest.fixture
def own(queue, monkeypatch):
    """Loads of owners that hang until ``go_on``, but for version c."""
    monkeypatch.setattr(loads, "_ASIDE_AFTER_S", 0.01)
    go_on = threading.Event()

    def load(version):
        assert version.ref.version == "c" or go_on.wait(20)
        if version.ref.version == "b":
            raise SystemExit
        return version.ref.version

    own = LoadsOfOwners(load, queue, within_s=0.1)
    own.go_on = go_on
    yield own
    go_on.set()


def test_a_load_that_does_not_return_is_refused_and_keeps_no_load_thread(queue, own, versions):
    """Others are loaded meanwhile, on the only thread. It is not loaded again until the first load has ended."""
    hanging = queue.submit(versions[0], LoadPriority.FLIP, own)
    assert queue.submit(versions[2], LoadPriority.DEMAND, own).result(10) == "c"
    with pytest.raises(ModelLoadError, match=r"was not loaded within 0\.1 s: code of a model does not return"):
        hanging.result(10)
    with pytest.raises(ModelLoadError, match=r"An earlier load of .* has not ended"):
        queue.submit(versions[0], LoadPriority.DEMAND, own).result(10)
    own.go_on.set()
    wait_until(lambda: not own.lost)
    assert queue.submit(versions[0], LoadPriority.DEMAND, own).result(10) == "a"
    with pytest.raises(SystemExit):
        queue.submit(versions[1], LoadPriority.DEMAND, own).result(10)


def test_a_load_ahead_that_hangs_does_not_hold_the_others_up(queue, own, versions):
    """They go on while it waits for its end."""
    done = threading.Event()
    queue.submit_ahead(versions[0], own)
    queue.submit_ahead(versions[2], lambda version, _: done.set())
    assert done.wait(10)
    assert queue.wait_idle(10)


def test_the_queue_does_not_rest_after_a_load_ahead_that_hung(queue, own, versions):
    """Others are loaded ahead as if there had been none; it held no lock for most of its time."""
    queue.rest = 1e4
    queue.submit_ahead(versions[0], own)
    assert queue.wait_idle(10)
    done = threading.Event()
    queue.submit_ahead(versions[1], lambda version, _: done.set())
    assert done.wait(10)


def with_code(version, name, tenant="t"):
    """A version with code of its owner."""
    ref = VersionRef(TenantId(tenant), version.ref.model_id, VersionId(name))
    return dataclasses.replace(version, ref=ref, modules=(RequiredModule("acme_models"),))


def test_few_loads_of_a_tenant_run_at_the_same_time(queue, versions):
    """All may hang: one tenant would take all places, and no other could load its code. Those ahead wait as well."""
    begun, go_on = threading.Semaphore(0), threading.Event()

    def load(version):
        begun.release()
        assert go_on.wait(20)
        return version.ref.version

    own = LoadsOfOwners(load, queue)
    waiting = [queue.submit(with_code(versions[0], f"h{n}"), LoadPriority.FLIP, own) for n in range(6)]
    ahead = threading.Event()
    queue.submit_ahead(with_code(versions[0], "h6"), own)
    queue.submit_ahead(versions[0], lambda version, _: ahead.set())
    for _ in range(MAX_OWN_PER_TENANT):
        assert begun.acquire(timeout=10)
    assert ahead.wait(10)
    assert queue.submit(versions[1], LoadPriority.FLIP, lambda version, _: version.ref.version).result(10) == "b"
    assert not begun.acquire(timeout=0.1)
    go_on.set()
    assert [each.result(10) for each in waiting] == [f"h{n}" for n in range(6)]
    assert queue.wait_idle(10)


def test_loads_that_hang_give_their_places_back(queue, versions, monkeypatch):
    """At their deadline, however many of however many tenants they are; another tenant's load waits no longer."""
    monkeypatch.setattr(loads, "_ASIDE_AFTER_S", 0.01)
    go_on, sound = threading.Event(), with_code(versions[0], "sound", "other")

    def load(version):
        assert version == sound or go_on.wait(60)
        return version.ref.version

    own = LoadsOfOwners(load, queue, within_s=2.0)
    tenants = [f"t{n}" for n in range(MAX_OWN // MAX_OWN_PER_TENANT + 1)]
    hanging = [with_code(versions[0], name, tenant) for name in "abcd" for tenant in tenants]
    waiting = {version_key(each): queue.submit(each, LoadPriority.DEMAND, own) for each in hanging}
    wait_until(lambda: queue._own.total() == MAX_OWN)
    assert queue.submit(versions[1], LoadPriority.FLIP, lambda version, _: version.ref.version).result(1) == "b"
    for _ in range(2):  # those that had no place begin at the deadline of the first
        assert queue.submit(sound, LoadPriority.DEMAND, own).result(10) == "sound"
        wait_until(lambda: own.lost)
    for future in waiting.values():
        with pytest.raises(ModelLoadError, match="code of a model does not return"):
            future.result(20)
    lost = Counter(tenant for tenant, *_ in own.lost)
    assert set(lost) == set(tenants)
    assert max(lost.values()) <= MAX_LOST_PER_TENANT + MAX_OWN_PER_TENANT - 1
    go_on.set()
    wait_until(lambda: not own.lost)
    assert not +queue._own


def test_loads_that_do_not_return_are_bounded(queue, own, store, fitted_measures, versions):
    """In each tenant, whose other versions with code are refused then; another tenant's are loaded."""
    for number in range(MAX_LOST_PER_TENANT):
        with pytest.raises(ModelLoadError, match="was not loaded"):
            own(renamed(versions[0], f"h{number}"), LoadPriority.FLIP)
    with pytest.raises(ModelLoadError, match="2 loads of other versions of the tenant"):
        own(versions[2], LoadPriority.FLIP)
    other = servable(store, fitted_measures, "c", tenant=GLOBEX)
    assert own(other, LoadPriority.FLIP) == "c"
