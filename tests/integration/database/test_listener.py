"""Listeners: woken by what commits, and by being closed."""

from __future__ import annotations

import threading
import time

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


def test_a_broken_session_is_an_error(db: DatabaseConnection) -> None:
    """When the server ends the session, the wait says so instead of going on in silence."""
    with db.listen(FEED_CHANNEL) as listener:
        pid = listener._connection.info.backend_pid
        with superuser(db) as session:
            session.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
        with pytest.raises(RegistryUnavailableError):
            listener.wait(10)
