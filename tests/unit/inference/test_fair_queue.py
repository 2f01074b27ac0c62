"""Fair queueing: the shares of tenants that wait, whatever their items cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from ml_core.inference import fair_queue
from ml_core.inference.fair_queue import Begun, FairQueue, Shares

COSTS = st.lists(st.floats(1e-6, 10), min_size=1, max_size=40)
WEIGHTS = st.floats(0.01, 100)


def served(queue: FairQueue[float], shares: Shares) -> Iterator[tuple[str, float]]:
    """All items in the order in which one server serves them, each charged after it."""
    while (found := queue.pop()) is not None:
        begun, cost = found
        shares.end(begun, cost)
        yield begun.tenant, cost


def drained(queue: FairQueue[float], shares: Shares) -> str:
    """The tenants in that order."""
    return "".join(tenant for tenant, _ in served(queue, shares))


@given(st.dictionaries(st.sampled_from("abcde"), st.tuples(WEIGHTS, COSTS), min_size=2), st.floats(0, 1000))
def test_two_that_wait_get_their_shares(tenants: dict[str, tuple[float, list[float]]], before: float) -> None:
    """At each moment, the times that two waiting tenants got, divided by their weights, differ by one item of each at
    most (Goyal, Vin and Cheng, theorem 1), though a cost is known only afterwards. Earlier use does not count."""
    weights = {tenant: weight for tenant, (weight, _) in tenants.items()}
    shares = Shares(weights.__getitem__)
    queue: FairQueue[float] = FairQueue(shares)
    queue.push(next(iter(tenants)), before)
    drained(queue, shares)
    for tenant, (_, costs) in tenants.items():
        for cost in costs:
            queue.push(tenant, cost)
    left = {tenant: len(costs) for tenant, (_, costs) in tenants.items()}
    largest = {tenant: max(costs) / weights[tenant] for tenant, (_, costs) in tenants.items()}
    got: Counter[str] = Counter()
    for tenant, cost in served(queue, shares):
        got[tenant] += cost / weights[tenant]  # type: ignore[assignment]
        left[tenant] -= 1
        waiting = [name for name in tenants if left[name]]
        for one in waiting:
            for other in waiting:
                assert abs(got[one] - got[other]) <= (largest[one] + largest[other]) * (1 + 1e-6) + 1e-9


class Item:
    """An item of the reference: the virtual time when it came, and its cost divided by the weight, once it ended."""

    def __init__(self, came: float) -> None:
        self.came, self.cost, self.is_over = came, 0.0, False


class Reference:
    """Start-time fair queueing by its definition: tags are computed anew from all items since the server was idle."""

    def __init__(self, weights: dict[str, float]) -> None:
        self.weights, self.now = weights, 0.0
        self.begun: dict[str, list[Item]] = {tenant: [] for tenant in weights}
        self.waiting: dict[str, list[Item]] = {tenant: [] for tenant in weights}

    def start(self, tenant: str) -> float:
        """The start tag of the first item that waits."""
        tag = 0.0
        for item in self.begun[tenant]:
            tag = max(tag, item.came) + item.cost
        return max(tag, self.waiting[tenant][0].came)

    def lowest(self, may_begin: set[str]) -> float | None:
        return min((self.start(tenant) for tenant in may_begin if self.waiting[tenant]), default=None)

    def begin(self, tenant: str, may_begin: set[str]) -> Item:
        self.now = max(self.now, self.start(tenant))
        self.begun[tenant].append(self.waiting[tenant].pop(0))
        self.pass_over(may_begin)
        return self.begun[tenant][-1]

    def pass_over(self, may_begin: set[str]) -> None:
        """Those that may not begin do not compete: their items come anew."""
        for tenant, items in self.waiting.items():
            if items and tenant not in may_begin:
                items[0].came = self.now

    def end(self, tenant: str, item: Item, seconds: float) -> None:
        item.cost, item.is_over = seconds / self.weights[tenant], True
        self.rest()

    def rest(self) -> None:
        """Once nothing waits or runs, the virtual time is the highest finish tag, so all begin as at the first time."""
        in_progress = any(not item.is_over for items in self.begun.values() for item in items)
        if not in_progress and not any(self.waiting.values()):
            self.__init__(self.weights)  # type: ignore[misc]


TENANTS = "abcd"
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.sampled_from(TENANTS)),
        st.tuples(st.just("pop"), st.sets(st.sampled_from(TENANTS)) | st.just(set(TENANTS))),
        st.tuples(st.just("end"), st.integers(0, 5), st.sampled_from([0.0, 0.5, 1.0, 3.0, 20.0])),
        st.tuples(st.just("remove"), st.sampled_from(TENANTS)),
    ),
    max_size=80,
)


@given(STEPS, st.tuples(*[st.sampled_from([0.5, 1.0, 3.0])] * 4), st.sampled_from([1, 1_000]))
def test_the_order_is_that_of_the_definition(steps: list[tuple], weights: tuple[float, ...], many: int) -> None:  # type: ignore[type-arg]
    """In any order of arrivals, starts on several threads, ends with costs that were not known before, bounds of single
    tenants and departures; also where accounts are forgotten as soon as they may be."""
    reference = Reference(dict(zip(TENANTS, weights, strict=True)))
    shares = Shares(reference.weights.__getitem__)
    shares._many = many
    queue: FairQueue[int] = FairQueue(shares)
    running: list[tuple[Begun, Item]] = []
    with patch.object(fair_queue, "_MANY_ACCOUNTS", many):
        for number, (step, *of) in enumerate(steps):
            if step == "push":
                queue.push(of[0], number)
                reference.waiting[of[0]].append(Item(reference.now))
            elif step == "remove" and reference.waiting[of[0]]:
                last = max(queue._items[of[0]])
                queue.remove(of[0], last)
                reference.waiting[of[0]].pop()
                reference.rest()
            elif step == "end" and running:
                begun, item = running.pop(of[0] % len(running))
                shares.end(begun, of[1])
                reference.end(begun.tenant, item, of[1])
            elif step == "pop":
                lowest, found = reference.lowest(of[0]), queue.pop(of[0].__contains__)
                if found is None:
                    assert lowest is None
                    reference.pass_over(of[0])
                else:
                    assert reference.start(found[0].tenant) == lowest
                    running.append((found[0], reference.begin(found[0].tenant, of[0])))
            assert all(shares._now <= reference.start(name) for name, items in reference.waiting.items() if items)


@given(st.lists(st.integers(), max_size=50))
def test_the_items_of_one_tenant_keep_their_order(items: list[int]) -> None:
    """And all come out."""
    queue: FairQueue[int] = FairQueue(Shares(lambda _: 1.0))
    for item in items:
        queue.push("a", item)
    assert len(queue) == len(items)
    found = [queue.pop() for _ in items]
    assert [(each[0].tenant, each[1]) for each in found if each] == [("a", item) for item in items]
    assert queue.pop() is None
    assert (len(queue), queue._items, queue._order) == (0, {}, [])


def test_who_was_idle_has_no_credit() -> None:
    """It takes turns with the one that was busy, and does not get the time that it did not use."""
    shares = Shares(lambda _: 1.0)
    queue: FairQueue[float] = FairQueue(shares)
    for _ in range(105):
        queue.push("b", 1.0)
    for _ in range(100):
        next(served(queue, shares))
    for _ in range(5):
        queue.push("i", 1.0)
    assert drained(queue, shares) in ("ibibibibib", "bibibibibi")


def test_who_used_an_idle_server_owes_nothing() -> None:
    """Not even its last item, however long that was."""
    shares = Shares(lambda _: 1.0)
    queue: FairQueue[float] = FairQueue(shares)
    for cost in (1.0, 10.0):
        queue.push("a", cost)
        assert drained(queue, shares) == "a"
    for _ in range(3):
        queue.push("b", 1.0)
        queue.push("a", 1.0)
    assert drained(queue, shares) in ("bababa", "ababab")


def test_a_cost_that_becomes_known_late_counts_from_the_start_of_its_item() -> None:
    """A tenant whose long item used less than the others meanwhile does not fall behind them for it."""
    shares = Shares(lambda _: 1.0)
    queue: FairQueue[float] = FairQueue(shares)
    queue.push("slow", 0.0)
    found = queue.pop()
    assert found is not None
    for _ in range(30):
        queue.push("busy", 1.0)
    for _ in range(20):
        next(served(queue, shares))
    queue.push("slow", 1.0)
    shares.end(found[0], 5.0)
    assert [tenant for tenant, _ in served(queue, shares)][:2].count("slow") == 1


def test_what_ended_behind_an_item_that_takes_long_is_not_kept_one_by_one() -> None:
    """Each tag would go through all of it, on the event loop."""
    shares = Shares(lambda _: 1.0)
    queue: FairQueue[float] = FairQueue(shares)
    queue.push("a", 0.0)
    long = queue.pop()
    assert long is not None
    for number in range(1, 1_001):
        queue.push("a", 1.0)
        other = queue.pop()
        queue.push("a", 1.0)
        assert other is not None
        next(served(queue, shares))
        shares.end(other[0], 1.0)
        assert len(long[0].account.begun) <= 4
        assert long[0].account.tag() == 2.0 * number
    shares.end(long[0], 3.0)
    assert not long[0].account.begun


def test_who_sleeps_in_all_its_places_earns_no_credit() -> None:
    """What waits behind them does not go before all that others have waiting when they wake."""
    shares = Shares(lambda _: 1.0)
    queue: FairQueue[float] = FairQueue(shares)
    for _ in range(20):
        queue.push("s", 1.0)
    asleep = queue.pop()
    assert asleep is not None
    for _ in range(30):
        queue.push("b", 1.0)
    for _ in range(20):
        found = queue.pop(lambda tenant: tenant != "s")
        assert found is not None
        shares.end(found[0], 1.0)
    shares.end(asleep[0], 0.0)
    assert drained(queue, shares)[:8].count("b") >= 3


def test_time_of_items_that_ended_is_charged_while_others_wait() -> None:
    """And not on a server that nobody wants."""
    shares = Shares(lambda _: 1.0)
    queue: FairQueue[float] = FairQueue(shares)
    shares.charge("a", 100.0)
    for tenant in "aabb":
        queue.push(tenant, 1.0)
    shares.charge("a", 5.0)
    assert drained(queue, shares) == "bbaa"


def test_a_quiet_tenant_goes_before_all_that_a_busy_one_has_waiting() -> None:
    """It waits for the item that has begun, and for no other."""
    shares = Shares(lambda _: 1.0)
    queue: FairQueue[float] = FairQueue(shares)
    for _ in range(64):
        queue.push("b", 1.0)
    next(served(queue, shares))
    queue.push("q", 0.1)
    assert drained(queue, shares)[0] == "q"


def test_who_may_not_begin_is_passed_over() -> None:
    """It keeps its place among equals."""
    shares = Shares(lambda _: 1.0)
    queue: FairQueue[str] = FairQueue(shares)
    for tenant in "abc":
        queue.push(tenant, f"of {tenant}")
    found = queue.pop(lambda tenant: tenant != "a")
    assert found is not None
    assert found[1] == "of b"
    assert queue.pop(lambda tenant: False) is None
    assert len(queue) == 2
    found = queue.pop()
    assert found is not None
    assert found[1] == "of a"


def test_accounts_of_idle_tenants_are_forgotten() -> None:
    """What is kept does not grow with all tenants that ever asked."""
    shares = Shares(lambda _: 1.0)
    queue: FairQueue[float] = FairQueue(shares)
    queue.push("busy", 1.0)
    for number in range(5_000):
        queue.push("busy", 1.0)
        queue.push(f"t{number}", 1.0)
        next(served(queue, shares))
        next(served(queue, shares))
    assert len(shares._accounts) < 1_100
    drained(queue, shares)
    assert not shares._accounts


@given(st.lists(st.tuples(st.sampled_from(["push", "pop", "remove"]), st.sampled_from("abc")), max_size=60))
def test_removed_items_leave_no_trace(steps: list[tuple[str, str]]) -> None:
    """Whatever came and went before, what is left comes out, in order; a tenant has one entry at most."""
    shares = Shares(lambda _: 1.0)
    queue: FairQueue[int] = FairQueue(shares)
    left: dict[str, list[int]] = {tenant: [] for tenant in "abc"}
    for number, (step, tenant) in enumerate(steps):
        if step == "push":
            queue.push(tenant, number)
            left[tenant].append(number)
        elif step == "remove":
            queue.remove(tenant, left[tenant].pop() if left[tenant] else number)
        elif (found := queue.pop()) is not None:
            assert left[found[0].tenant].pop(0) == found[1]
            shares.end(found[0], 1.0)
        else:
            assert not any(left.values())
        assert len(queue) == sum(map(len, left.values()))
        assert len(queue._order) == len(queue._items) <= 3
    while (found := queue.pop()) is not None:
        assert left[found[0].tenant].pop(0) == found[1]
        shares.end(found[0], 1.0)
    assert not any(left.values())
    assert (queue._items, queue._order, shares._present) == ({}, [], 0)
