"""A listener: waits for notifications of one channel on a connection of its own."""

from __future__ import annotations

import os
import selectors
import threading
import time
from collections.abc import Mapping
from typing import Any, Self

import psycopg
from psycopg import sql

from ml_core.database.errors import translated


class Listener:
    """A dedicated session that waits for ``NOTIFY``. A notification only wakes: what changed is read elsewhere.

    One thread waits; any thread may close. Notifications sent while nobody waits are kept by the session, so nothing
    is missed between two waits; after an error make a new listener and read everything again.

    Args:
        parameters: As for ``psycopg.connect``.
        channel: The channel's name.
        where: The database as it may be shown, without a password.

    Raises:
        RegistryUnavailableError: The database can't be reached.
    """

    def __init__(self, parameters: Mapping[str, Any], channel: str, where: str) -> None:
        self._where = where
        self._closed = threading.Event()
        self._closing = threading.Lock()
        self._in_use = threading.Lock()
        with translated(where):
            self._connection = psycopg.connect(**parameters, autocommit=True)
            try:
                self._connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
            except BaseException:
                self._connection.close()
                raise
        self._wake_reader, self._wake_writer = os.pipe()

    @property
    def is_closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._closed.is_set()

    def wait(self, timeout_s: float) -> bool:
        """Wait for a notification; several that are there already count as one.

        Args:
            timeout_s: Seconds to wait at most.

        Returns:
            True when notified; False at the timeout or once closed.

        Raises:
            RegistryUnavailableError: The session broke; make a new listener.
        """
        deadline = time.monotonic() + timeout_s
        with self._in_use:
            if self._closed.is_set():
                return False
            with selectors.DefaultSelector() as selector, translated(self._where):
                selector.register(self._connection.fileno(), selectors.EVENT_READ)
                selector.register(self._wake_reader, selectors.EVENT_READ)
                while not self._closed.is_set():
                    if self._drain():
                        return True
                    remaining_s = deadline - time.monotonic()
                    if remaining_s <= 0:
                        return False
                    selector.select(remaining_s)
        return False

    def _drain(self) -> bool:
        """Take what has arrived; whether there was a notification."""
        session = self._connection.pgconn
        session.consume_input()
        notified = False
        while session.notifies() is not None:
            notified = True
        return notified

    def close(self) -> None:
        """Wake a waiting thread and end the session. May be called twice and from any thread."""
        with self._closing:  # of two threads one closes: the pipe's numbers may be somebody else's a moment later
            if self._closed.is_set():
                return
            self._closed.set()
        os.write(self._wake_writer, b"x")
        with self._in_use:
            self._connection.close()
            os.close(self._wake_reader)
            os.close(self._wake_writer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
