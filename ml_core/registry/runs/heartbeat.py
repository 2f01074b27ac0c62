"""Signs of life: a thread that gives one regularly while a block runs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ml_core.exceptions import MLFrameworkError, RunNotFoundError, RunStateError

logger = logging.getLogger(__name__)

_BEATS_PER_BOUND = 4
"""Within the time after which a run counts as dead: three may get lost."""


@contextmanager
def beating(beat: Callable[[], None], dead_after_s: float) -> Iterator[None]:
    """Call ``beat`` four times in each ``dead_after_s`` until the block ends.

    It says that the process lives, not that it gets on: a fit that hangs still beats. A beat that fails is tried again
    at the next turn, because the registry may be away for a while; the beats end with a run that has ended.
    """
    stopped = threading.Event()

    def work() -> None:
        while not stopped.wait(dead_after_s / _BEATS_PER_BOUND):
            try:
                beat()
            except (RunNotFoundError, RunStateError) as error:
                logger.warning("No more signs of life: %s", error)
                return
            except MLFrameworkError as error:
                logger.warning("A sign of life was not given: %s", error)

    # A daemon: a process that wants to end does not wait for it.
    thread = threading.Thread(target=work, name="run-heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
