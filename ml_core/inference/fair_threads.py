"""Threads for calls that would block the event loop, shared fairly by tenants.

Calls begin in fair order over the processor time that they used (``fair_queue``). As many run at the same time as there
are processors, and one more, so that a tenant that keeps all processors busy leaves a thread to others. A call that
takes long may sleep instead of computing: after ``LONG_S`` it no longer counts, and another one may begin.

A call that has run for ``LOST_AFTER_S`` and beyond its deadline is *lost*: whoever waits for it gets an error, and
another thread takes the place of its own until it returns. All of that is bounded. A tenant has a few threads, and once
half of all are taken one at most; who has lost ``MAX_LOST_PER_TENANT`` calls gets no more that may be lost; and after
``MAX_LOST`` the process has to be replaced, since nothing else ends a call.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar, TypeVarTuple

from ml_core.exceptions import DeadlineExceededError, ModelNotReadyError, PredictionError
from ml_core.inference.fair_queue import Begun, FairQueue, Shares
from ml_core.inference.pointers import VersionKey

logger = logging.getLogger(__name__)

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

LONG_S = 0.05
"""A call that has run longer does not keep others from beginning."""
MAX_THREADS = 64
"""Calls that run at the same time, most of which sleep: threads beyond the processors are for models that do."""
LOST_AFTER_S = 5.0
"""A call that has run for less is not lost, however short its deadline is: it may compute, in place of others."""
MAX_LOST = 32
MAX_LOST_PER_TENANT = 4
_CPUS = os.cpu_count() or 1


@dataclass(slots=True, eq=False)
class _Call:
    tenant: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    deadline: float
    version: VersionKey | None
    started: float = 0.0
    timer: asyncio.TimerHandle | None = None
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
        shares: Of these threads; charged with the processor time of each call.
        name: The prefix of the names of the threads.
        initializer: Runs at the start of each thread.
        threads: The number of threads, without those of lost calls.
        is_shared: Whether several tenants use it; a single one may use all threads.
    """

    def __init__(
        self,
        shares: Shares,
        name: str,
        initializer: Callable[[], None] | None = None,
        *,
        threads: int = MAX_THREADS,
        is_shared: bool = True,
    ) -> None:
        self._shares = shares
        self._at_once = min(_CPUS + 1, threads)
        self._per_tenant = min(_CPUS, threads) if is_shared else threads
        # More may be lost while the process waits for its replacement.
        self._threads, self._most = threads, threads + 4 * MAX_LOST
        self._first_half = threads // 2 if is_shared else threads
        self._pool = ThreadPoolExecutor(self._most, name, initializer)
        self._waiting: FairQueue[_Call] = FairQueue(shares)
        self._running: dict[_Call, Begun] = {}  # in the order of their starts, without those that are lost
        self._by_tenant: Counter[str] = Counter()
        self._lost: set[_Call] = set()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def lost(self) -> int:
        """The number of calls that did not return in time, and have not returned since."""
        return len(self._lost)

    @property
    def lost_versions(self) -> set[VersionKey]:
        """The versions of these calls."""
        return {call.version for call in self._lost.copy() if call.version is not None}

    @property
    def is_spent(self) -> bool:
        """Whether so many calls are lost that the process has to be replaced."""
        return self.lost >= MAX_LOST

    def is_alone(self, tenant: str) -> bool:
        """Whether no other tenant has calls that run or wait."""
        return self._by_tenant.keys() <= {tenant} and not self._waiting.is_of_others(tenant)

    def submit(
        self,
        tenant: str,
        function: Callable[[*Ts], T],
        *arguments: *Ts,
        deadline: float = math.inf,
        version: VersionKey | None = None,
    ) -> asyncio.Future[T]:
        """Run a function for a tenant; its queue is as long as the requests that wait for their calls.

        Cancelling the future takes a call that has not begun out of the queue.

        Args:
            tenant: The tenant.
            function: The function.
            *arguments: Its arguments.
            deadline: On the event loop's clock, seconds, when nobody waits any longer; for a function that may not
                return. The future raises ``DeadlineExceededError`` if it has not begun then or is lost, and at once
                ``ModelNotReadyError`` if too many calls of the tenant are lost.
            version: Whose code may not return.
        """
        loop = asyncio.get_running_loop()
        call = _Call(tenant, function, arguments, loop, loop.create_future(), deadline, version)
        if (error := self._refusal(call)) is not None:
            call.future.set_exception(error)
        elif not self._waiting and self._has_room(loop) and self._may_begin(tenant):
            self._shares.come()
            self._shares.enter(tenant)
            self._start(call, self._shares.begin(tenant))
        else:
            self._waiting.push(tenant, call)
            # Not when its turn comes: until then it would keep the body of its request.
            call.future.add_done_callback(lambda _: self._waiting.remove(tenant, call))
            self._begin_waiting(loop)
        return call.future

    def close(self) -> None:
        """Stop the threads after the calls in progress; cancel those that wait."""
        while (found := self._waiting.pop()) is not None:
            self._shares.end(found[0], 0.0)
            found[1].future.cancel()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _refusal(self, call: _Call) -> PredictionError | None:
        """Why a call must not begin."""
        if call.deadline == math.inf:
            return None
        if call.loop.time() >= call.deadline:
            return _not_returned(call)
        lost = sum(each.tenant == call.tenant for each in self._lost)
        return _too_many_lost(call.tenant, lost) if lost >= MAX_LOST_PER_TENANT else None

    def _has_room(self, loop: asyncio.AbstractEventLoop) -> bool:
        running = len(self._running)
        if running >= self._threads or running + self.lost >= self._most:
            return False
        since = loop.time() - LONG_S
        return running < self._at_once or sum(call.started > since for call in self._running) < self._at_once

    def _may_begin(self, tenant: str) -> bool:
        mine = self._by_tenant[tenant]
        return not mine or (mine < self._per_tenant and len(self._running) < self._first_half)

    def _start(self, call: _Call, begun: Begun) -> None:
        call.started = call.loop.time()
        if call.deadline != math.inf:
            call.timer = call.loop.call_at(max(call.deadline, call.started + LOST_AFTER_S), self._lose, call)
        self._running[call] = begun
        self._by_tenant[call.tenant] += 1
        self._pool.submit(call.run).add_done_callback(lambda done: self._ended(call, done))

    def _ended(self, call: _Call, done: Future[Any]) -> None:
        # On the thread, or where the pool was shut down.
        if call.loop.is_closed():
            self._release(call)
        else:
            call.loop.call_soon_threadsafe(self._finish, call, done)

    def _release(self, call: _Call) -> None:
        """Give the thread of a call that ended back."""
        if call in self._lost:
            self._lost.remove(call)
            self._shares.charge(call.tenant, call.cpu_s)
        else:
            self._leave(call, call.cpu_s)
        if call.timer is not None:
            call.timer.cancel()

    def _leave(self, call: _Call, cpu_s: float) -> None:
        self._shares.end(self._running.pop(call), cpu_s)
        self._by_tenant[call.tenant] -= 1
        if not self._by_tenant[call.tenant]:
            del self._by_tenant[call.tenant]

    def _lose(self, call: _Call) -> None:
        self._leave(call, 0.0)
        self._lost.add(call)
        logger.warning(
            "A call for the tenant %s has not returned for %.1f s; it keeps its thread until it does (%d of %d lost "
            "calls).",
            call.tenant,
            call.loop.time() - call.started,
            self.lost,
            MAX_LOST,
        )
        if not call.future.done():
            call.future.set_exception(_not_returned(call))
        self._begin_waiting(call.loop)

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
            begun, call = found
            is_gone, error = call.future.done() or call.loop.is_closed(), self._refusal(call)
            if not is_gone and error is None:
                self._start(call, begun)
                continue
            self._shares.end(begun, 0.0)
            if not is_gone and error is not None:
                call.future.set_exception(error)
        if self._waiting and self._timer is None:
            # When the oldest call that still counts becomes long, there may be room.
            counted = (call.started for call in self._running if call.started > loop.time() - LONG_S)
            if (oldest := next(counted, None)) is not None:
                self._timer = loop.call_at(oldest + LONG_S, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        self._begin_waiting(loop)


def _not_returned(call: _Call) -> DeadlineExceededError:
    return DeadlineExceededError(
        "The model did not return within the deadline of the request.",
        remedy="Send fewer rows per request, raise x-request-timeout-ms, or correct the code of the model.",
        tenant_id=call.tenant,
    )


def _too_many_lost(tenant: str, lost: int) -> ModelNotReadyError:
    return ModelNotReadyError(
        f"{lost} calls of the tenant's models have not returned, and this replica begins no more.",
        remedy="Correct the code of the models, or roll back to versions that return; the calls end with the replica.",
        tenant_id=tenant,
        retry_after_s=30,
    )
