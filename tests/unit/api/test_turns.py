"""Turns of tenants at what only so many may do at the same time."""

import asyncio

from ml_core.api.turns import Turns


def test_tenants_take_turns():
    """Whoever asks for many at once does not hold up who asks for one; a turn of who left is the next one's."""
    order = []

    async def take(turns, tenant_id):
        async with turns.of(tenant_id):
            order.append(tenant_id)
            await asyncio.sleep(0)

    async def main():
        turns = Turns(1)
        wanted = [asyncio.create_task(take(turns, tenant_id)) for tenant_id in ("a", "a", "a", "gone", "b", "a", "c")]
        await asyncio.sleep(0)
        wanted[3].cancel()
        await asyncio.gather(*wanted, return_exceptions=True)
        given = asyncio.create_task(take(turns, "d"))
        async with turns.of("a"):
            await asyncio.sleep(0)
        given.cancel()  # just as its turn came
        await asyncio.gather(given, return_exceptions=True)
        await asyncio.wait_for(take(turns, "e"), 5)

    asyncio.run(main())
    assert order == ["a", "a", "b", "c", "a", "a", "e"]
