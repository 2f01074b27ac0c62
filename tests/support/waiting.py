"""Waiting for a condition, which every test that waits does instead of sleeping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")
WITHIN_S = 30.0


def wait_until(condition: Callable[[], _T], timeout_s: float = WITHIN_S) -> _T:
    """Ask again until a condition holds; fail at the deadline. What takes long to ask is asked less often.

    Returns:
        What the condition returned at last.
    """
    asked = time.monotonic()
    deadline = asked + timeout_s
    while not (value := condition()):
        now = time.monotonic()
        if now > deadline:
            raise AssertionError(f"the condition did not hold within {timeout_s} s")
        time.sleep(min(max(0.02, now - asked), 0.5))
        asked = time.monotonic()
    return value
