"""Threads that tenants share: whose call begins, and what a call that sleeps keeps from whom."""

from __future__ import annotations

import asyncio
import os
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from ml_core.exceptions import DeadlineExceededError, ModelNotReadyError
from ml_core.inference import fair_threads
from ml_core.inference.fair_queue import Shares
from ml_core.inference.fair_threads import MAX_LOST, MAX_LOST_PER_TENANT, MAX_THREADS, FairThreads

CPUS = os.cpu_count() or 1


@pytest.fixture
def threads() -> Iterator[FairThreads]:
    threads = FairThreads(Shares(lambda _: 1.0), "test")
    yield threads
    threads.close()


def bounded(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run a test on an event loop, with a deadline."""
    return asyncio.run(asyncio.wait_for(main(), 20))


def compute(seconds: float) -> None:
    """Use processor time of the calling thread."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def test_results_and_errors_are_delivered(threads):
    """With the arguments of the call."""

    async def main():
        assert await threads.submit("a", divmod, 7, 2) == (3, 1)
        with pytest.raises(ZeroDivisionError):
            await threads.submit("a", divmod, 7, 0)

    bounded(main)


def test_calls_that_sleep_keep_nobody_else_waiting(threads):
    """However many a tenant has: its own wait behind them, another's call is done meanwhile."""
    wake = threading.Event()

    async def main():
        asleep = [threads.submit("sleeper", wake.wait, 15) for _ in range(50)]
        for _ in range(5):
            await threads.submit("quiet", divmod, 7, 2)
        assert not any(call.done() for call in asleep)
        own = threads.submit("sleeper", divmod, 7, 2)
        await threads.submit("quiet", divmod, 7, 2)
        assert not own.done()
        wake.set()
        await asyncio.gather(own, *asleep)

    bounded(main)


def test_sleepers_of_several_tenants_keep_nobody_else_waiting(threads):
    """Each has its bound, and a call that is long does not count among those that run at the same time."""
    wake = threading.Event()

    async def main():
        asleep = [threads.submit(f"sleeper{i % 3}", wake.wait, 15) for i in range(30)]
        await threads.submit("quiet", divmod, 7, 2)
        assert not any(call.done() for call in asleep)
        wake.set()
        await asyncio.gather(*asleep)

    bounded(main)


def test_hanging_calls_of_many_tenants_leave_threads_to_others(threads):
    """Before their deadlines pass: of the second half of the threads a tenant gets one."""
    wake = threading.Event()
    half = MAX_THREADS // 2

    async def hang(tenants, running):
        calls = [threads.submit(f"hangs{tenant}", wake.wait, 30) for tenant in tenants for _ in range(CPUS)]
        while len(threads._running) < running:
            await asyncio.sleep(0.01)
        return calls

    async def main():
        asleep = [*await hang(range(half // CPUS), half), *await hang(range(half, 2 * half - 1), 2 * half - 1)]
        await threads.submit("quiet", divmod, 7, 2)
        assert not any(call.done() for call in asleep)
        wake.set()
        await asyncio.gather(*asleep)

    bounded(main)


@pytest.fixture
def impatient(monkeypatch):
    """Calls are lost at their deadlines."""
    monkeypatch.setattr(fair_threads, "LOST_AFTER_S", 0.0)


def soon() -> float:
    """A deadline that calls can reach."""
    return asyncio.get_running_loop().time() + 0.1


def test_a_call_that_does_not_return_gives_its_place_back_at_its_deadline(threads, impatient):
    """Whoever waits for it gets an error; the tenant's other calls go on. Once it returns, nothing is left of it."""
    wake = threading.Event()

    async def main():
        lost = [threads.submit("a", wake.wait, 15, deadline=soon()) for _ in range(CPUS)]
        behind = threads.submit("a", divmod, 7, 2)
        for call in lost:
            with pytest.raises(DeadlineExceededError, match="did not return within the deadline"):
                await call
        assert await behind == (3, 1)
        assert threads.lost == CPUS
        wake.set()
        while threads.lost:
            await asyncio.sleep(0.001)
        assert not threads._lost
        assert not threads._shares._accounts

    bounded(main)


def test_a_call_that_computes_beyond_a_short_deadline_keeps_its_place(threads):
    """Or else a tenant with short deadlines would compute on more threads than its own."""
    wake, ran = threading.Event(), []

    async def main():
        late = [threads.submit("a", wake.wait, 15, deadline=soon()) for _ in range(CPUS)]
        behind = threads.submit("a", ran.append, "behind", deadline=soon())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(late[0]), 0.2)
        wake.set()
        await asyncio.gather(*late)
        with pytest.raises(DeadlineExceededError):
            await behind

    bounded(main)
    assert ran == []


def test_one_thread_is_replaced_too(impatient):
    """As that of explanations: another tenant's are done while a call hangs."""
    threads, wake = FairThreads(Shares(lambda _: 1.0), "test", threads=1), threading.Event()

    async def main():
        hanging = threads.submit("a", wake.wait, 15, deadline=soon())
        assert await threads.submit("b", divmod, 7, 2) == (3, 1)
        assert isinstance(hanging.exception(), DeadlineExceededError)
        wake.set()

    bounded(main)
    threads.close()


def test_a_call_whose_deadline_passed_while_it_waited_does_not_begin(threads):
    """It gets the error of its deadline."""
    wake, ran = threading.Event(), []

    async def main():
        asleep = [threads.submit("a", wake.wait, 15) for _ in range(CPUS)]
        late = threads.submit("a", ran.append, "late", deadline=asyncio.get_running_loop().time())
        wake.set()
        with pytest.raises(DeadlineExceededError):
            await late
        await asyncio.gather(*asleep)

    bounded(main)
    assert ran == []


def test_the_lost_calls_of_a_tenant_are_bounded(threads):
    """Further ones are refused at once, until some return. Calls that always return, and other tenants', go on."""
    wake = threading.Event()

    async def main():
        calls = [threads.submit("a", wake.wait, 15, deadline=soon() + 10) for _ in range(3 * MAX_LOST_PER_TENANT)]
        while threads._running:  # as at their deadlines
            threads._lose(next(iter(threads._running)))
        assert MAX_LOST_PER_TENANT <= threads.lost < MAX_LOST_PER_TENANT + CPUS
        with pytest.raises(ModelNotReadyError, match=r"\d calls of the tenant's models have not returned"):
            await threads.submit("a", divmod, 7, 2, deadline=soon() + 10)
        found = {type(outcome) for outcome in await asyncio.gather(*calls, return_exceptions=True)}
        assert found == {DeadlineExceededError, ModelNotReadyError}
        assert await threads.submit("a", divmod, 7, 2) == (3, 1)
        assert await threads.submit("b", divmod, 7, 2, deadline=soon() + 10) == (3, 1)
        assert not threads.is_spent
        wake.set()
        while threads.lost:
            await asyncio.sleep(0.001)
        assert await threads.submit("a", divmod, 7, 2, deadline=soon() + 10) == (3, 1)

    bounded(main)


def test_after_too_many_lost_calls_of_all_tenants_the_threads_are_spent(threads, impatient):
    """The replica is to be replaced; until then other tenants' calls go on."""
    wake = threading.Event()

    async def main():
        tenant = 0
        while not threads.is_spent:
            calls = [threads.submit(f"t{tenant}", wake.wait, 30, deadline=soon()) for _ in range(CPUS)]
            await asyncio.gather(*calls, return_exceptions=True)
            tenant += 1
        assert threads.lost == MAX_LOST
        assert await threads.submit("quiet", divmod, 7, 2) == (3, 1)
        wake.set()

    bounded(main)


def test_who_is_alone_on_the_threads(threads):
    """Until another tenant's call runs or waits."""
    wake = threading.Event()

    async def main():
        mine = threads.submit("a", wake.wait, 15)
        assert threads.is_alone("a")
        assert not threads.is_alone("b")
        others = threads.submit("b", wake.wait, 15)
        assert not threads.is_alone("a")
        wake.set()
        await asyncio.gather(mine, others)
        assert threads.is_alone("b")

    bounded(main)


def test_one_tenant_alone_may_use_all_threads():
    """In a dedicated cell."""
    threads = FairThreads(Shares(lambda _: 1.0), "test", is_shared=False)
    barrier = threading.Barrier(CPUS + 2)

    async def main():
        await asyncio.gather(*(threads.submit("only", barrier.wait, 15) for _ in range(CPUS + 2)))

    bounded(main)
    threads.close()


def test_processor_time_is_shared_by_weight():
    """Of two tenants that always wait, one of weight 3 gets three times the processor time; sleeping costs nothing."""
    weights = {"heavy": 3.0, "light": 1.0}
    shares = Shares(weights.__getitem__)
    threads = FairThreads(shares, "test")
    threads._at_once = 1
    used = {"heavy": 0.0, "light": 0.0}

    def work(tenant: str, seconds: float) -> None:
        compute(seconds)
        used[tenant] += seconds

    async def main():
        calls = [threads.submit("heavy", work, "heavy", 0.002) for _ in range(300)]
        calls += [threads.submit("light", work, "light", 0.005) for _ in range(300)]
        while sum(used.values()) < 0.4:
            await asyncio.sleep(0.005)
        share = used["heavy"] / sum(used.values())
        for call in calls:
            call.cancel()
        return share

    assert bounded(main) == pytest.approx(0.75, abs=0.06)
    threads.close()


def test_one_thread_is_shared_by_turns():
    """As explanations do: a tenant with one step goes before the 30 that another has waiting."""
    threads, order = FairThreads(Shares(lambda _: 1.0), "test", threads=1), []

    def work(tenant: str) -> None:
        compute(0.001)
        order.append(tenant)

    async def main():
        busy = [threads.submit("busy", work, "busy") for _ in range(30)]
        await busy[4]
        await threads.submit("quiet", work, "quiet")
        await asyncio.gather(*busy)

    bounded(main)
    assert order.index("quiet") <= 7
    threads.close()


def test_a_call_that_nobody_waits_for_any_more_does_not_begin(threads):
    """Cancelled while it waited, such as at the deadline of its request."""
    wake, ran = threading.Event(), []

    async def main():
        asleep = [threads.submit("a", wake.wait, 15) for _ in range(CPUS)]
        left = threads.submit("a", ran.append, "left")
        stayed = threads.submit("a", ran.append, "stayed")
        left.cancel()
        wake.set()
        await asyncio.gather(stayed, *asleep)

    bounded(main)
    assert ran == ["stayed"]


def test_a_call_that_nobody_waits_for_any_more_keeps_no_memory(threads):
    """Though the turn of its tenant does not come, whose other calls sleep."""
    wake = threading.Event()

    class Body:
        """Stands for the bytes of a request."""

    async def main():
        asleep = [threads.submit("a", wake.wait, 15) for _ in range(CPUS)]
        body = Body()
        seen, left = weakref.ref(body), threads.submit("a", id, body)
        del body
        left.cancel()
        await asyncio.sleep(0)
        del left
        await asyncio.sleep(0)
        kept = seen(), len(threads._waiting)
        wake.set()
        await asyncio.gather(*asleep)
        return kept

    assert bounded(main) == (None, 0)


def test_closing_cancels_what_waits(threads):
    """What runs goes on to its end."""
    wake = threading.Event()

    async def main():
        running = [threads.submit("a", wake.wait, 15) for _ in range(CPUS)]
        waiting = threads.submit("a", divmod, 7, 2)
        threads.close()
        assert waiting.cancelled()
        wake.set()
        await asyncio.gather(*running)

    bounded(main)


def test_a_loop_that_ended_leaves_no_thread_taken(threads):
    """Its calls end all the same, and the tenant can use another loop."""
    wake = threading.Event()

    async def abandon():
        for _ in range(CPUS):
            threads.submit("a", wake.wait, 15)

    asyncio.run(abandon())
    wake.set()

    async def main():
        while threads._running:
            await asyncio.sleep(0.001)
        return await threads.submit("a", divmod, 7, 2)

    assert bounded(main) == (3, 1)
