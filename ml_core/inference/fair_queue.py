"""Start-time fair queueing of tenants over the processor time of one server: the event loop, or some threads.

After Goyal, Vin and Cheng (1996). The start tag of an item is the finish tag of its tenant's item before it, or the
virtual time when it came if that is later; its finish tag is its start tag and its processor time divided by the
tenant's weight. Whoever's start tag is lowest is next. The virtual time is the highest start tag of the items that
began, and once no item waits or runs the highest finish tag. So a tenant that was idle has no credit, and one that used
an idle server owes nothing.

Two things are not as in the paper. A cost is known after its item, so each item in progress counts as nothing until it
ends, and a tenant may be ahead of its share by those. And a tenant that may not begin, because of a bound of its own,
does not compete: it comes anew whenever it is passed over, or else its items that sleep would earn it credit.

Each server has a virtual time and tags of its own. If they shared them, whoever came to threads that one flood keeps
busy would be placed behind all that another flood has waiting for the loop.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")

# Once there are so many accounts, those that the virtual time has passed are forgotten.
_MANY_ACCOUNTS = 1_000


class Begun:
    """An item in progress; ``cost`` is its processor time divided by the weight, 0 until it ends."""

    __slots__ = ("account", "cost", "floor", "is_over", "tenant")

    def __init__(self, tenant: str, account: _Account) -> None:
        self.tenant = tenant
        self.account = account
        self.floor = account.floor
        self.cost = 0.0
        self.is_over = False


class _Account:
    """The tags of a tenant.

    Attributes:
        finish: The finish tag of the last item before those of ``begun``.
        begun: Its items in progress and, behind the oldest of them, those that ended, in the order of their starts;
            one stands for neighbours that ended.
        floor: The virtual time when its next item came.
    """

    __slots__ = ("begun", "finish", "floor")

    def __init__(self, now: float) -> None:
        self.finish = self.floor = now
        self.begun: deque[Begun] = deque()

    def tag(self) -> float:
        """The start tag of its next item."""
        tag = self.finish
        for item in self.begun:
            tag = max(tag, item.floor) + item.cost
        return tag if tag > self.floor else self.floor

    def end(self) -> None:
        """Finish what has ended up to the oldest item in progress, and make one of neighbours that ended behind it.

        Or else there would be ever more behind an item that takes long, and each tag goes through all.
        """
        while self.begun and self.begun[0].is_over:
            first = self.begun.popleft()
            self.finish = max(self.finish, first.floor) + first.cost
        if len(self.begun) > 2:  # in progress, ended, ended
            begun, self.begun = self.begun, deque()
            for item in begun:
                last = self.begun[-1] if self.begun else item
                if last is not item and last.is_over and item.is_over:
                    last.floor = max(last.floor, item.floor - last.cost)
                    last.cost += item.cost
                else:
                    self.begun.append(item)


class Shares:
    """The virtual time and the accounts of one server. For one event loop.

    Args:
        weight_of: The weight of a tenant, above 0.
    """

    def __init__(self, weight_of: Callable[[str], float]) -> None:
        self._weight_of = weight_of
        self._now = 0.0
        self._accounts: dict[str, _Account] = {}
        self._many = _MANY_ACCOUNTS
        self._present = 0  # items that wait or are in progress

    def come(self) -> None:
        """Count an item that will wait or begin."""
        self._present += 1

    def go(self) -> None:
        """Count an item that ended, or waits no longer."""
        self._present -= 1
        if not self._present:
            # The virtual time is that of the highest finish tag, which is the zero of the next.
            self._now = 0.0
            self._accounts = {}

    def enter(self, tenant: str) -> float:
        """The start tag of a tenant's next item, which competes from now on."""
        account = self._accounts.get(tenant) or self._opened(tenant)
        account.floor = self._now
        return account.tag()

    def tag(self, tenant: str) -> float:
        """The start tag of a tenant's next item, which has entered."""
        account = self._accounts.get(tenant)
        return self._now if account is None else account.tag()  # a forgotten one was not beyond it

    def begin(self, tenant: str) -> Begun:
        """Begin the tenant's next item; ``end`` must follow."""
        account = self._accounts.get(tenant) or self._opened(tenant)
        begun = Begun(tenant, account)
        if (tag := account.tag()) > self._now:
            self._now = tag
        account.begun.append(begun)
        return begun

    def end(self, item: Begun, seconds: float) -> None:
        """End an item that took so much processor time."""
        item.cost = seconds / self._weight_of(item.tenant)
        item.is_over = True
        item.account.end()
        self.go()

    def charge(self, tenant: str, seconds: float) -> None:
        """Charge a tenant processor time of an item that has ended already; nothing while nobody wants the server."""
        if self._present:
            account = self._accounts.get(tenant) or self._opened(tenant)
            since = account.finish if account.begun else max(account.finish, self._now)
            account.finish = since + seconds / self._weight_of(tenant)

    def _opened(self, tenant: str) -> _Account:
        if len(self._accounts) >= self._many:
            self._accounts = {
                name: each for name, each in self._accounts.items() if each.begun or each.tag() > self._now
            }
            self._many = max(_MANY_ACCOUNTS, 2 * len(self._accounts))
        account = self._accounts[tenant] = _Account(self._now)
        return account


