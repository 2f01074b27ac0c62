"""The queue of jobs, which tests of one session share."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables import jobs
from ml_core.domain.job import ENDED
from ml_core.jobs.dispatcher import Dispatcher
from ml_core.jobs.processes import ProcessRunner


def empty_queue(db: DatabaseConnection) -> None:
    """End what other tests left, of any tenant."""
    left = jobs.update().where(jobs.c.state.not_in([state.value for state in ENDED]))
    with db.platform() as connection:
        connection.execute(left.values(state="failed", lease_until=None))


@contextmanager
def dispatching(db: DatabaseConnection, runner: ProcessRunner) -> Iterator[None]:
    """A dispatcher with one core runs."""
    stopped = threading.Event()
    dispatcher = Dispatcher(db, runner, cpus=1, name="test")
    thread = threading.Thread(target=dispatcher.run, args=(stopped,))
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


@contextmanager
def running_queue(db: DatabaseConnection) -> Iterator[None]:
    """A dispatcher runs on an empty queue; its processes end with the block."""
    empty_queue(db)
    runner = ProcessRunner(db)
    try:
        with dispatching(db, runner):
            yield
    finally:
        runner.close()
