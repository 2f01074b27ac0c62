"""The load queue: urgent first, one load per version, errors to whoever waits."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError

import pytest

from ml_core.inference.load_queue import LoadPriority, LoadQueue
from support.inprocess_cell import renamed, servable


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
    queue = LoadQueue(recorder, threads=1)
    yield queue
    recorder.go_on.set()
    queue.close()


def test_a_waiting_request_goes_before_loading_ahead(queue, recorder, versions):
    """What is loading is finished first, then the urgent one."""
    queue.submit(versions[0], LoadPriority.PRELOAD)
    assert recorder.started.wait(10)
    queue.submit(versions[1], LoadPriority.PRELOAD)
    urgent = queue.submit(versions[2], LoadPriority.DEMAND)
    recorder.go_on.set()
    assert urgent.result(10) == "c"
    assert queue.wait_idle(10)
    assert recorder.order == ["a", "c", "b"]


def test_a_request_makes_a_queued_load_urgent(queue, recorder, versions):
    """It joins the load that is queued, moves it to the front, and it runs once."""
    queue.submit(versions[0], LoadPriority.PRELOAD)
    assert recorder.started.wait(10)
    queue.submit(versions[1], LoadPriority.PRELOAD)
    ahead = queue.submit(versions[2], LoadPriority.PRELOAD)
    assert queue.submit(versions[2], LoadPriority.DEMAND) is ahead
    recorder.go_on.set()
    assert queue.wait_idle(10)
    assert recorder.order == ["a", "c", "b"]


def test_an_error_reaches_who_waits_and_the_thread_lives(versions):
    """The next load runs on the same thread."""

    def run(version, priority):
        if version.ref.version == "a":
            raise ValueError("no")
        return "loaded"

    queue = LoadQueue(run, threads=1)
    with pytest.raises(ValueError, match="no"):
        queue.submit(versions[0], LoadPriority.DEMAND).result(10)
    assert queue.submit(versions[1], LoadPriority.DEMAND).result(10) == "loaded"
    queue.close()


def test_an_idle_thread_ends_and_the_next_load_starts_another(versions):
    """A queue that is kept costs no thread."""
    queue = LoadQueue(lambda version, priority: threading.current_thread(), threads=1, idle_s=0.05)
    first = queue.submit(versions[0], LoadPriority.DEMAND).result(10)
    first.join(10)
    assert not first.is_alive()
    assert queue.submit(versions[1], LoadPriority.DEMAND).result(10) is not first
    queue.close()


def test_what_is_queued_for_a_dropped_owner_is_cancelled(versions):
    """Its load has nobody to run it; who waits learns that."""

    class Owner:
        def __init__(self):
            self.queue = LoadQueue(self.load, threads=1, idle_s=0.05)

        def load(self, version, priority):
            started.set()
            assert go_on.wait(10)
            return version

    started, go_on = threading.Event(), threading.Event()
    owner = Owner()
    running = owner.queue.submit(versions[0], LoadPriority.DEMAND)
    queued = owner.queue.submit(versions[1], LoadPriority.DEMAND)
    assert started.wait(10)
    del owner
    go_on.set()
    assert running.result(10) is versions[0]
    with pytest.raises(CancelledError):
        queued.result(10)


def test_closing_drops_what_has_not_started(queue, recorder, versions):
    """Who waits for it learns at once; later loads are refused."""
    queue.submit(versions[0], LoadPriority.DEMAND)
    assert recorder.started.wait(10)
    queued = queue.submit(versions[1], LoadPriority.DEMAND)
    queue.close()
    assert queued.cancelled()
    with pytest.raises(RuntimeError, match="closed"):
        queue.submit(versions[2], LoadPriority.DEMAND)
