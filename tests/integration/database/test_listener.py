"""Listeners: woken by what commits, and by being closed."""

from __future__ import annotations

import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables import FEED_CHANNEL
from ml_core.exceptions import RegistryUnavailableError
from support.registry import new_tenant, superuser


def test_a_change_wakes_a_listener(db: DatabaseConnection) -> None:
    """A commit that the feed carries notifies; several at once count as one."""
    with db.listen(FEED_CHANNEL) as listener:
        new_tenant(db)
        new_tenant(db)
        assert listener.wait(5)
        assert not listener.wait(0)


def test_what_came_before_the_wait_is_not_lost(db: DatabaseConnection) -> None:
    """A notification that arrived while nobody waited is found by the next wait, without waiting."""
    with db.listen(FEED_CHANNEL) as listener:
        new_tenant(db)
        started = time.monotonic()
        assert listener.wait(10)
        assert time.monotonic() - started < 5


def test_nothing_happened_is_false_after_the_timeout(db: DatabaseConnection) -> None:
    """Another channel's notifications do not wake."""
    with db.listen("another_channel") as listener:
        new_tenant(db)
        assert not listener.wait(0.05)


def test_closing_wakes_a_waiting_thread(db: DatabaseConnection) -> None:
    """``close`` from another thread ends a long wait at once; closed twice it does nothing more."""
    listener = db.listen(FEED_CHANNEL)
    answers: list[bool] = []
    waiting = threading.Thread(target=lambda: answers.append(listener.wait(60)))
    waiting.start()
    listener.close()
    waiting.join(5)
    listener.close()
    assert answers == [False]
    assert listener.is_closed
    assert not listener.wait(60)


def test_two_threads_may_close_at_once(db: DatabaseConnection) -> None:
    """One of them closes: the pipe is not closed twice, since its numbers may be another file's by then."""
    both_looked = threading.Barrier(2)

    class Seen(threading.Event):
        def is_set(self) -> bool:
            answer = super().is_set()
            with contextlib.suppress(threading.BrokenBarrierError):
                both_looked.wait(0.5)
            return answer

    listener = db.listen(FEED_CHANNEL)
    listener._closed = Seen()
    with ThreadPoolExecutor(2) as pool:
        closers = [pool.submit(listener.close) for _ in range(2)]
    assert [closer.exception() for closer in closers] == [None, None]


def test_a_vanished_host_ends_a_wait_within_a_minute(db: DatabaseConnection) -> None:
    """Silent sessions are probed, and data that nobody acknowledges is given up; a Unix socket takes all of it."""
    with db.listen(FEED_CHANNEL) as listener:
        given = listener._connection.info.get_parameters()
    probing_s = int(given["keepalives_idle"]) + int(given["keepalives_interval"]) * int(given["keepalives_count"])
    assert probing_s <= 60
    assert int(given["tcp_user_timeout"]) == 30_000


def test_a_broken_session_is_an_error(db: DatabaseConnection) -> None:
    """When the server ends the session, the wait says so instead of going on in silence."""
    with db.listen(FEED_CHANNEL) as listener:
        pid = listener._connection.info.backend_pid
        with superuser(db) as session:
            session.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
        with pytest.raises(RegistryUnavailableError):
            listener.wait(10)
