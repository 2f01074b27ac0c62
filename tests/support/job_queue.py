"""The queue of jobs, which tests of one session share."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables import jobs
from ml_core.domain.job import ENDED, Attempt
from ml_core.exceptions import JobStateError
from ml_core.ids import RunId
from ml_core.jobs.dispatcher import Dispatcher, Runner
from ml_core.jobs.execution import execute
from ml_core.jobs.processes import ProcessRunner


class ThreadRunner:
    """Attempts as threads of this process: processes would spend most of the time with imports."""

    def __init__(self, db: DatabaseConnection) -> None:
        self._db = db
        self._threads: dict[RunId, threading.Thread] = {}

    def start(self, attempt: Attempt, variables: Mapping[str, str]) -> None:
        def work() -> None:
            with suppress(JobStateError):  # it was cancelled
                execute(self._db, attempt, stop=lambda: None)

        self._threads[attempt.run_id] = threading.Thread(target=work, daemon=True)
        self._threads[attempt.run_id].start()

    def seen(self) -> dict[RunId, str | None]:
        return {run_id: None if thread.is_alive() else "It ended." for run_id, thread in self._threads.items()}

    def stop(self, run_id: RunId) -> None:
        self._threads.pop(run_id, None)


def empty_queue(db: DatabaseConnection) -> None:
    """End what other tests left, of any tenant."""
    left = jobs.update().where(jobs.c.state.not_in([state.value for state in ENDED]))
    with db.platform() as connection:
        connection.execute(left.values(state="failed", lease_until=None))


@contextmanager
def dispatching(db: DatabaseConnection, runner: Runner) -> Iterator[None]:
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