class FairQueue(Generic[Item]):
    """Items that wait for a server: first in, first out for each tenant, and the tenants by their tags.

    Args:
        shares: The accounts of the server.
    """

    def __init__(self, shares: Shares) -> None:
        self._shares = shares
        self._items: dict[str, deque[Item]] = {}
        # An entry for each tenant that waits. Tags only grow, so that an entry may be too low, but never too high.
        self._order: list[tuple[float, int, str]] = []
        self._arrivals = itertools.count()  # of two equal tags the older entry goes first
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def is_of_others(self, tenant: str) -> bool:
        """Whether another tenant has items that wait."""
        return any(items and name != tenant for name, items in self._items.items())

    def push(self, tenant: str, item: Item) -> None:
        """Append an item of a tenant."""
        self._shares.come()
        items = self._items.get(tenant)
        if items is None:
            items = self._items[tenant] = deque()
            self._order_by(tenant, self._shares.enter(tenant))
        elif not items:  # all were removed; its entry is there
            self._shares.enter(tenant)
        items.append(item)
        self._size += 1

    def pop(self, may_begin: Callable[[str], bool] = lambda _: True) -> tuple[Begun, Item] | None:
        """Remove and begin the next item; None if no tenant that has one may begin it. ``Shares.end`` must follow."""
        held: list[tuple[int, str]] = []
        found = None
        while self._order and found is None:
            tag, arrival, tenant = heapq.heappop(self._order)
            if not self._items[tenant]:  # all were removed
                del self._items[tenant]
            elif (present := self._shares.tag(tenant)) > tag:  # it grew meanwhile
                heapq.heappush(self._order, (present, arrival, tenant))
            elif may_begin(tenant):
                found = self._shares.begin(tenant), self._take(tenant)
            else:
                held.append((arrival, tenant))
        for arrival, tenant in held:
            heapq.heappush(self._order, (self._shares.enter(tenant), arrival, tenant))
        return found

    def remove(self, tenant: str, item: Item) -> None:
        """Remove an item if it still waits."""
        items = self._items.get(tenant)
        if items is not None and item in items:
            items.remove(item)  # its entry in the order goes with the tenant's next turn
            self._shrink()
            self._shares.go()

    def _take(self, tenant: str) -> Item:
        items = self._items[tenant]
        item = items.popleft()
        if items:
            self._order_by(tenant, self._shares.tag(tenant))
        else:
            del self._items[tenant]
        self._shrink()
        return item

    def _shrink(self) -> None:
        self._size -= 1
        if not self._size:  # entries of tenants whose items were removed: their tags may begin at zero again
            self._items.clear()
            self._order.clear()

    def _order_by(self, tenant: str, tag: float) -> None:
        heapq.heappush(self._order, (tag, next(self._arrivals), tenant))
