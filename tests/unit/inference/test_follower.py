"""The follower: converges, survives an unreachable registry, and says how current it is."""

from __future__ import annotations

import queue
import threading

import pytest

from ml_core.domain.assignment import AssignmentDelta, Rollout
from ml_core.exceptions import RegistryUnavailableError
from ml_core.inference.assignment import Assignment
from ml_core.inference.follower import AssignmentFollower
from ml_core.inference.model_table import ModelTable
from support.inprocess_cell import ACME, CountingLoader, key_of, pointer, servable

EMPTY = AssignmentDelta(1, False, {}, {}, {})


class Source:
    """A feed, and the listener beside it, that plays what it is given: a delta or an error for each read."""

    def __init__(self, *answers):
        self.answers = queue.Queue()
        for answer in answers:
            self.answers.put(answer)
        self.asked = queue.Queue()
        self.is_last_close = False

    def read(self, after, again=()):
        self.asked.put(after)
        answer = self.answers.get(timeout=10)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def wait(self, timeout_s):
        return True

    def close(self):
        if self.is_last_close:
            self.answers.put(EMPTY)  # ends the read that waits


def stop(follower, source):
    source.is_last_close = True
    follower.stop()
    assert not follower.is_alive


def snapshot(*versions, generation=1):
    rollouts = {pointer(version): Rollout(version, 1) for version in versions}
    return AssignmentDelta(generation, True, {ACME: True}, rollouts, {})


def delta(*versions, generation, tenants=()):
    rollouts = {pointer(version): Rollout(version, 2) for version in versions}
    return AssignmentDelta(generation, False, dict(tenants), rollouts, {})


@pytest.fixture
def table(store):
    table = ModelTable(CountingLoader(store), max_memory_bytes=2**30)
    yield table
    table.close()


@pytest.fixture
def follow(table):
    followers = []

    def start(source):
        follower = AssignmentFollower(source, lambda: source, Assignment(), table, poll_interval_s=0.01)
        followers.append((follower, source))
        follower.start()
        return follower

    yield start
    for follower, source in followers:
        stop(follower, source)


def test_it_applies_the_snapshot_then_what_changes(follow, table, store, fitted_measures, fitted_tickets):
    """First everything, then after the generation it stands at."""
    source = Source(
        snapshot(servable(store, fitted_measures)), delta(servable(store, fitted_tickets), generation=2), EMPTY
    )
    follower = follow(source)
    assert follower.wait_first(10)
    assert [source.asked.get(timeout=10) for _ in range(3)] == [None, 1, 2]
    assert table.wait_idle(10)
    assert table.describe()["loaded"] == 2


def test_it_keeps_what_it_has_when_the_registry_is_gone(follow, table, store, fitted_measures):
    """Health says so; afterwards it reads everything anew."""
    source = Source(snapshot(servable(store, fitted_measures)), RegistryUnavailableError("down"))
    follower = follow(source)
    assert [source.asked.get(timeout=10) for _ in range(2)] == [None, 1]
    assert source.asked.get(timeout=10) is None  # the read after the failure
    assert follower.describe()["error"] == "registry_unavailable"
    assert table.pointer(key_of(servable(store, fitted_measures))).serving is not None
    source.answers.put(snapshot(servable(store, fitted_measures), generation=5))
    assert source.asked.get(timeout=10) == 5
    assert follower.describe()["error"] is None


def test_a_row_that_can_not_be_read_withdraws_nothing(follow, table, store, fitted_measures):
    """A snapshot that could not read a pointer's row: the version that it serves goes on."""
    served = servable(store, fitted_measures)
    spoilt = AssignmentDelta(2, True, {ACME: True}, {}, {}, unreadable=frozenset({pointer(served)}))
    source = Source(snapshot(served), spoilt, EMPTY)
    follow(source)
    assert [source.asked.get(timeout=10) for _ in range(3)] == [None, 1, 2]
    assert table.pointer(key_of(served)) is not None


@pytest.mark.parametrize("unreadable", [True, False])
def test_a_delta_of_which_nothing_can_be_read_is_read_once(follow, table, store, fitted_measures, unreadable):
    """The next look asks for what comes after it, whether or not it names what could not be read."""
    served = servable(store, fitted_measures)
    spoilt = frozenset({pointer(served)}) if unreadable else frozenset()
    source = Source(snapshot(served), AssignmentDelta(2, False, {}, {}, {}, unreadable=spoilt), EMPTY)
    follow(source)
    assert [source.asked.get(timeout=10) for _ in range(3)] == [None, 1, 2]
    assert table.pointer(key_of(served)) is not None


def test_it_outlives_a_bug(follow):
    """An unexpected error is noted and the next look is taken."""
    source = Source(ZeroDivisionError("surprise"), snapshot())
    follower = follow(source)
    assert follower.wait_first(10)
    assert follower.is_alive


def test_a_deleted_tenant_leaves_the_table(follow, table, store, fitted_measures):
    """Its pointers are withdrawn although the delta does not name them."""
    source = Source(
        snapshot(servable(store, fitted_measures)), delta(generation=2, tenants={ACME: False}.items()), EMPTY
    )
    follow(source)
    assert [source.asked.get(timeout=10) for _ in range(3)] == [None, 1, 2]
    assert table.describe()["pointers"] == 0


class Listener:
    """Breaks at once, or waits until it is closed."""

    def __init__(self, error=None):
        self.error = error
        self.waits, self.closed = threading.Event(), threading.Event()

    def wait(self, timeout_s):
        if self.error:
            raise self.error
        self.waits.set()
        return self.closed.wait(timeout_s)

    def close(self):
        self.closed.set()


def test_a_broken_listener_is_opened_again(table):
    """It is closed, the next look opens another and reads everything anew, and that one is closed at the end."""
    broken, sound = Listener(RegistryUnavailableError("gone")), Listener()
    to_open = iter([broken, sound])
    source = Source(snapshot(), snapshot())
    follower = AssignmentFollower(source, lambda: next(to_open), Assignment(), table, poll_interval_s=60.0)
    follower.start()
    assert sound.waits.wait(10)
    assert broken.closed.is_set()
    assert [source.asked.get(timeout=10) for _ in range(2)] == [None, None]
    assert not sound.closed.is_set()
    follower.stop()
    assert sound.closed.is_set()
    assert not follower.is_alive


def test_a_registry_that_hangs_is_out_of_reach(table):
    """No error comes, but no look has ended for many polls; the next that ends makes it current again."""
    now = [0.0]
    source = Source(snapshot())
    follower = AssignmentFollower(
        source, lambda: source, Assignment(), table, poll_interval_s=1.0, clock=lambda: now[0]
    )
    follower.start()
    assert [source.asked.get(timeout=10) for _ in range(2)] == [None, 1]  # the second look hangs
    now[0] = 10.0
    assert follower.describe() == {"reachable": True, "last_seen_s": 10.0, "error": None}
    now[0] = 10.5
    assert follower.describe() == {"reachable": False, "last_seen_s": 10.5, "error": "no_answer"}
    source.answers.put(EMPTY)
    assert source.asked.get(timeout=10) == 1
    assert follower.is_current
    stop(follower, source)


def test_a_follower_that_has_read_nothing_is_not_current(table):
    """And says why."""
    source = Source()
    follower = AssignmentFollower(source, lambda: source, Assignment(), table, poll_interval_s=1.0)
    assert follower.describe() == {"reachable": False, "last_seen_s": None, "error": "not_read_yet"}
