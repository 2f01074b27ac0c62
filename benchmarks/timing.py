"""Timing of single calls, for benchmarks and for the scripts of peers. Uses the standard library only."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WARM_UP = 20
"""Calls before the measured ones, to open connections, compile statements and fill caches."""


@dataclass(frozen=True)
class Operation:
    """A measured operation: ``run`` gets the result of ``prepare``, and only ``run`` is timed.

    ``calls`` bounds how many are measured, for what takes long.
    """

    prepare: Callable[[], Any]
    run: Callable[[Any], object]
    calls: int | None = None

    def measure(self, calls: int) -> dict[str, float]:
        """``p50_ms`` and ``p95_ms`` over the ``calls``, after ``WARM_UP`` calls."""
        count = min(calls, self.calls or calls)
        for _ in range(min(WARM_UP, count // 2)):
            self._time_ms()
        times_ms = [self._time_ms() for _ in range(count)]
        p95 = statistics.quantiles(times_ms, n=20, method="inclusive")[-1]
        return {"p50_ms": statistics.median(times_ms), "p95_ms": p95, "calls": count}

    def _time_ms(self) -> float:
        argument = self.prepare()
        started = time.perf_counter()
        self.run(argument)
        return (time.perf_counter() - started) * 1000


def median_of(repetitions: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median of each figure over the repetitions, rounded to a microsecond."""
    return {figure: round(statistics.median(one[figure] for one in repetitions), 3) for figure in repetitions[0]}
