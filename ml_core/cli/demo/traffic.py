"""Requests that go on while something changes, and what became of each."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

from ml_core.client import MLClient
from ml_core.exceptions import MLFrameworkError, PlatformError

_CONNECTIONS = 4
_LOOK_EVERY_S = 0.02


@dataclass
class TrafficReport:
    """Answers by version, and failures with their messages."""

    answers: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def total(self) -> int:
        """Requests that ended, well or not."""
        return sum(self.answers.values()) + len(self.failures)

    def wait_for(self, version: str, count: int, timeout_s: float) -> None:
        """Wait until a version gave so many answers.

        Raises:
            PlatformError: It did not within the time.
        """
        deadline = time.monotonic() + timeout_s
        while self.answers[version] < count:
            if time.monotonic() > deadline:
                raise PlatformError(
                    f"Version {version} gave {self.answers[version]} of {count} answers within {timeout_s:.0f} s.",
                    remedy="See `mlcore status` and the replicas' logs.",
                    component="serve",
                )
            time.sleep(_LOOK_EVERY_S)


@contextmanager
def traffic(connect: Callable[[], MLClient], model: str, *rows: Mapping[str, Any]) -> Iterator[TrafficReport]:
    """Ask rows over several connections, one in a request and again from the first, until left.

    Args:
        connect: Makes a client; each connection has its own.
        model: The model to ask.
        rows: The rows to ask. Each connection begins elsewhere among them.
    """
    report, stop = TrafficReport(), threading.Event()
    starts = [len(rows) * number // _CONNECTIONS for number in range(_CONNECTIONS)]
    threads = [
        threading.Thread(target=_ask, args=(connect, model, rows[start:] + rows[:start], report, stop))
        for start in starts
    ]
    for thread in threads:
        thread.start()
    try:
        yield report
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _ask(
    connect: Callable[[], MLClient],
    model: str,
    rows: Sequence[Mapping[str, Any]],
    report: TrafficReport,
    stop: threading.Event,
) -> None:
    with connect() as client:
        for row in cycle(rows):
            if stop.is_set():
                return
            try:
                version = client.predict(model, [row]).version
            except MLFrameworkError as error:
                with report.lock:
                    report.failures.append(str(error))
            else:
                with report.lock:
                    report.answers[version] += 1
