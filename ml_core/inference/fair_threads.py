"""Threads for calls that would block the event loop, shared fairly by tenants.

Calls begin in fair order over the processor time that they used (``fair_queue``). As many run at the same time as there
are processors, and one more, so that a tenant that keeps all processors busy leaves a thread to others. A call that
takes long may sleep instead of computing: after ``LONG_S`` it no longer counts, and another one may begin. Each tenant
has a bound of threads, so that its sleeping calls never take all of them.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar, TypeVarTuple

from ml_core.inference.fair_queue import FairQueue, Shares

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

LONG_S = 0.05
"""A call that has run longer does not keep others from beginning."""
_CPUS = os.cpu_count() or 1
_THREADS_PER_CPU = 8  # most of which sleep, if several tenants have models that do


@dataclass(slots=True, eq=False)
class _Call:
    tenant: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    started: float = 0.0
    cpu_s: float = 0.0

    def run(self) -> Any:
        """On the thread."""
        began = time.thread_time()
        try:
            return self.function(*self.arguments)
        finally:
            self.cpu_s = time.thread_time() - began


class FairThreads:
    """Runs functions on threads. Use it from one event loop.

    Args:
        shares: Charged with the processor time of each call.
        name: The prefix of the names of the threads.
        initializer: Runs at the start of each thread.
        threads: The number of threads.
        is_shared: Whether several tenants use it; a single one may use all threads.

    Attributes:
        shares: As given.
    """

    def __init__(
        self,
        shares: Shares,
        name: str,
        initializer: Callable[[], None] | None = None,
        *,
        threads: int = _THREADS_PER_CPU * _CPUS,
        is_shared: bool = True,
    ) -> None:
        self.shares = shares
        self._at_once = min(_CPUS + 1, threads)
        self._per_tenant = min(_CPUS, threads) if is_shared else threads
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, name, initializer)
        self._waiting: FairQueue[_Call] = FairQueue(shares)
        self._running: dict[_Call, None] = {}  # in the order of their starts
        self._by_tenant: dict[str, int] = {}
        self._timer: asyncio.TimerHandle | None = None

    def submit(self, tenant: str, function: Callable[[*Ts], T], *arguments: *Ts) -> asyncio.Future[T]:
        """Run a function for a tenant; its queue is as long as the requests that wait for their calls.

        Cancelling the future takes a call that has not begun out of the queue.
        """
        loop = asyncio.get_running_loop()
        call = _Call(tenant, function, arguments, loop, loop.create_future())
        if not self._waiting and self._has_room(loop) and self._may_begin(tenant):
            self.shares.begin_at_once(tenant)
            self._start(call)
        else:
            self._waiting.push(tenant, call)
            self._begin_waiting(loop)
        return call.future

    def close(self) -> None:
        """Stop the threads after the calls in progress; cancel those that wait."""
        while (found := self._waiting.pop()) is not None:
            found[1].future.cancel()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _has_room(self, loop: asyncio.AbstractEventLoop) -> bool:
        running = len(self._running)
        if running < self._at_once:
            return True
        since = loop.time() - LONG_S
        return running < self._threads and sum(call.started > since for call in self._running) < self._at_once

    def _may_begin(self, tenant: str) -> bool:
        return self._by_tenant.get(tenant, 0) < self._per_tenant

    def _start(self, call: _Call) -> None:
        call.started = call.loop.time()
        self._running[call] = None
        self._by_tenant[call.tenant] = self._by_tenant.get(call.tenant, 0) + 1
        self._pool.submit(call.run).add_done_callback(lambda done: self._ended(call, done))

    def _ended(self, call: _Call, done: Future[Any]) -> None:
        # On the thread, or where the pool was shut down.
        if call.loop.is_closed():
            self._release(call)
        else:
            call.loop.call_soon_threadsafe(self._finish, call, done)

    def _release(self, call: _Call) -> None:
        del self._running[call]
        self._by_tenant[call.tenant] -= 1
        if not self._by_tenant[call.tenant]:
            del self._by_tenant[call.tenant]
        self.shares.charge(call.tenant, call.cpu_s)

    def _finish(self, call: _Call, done: Future[Any]) -> None:
        self._release(call)
        if not call.future.done():
            if done.cancelled():
                call.future.cancel()
            elif (error := done.exception()) is not None:
                call.future.set_exception(error)
            else:
                call.future.set_result(done.result())
        self._begin_waiting(call.loop)

    def _begin_waiting(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._has_room(loop) and (found := self._waiting.pop(self._may_begin)) is not None:
            if not found[1].future.done():
                self._start(found[1])
        if self._waiting and self._timer is None:
            # When the oldest call that still counts becomes long, there may be room.
            counted = (call.started for call in self._running if call.started > loop.time() - LONG_S)
            if (oldest := next(counted, None)) is not None:
                self._timer = loop.call_at(oldest + LONG_S, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        self._begin_waiting(loop)
