"""What runs in the background leaves the processors to others with all of its threads."""

import os
import sys
import threading

import pytest

from ml_core.cli.console import in_background


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="only root takes a priority back")
def test_threads_that_are_there_step_back_too():
    """Such as those of numpy, which multiply matrices; afterwards they have the priority that they had."""
    is_over = threading.Event()
    thread = threading.Thread(target=is_over.wait)
    thread.start()
    before = os.getpriority(os.PRIO_PROCESS, 0)
    with in_background():
        inside = os.getpriority(os.PRIO_PROCESS, thread.native_id or 0)
    after = os.getpriority(os.PRIO_PROCESS, thread.native_id or 0)
    is_over.set()
    thread.join()
    assert (inside, after) == (min(before + 10, 19), before)
