"""Signs of life that a process gives while it works on a run or a job."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ml_core.exceptions import JobNotFoundError, JobStateError, MLFrameworkError, RunNotFoundError, RunStateError

logger = logging.getLogger(__name__)


@contextmanager
def beating(beat: Callable[[], object], every_s: float, on_end: Callable[[], object] | None = None) -> Iterator[None]:
    """Call ``beat`` from a thread, at this interval, until the block ends.

    A heartbeat shows that the process lives, not that it makes progress: a fit that hangs still beats. One that fails
    is repeated at the next turn, because the registry may be unavailable for a while.

    Args:
        beat: Raises ``RunStateError``, ``JobStateError`` or that there is no such thing where none is wanted any more.
        every_s: Seconds between two heartbeats.
        on_end: Called on the thread where none is wanted any more.
    """
    stopped = threading.Event()

    def work() -> None:
        while not stopped.wait(every_s):
            try:
                beat()
            except (RunNotFoundError, RunStateError, JobNotFoundError, JobStateError) as error:
                logger.warning("Heartbeats end: %s", error)
                if on_end is not None:
                    on_end()
                return
            except MLFrameworkError as error:
                logger.warning("A heartbeat failed: %s", error)

    # A daemon: a process that wants to end does not wait for it.
    thread = threading.Thread(target=work, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
