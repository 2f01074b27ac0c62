"""Fair queueing: the shares of tenants that wait, whatever their items cost."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from ml_core.inference.fair_queue import FairQueue, Shares

COSTS = st.lists(st.floats(1e-6, 10), min_size=1, max_size=40)
WEIGHTS = st.floats(0.01, 100)


def drained(queue: FairQueue[float], shares: Shares) -> list[tuple[str, float]]:
    """All items in the order in which one server serves them, each charged after it."""
    order = []
    while (found := queue.pop()) is not None:
        order.append(found)
        shares.charge(*found)
    return order


@given(st.dictionaries(st.sampled_from("abcde"), st.tuples(WEIGHTS, COSTS), min_size=2), st.floats(0, 1000))
def test_two_that_wait_get_their_shares(tenants: dict[str, tuple[float, list[float]]], before: float) -> None:
    """At each moment, the times that two waiting tenants got, divided by their weights, differ by one item of each at
    most (Goyal, Vin and Cheng, theorem 1), though a cost is known only afterwards. Earlier use does not count."""
    weights = {tenant: weight for tenant, (weight, _) in tenants.items()}
    shares = Shares(weights.__getitem__)
    first = next(iter(tenants))
    shares.begin(shares.enter(first))
    shares.charge(first, before)
    shares.begin(shares.enter(first))
    queue: FairQueue[float] = FairQueue(shares)
    for tenant, (_, costs) in tenants.items():
        for cost in costs:
            queue.push(tenant, cost)
    left = {tenant: len(costs) for tenant, (_, costs) in tenants.items()}
    largest = {tenant: max(costs) / weights[tenant] for tenant, (_, costs) in tenants.items()}
    got: Counter[str] = Counter()
    for tenant, cost in drained(queue, shares):
        got[tenant] += cost / weights[tenant]  # type: ignore[assignment]
        left[tenant] -= 1
        waiting = [name for name in tenants if left[name]]
        for one in waiting:
            for other in waiting:
                assert abs(got[one] - got[other]) <= (largest[one] + largest[other]) * (1 + 1e-6) + 1e-9


@given(st.lists(st.integers(), max_size=50))
def test_the_items_of_one_tenant_keep_their_order(items: list[int]) -> None:
    """And all come out."""
    queue: FairQueue[int] = FairQueue(Shares(lambda _: 1.0))
    for item in items:
        queue.push("a", item)
    assert len(queue) == len(items)
    assert [queue.pop() for _ in items] == [("a", item) for item in items]
    assert queue.pop() is None
    assert (len(queue), queue._items, queue._order) == (0, {}, [])


def test_who_was_idle_has_no_credit() -> None:
    """It takes turns with the one that was busy, and does not get the time that it did not use."""
    shares = Shares(lambda _: 1.0)
    queue: FairQueue[float] = FairQueue(shares)
    for _ in range(100):
        queue.push("busy", 1.0)
        shares.charge(*(queue.pop() or ("", 0.0)))
    for _ in range(5):
        queue.push("busy", 1.0)
    for _ in range(5):
        queue.push("idle", 1.0)
    assert "".join(tenant[0] for tenant, _ in drained(queue, shares)) in ("ibibibibib", "bibibibibi")


def test_a_quiet_tenant_goes_before_all_that_a_busy_one_has_waiting() -> None:
    """It waits for the item that has begun, and for no other."""
    shares = Shares(lambda _: 1.0)
    queue: FairQueue[float] = FairQueue(shares)
    for _ in range(64):
        queue.push("busy", 1.0)
    shares.charge(*(queue.pop() or ("", 0.0)))
    queue.push("quiet", 0.1)
    assert queue.pop() == ("quiet", 0.1)


def test_who_may_not_begin_is_passed_over() -> None:
    """It keeps its place."""
    shares = Shares(lambda _: 1.0)
    queue: FairQueue[str] = FairQueue(shares)
    for tenant in "abc":
        queue.push(tenant, f"of {tenant}")
    assert queue.pop(lambda tenant: tenant != "a") == ("b", "of b")
    assert queue.pop(lambda tenant: False) is None
    assert len(queue) == 2
    assert queue.pop() == ("a", "of a")


def test_tags_of_idle_tenants_are_forgotten() -> None:
    """What is kept does not grow with all tenants that ever asked."""
    shares = Shares(lambda _: 1.0)
    for number in range(5_000):
        tenant = f"t{number}"
        shares.begin(shares.enter(tenant))
        shares.charge(tenant, 1.0)
    assert len(shares._tags) < 1_100


@given(st.lists(st.tuples(st.sampled_from(["push", "pop", "remove"]), st.sampled_from("abc")), max_size=60))
def test_removed_items_leave_no_trace(steps: list[tuple[str, str]]) -> None:
    """Whatever came and went before, what is left comes out, in order; a tenant has one entry at most."""
    queue: FairQueue[int] = FairQueue(Shares(lambda _: 1.0))
    left: dict[str, list[int]] = {tenant: [] for tenant in "abc"}
    for number, (step, tenant) in enumerate(steps):
        if step == "push":
            queue.push(tenant, number)
            left[tenant].append(number)
        elif step == "remove":
            queue.remove(tenant, left[tenant].pop() if left[tenant] else number)
        elif (found := queue.pop()) is not None:
            assert left[found[0]].pop(0) == found[1]
        else:
            assert not any(left.values())
        assert len(queue) == sum(map(len, left.values()))
        assert len(queue._order) == len(queue._items) <= 3
    while (found := queue.pop()) is not None:
        assert left[found[0]].pop(0) == found[1]
    assert not any(left.values())
    assert (queue._items, queue._order) == ({}, [])
