"""Turns on the event loop: which request is parsed, predicted and rendered next.

In one turn of the loop as many requests begin as take about ``TURN_S`` together. Further ones wait, and begin in the
next turns in fair order (``fair_queue``), so that a request does not wait for all that another tenant has sent before
it. A replica that is not busy lets each request pass at once.
"""

from __future__ import annotations

import asyncio

from ml_core.inference.fair_queue import FairQueue, Shares
from ml_core.inference.gate import TenantGate

TURN_S = 2e-3
"""Work of one turn: as long as the longest call of a model on the loop. Shorter turns would make batches smaller."""
SHARED_TURN_S = 0.5e-3
"""Work of one turn while several tenants have requests, each of which takes some turns."""
REQUEST_S = 100e-6
"""What a request takes on the loop beside its model: about 100 µs for one row (``benchmarks/serving.py``)."""
BYTE_S = 20e-9
"""And for each byte of its body: parsing, reading 1,000 rows of 20 numbers, and rendering the answer take 8 ms."""


class Turns:
    """Admits requests to the event loop, a bounded number of them. For one event loop.

    Args:
        gate: The bounds of requests that wait or are being answered.
        shares: Of the event loop; charged with the estimated cost of each request that waited.
    """

    def __init__(self, gate: TenantGate, shares: Shares) -> None:
        self._gate = gate
        self._shares = shares
        self._waiting: FairQueue[tuple[asyncio.Future[None], float]] = FairQueue(shares)
        self._left_s = TURN_S  # of the present turn; while some is left no request waits
        self._is_scheduled = False  # the next turn

    def enter(self, tenant: str, size: int) -> asyncio.Future[None] | None:
        """Begin a request; ``leave`` must follow.

        Args:
            tenant: The tenant.
            size: Bytes of the body.

        Returns:
            What to wait for; None: the request has its turn.

        Raises:
            QueueFullError: A limit is reached.
        """
        self._gate.enter(tenant)
        left_s = self._left_s
        if left_s > 0:
            if not self._is_scheduled:
                self._is_scheduled = True
                loop = asyncio.get_running_loop()
                loop.call_soon(self._next, loop)
            self._left_s = left_s - REQUEST_S - size * BYTE_S
            return None
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.push(tenant, (waiting, REQUEST_S + size * BYTE_S))
        return waiting

    def is_only(self, tenant: str) -> bool:
        """Whether one request of a tenant has entered."""
        return self._gate.of(tenant) == 1

    def leave(self, tenant: str) -> None:
        """End a request."""
        self._gate.leave(tenant)

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        left_s = turn_s = TURN_S if self._gate.tenants <= 1 else SHARED_TURN_S
        while left_s > 0 and (found := self._waiting.pop()) is not None:
            begun, (waiting, cost_s) = found
            if waiting.done():  # its deadline passed, or its client left
                cost_s = 0.0
            else:
                waiting.set_result(None)
                left_s -= cost_s
            self._shares.end(begun, cost_s)
        self._left_s = left_s
        self._is_scheduled = left_s < turn_s
        if self._is_scheduled:
            loop.call_soon(self._next, loop)
