"""Turns on the event loop: a quiet tenant's request goes before all that another one has waiting."""

from __future__ import annotations

import asyncio

import pytest

from ml_core.exceptions import QueueFullError
from ml_core.inference.fair_queue import Shares
from ml_core.inference.gate import TenantGate
from ml_core.inference.turns import REQUEST_S, SHARED_TURN_S, TURN_S, Turns

IN_ONE_TURN, IN_A_SHARED_ONE = round(TURN_S / REQUEST_S), round(SHARED_TURN_S / REQUEST_S)


def made(total: int = 1000, per_tenant: int = 500) -> Turns:
    return Turns(TenantGate("requests", total=total, per_tenant=per_tenant), Shares(lambda _: 1.0))


async def ask(turns: Turns, tenant: str, order: list[str], size: int = 0) -> None:
    """One request, noted when it has its turn."""
    waiting = turns.enter(tenant, size)
    try:
        if waiting is not None:
            await waiting
        order.append(tenant)
    finally:
        turns.leave(tenant)


def test_a_loop_that_is_not_busy_lets_each_request_pass():
    """Without a wait, turn after turn."""

    async def main():
        turns = made()
        for _ in range(3 * IN_ONE_TURN):
            assert turns.enter("a", 0) is None
            turns.leave("a")
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    asyncio.run(main())


def test_a_turn_is_bounded_and_the_quiet_tenant_is_first_in_the_next():
    """Of 200 requests that came before it, those of two turns have begun: the one in progress and the next."""

    async def main():
        turns, order = made(), []
        busy = [asyncio.ensure_future(ask(turns, "busy", order)) for _ in range(200)]
        await asyncio.sleep(0)
        assert len(order) == IN_ONE_TURN
        await asyncio.gather(ask(turns, "quiet", order), *busy)
        assert len(turns._gate) == 0
        return order

    order = asyncio.run(main())
    assert order.index("quiet") <= 2 * IN_ONE_TURN
    assert len(order) == 201


def test_turns_are_shorter_while_several_tenants_have_requests():
    """A request takes some turns of the loop; with one tenant, long ones make large batches."""

    async def main():
        turns, order, begun = made(), [], []
        busy = [asyncio.ensure_future(ask(turns, "busy", order)) for _ in range(200)]
        await asyncio.sleep(0)
        assert turns.enter("quiet", 0) is not None  # in progress until the end
        for _ in range(10):
            before = len(order)
            await asyncio.sleep(0)
            begun.append(len(order) - before)
        await asyncio.gather(*busy)
        return begun

    assert set(asyncio.run(main())[2:]) <= {IN_A_SHARED_ONE, IN_A_SHARED_ONE + 1}


def test_large_bodies_take_larger_shares():
    """One that sends a megabyte at a time gets as much time as one that sends rows, not as many turns."""

    async def main():
        turns, order = made(), []
        await asyncio.gather(
            *(ask(turns, "large", order, 1_000_000) for _ in range(20)),
            *(ask(turns, "small", order) for _ in range(200)),
        )
        return order

    order = asyncio.run(main())
    assert order[:190].count("large") <= 3


def test_the_only_request_of_a_tenant_is_known():
    """While it waits and while it is in progress."""

    async def main():
        turns = made()
        turns.enter("a", 0)
        turns.enter("b", 0)
        turns.enter("b", 0)
        assert [turns.is_only(tenant) for tenant in "abc"] == [True, False, False]
        turns.leave("b")
        assert turns.is_only("b")

    asyncio.run(main())


def test_bounds_hold_for_those_that_wait():
    """In total and for each tenant."""

    async def main():
        turns = made(total=60, per_tenant=50)
        for _ in range(50):
            turns.enter("a", 0)
        with pytest.raises(QueueFullError, match="The tenant has 50 requests"):
            turns.enter("a", 0)
        for _ in range(10):
            turns.enter("b", 0)
        with pytest.raises(QueueFullError, match="This replica has reached its limit"):
            turns.enter("c", 0)

    asyncio.run(main())


def test_who_left_while_it_waited_takes_no_turn():
    """Those behind it go on, and its place is free."""

    async def main():
        turns, order = made(), []
        first = [asyncio.ensure_future(ask(turns, "a", order)) for _ in range(IN_ONE_TURN)]
        leaving = [asyncio.ensure_future(ask(turns, "b", order)) for _ in range(IN_ONE_TURN)]
        staying = asyncio.ensure_future(ask(turns, "c", order))
        await asyncio.sleep(0)
        for each in leaving:
            each.cancel()
        await asyncio.gather(staying, *first, return_exceptions=True)
        assert len(turns._gate) == 0
        return order

    assert asyncio.run(main()) == ["a"] * IN_ONE_TURN + ["c"]
