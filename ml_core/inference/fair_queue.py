"""Start-time fair queueing (Goyal, Vin and Cheng, 1996) of tenants over the processor time that they use.

Each tenant has a tag: the virtual time at which its next item starts. Processor time moves its tag forward by seconds
divided by its weight, and whoever's tag is lowest is next. The virtual time is that of the item that began last, and no
tag lies before it: a tenant that was idle has no credit, and one that used an idle replica owes nothing.

A cost may be charged after its item, so a tenant is ahead of its share by the items that it has in progress at most.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")

# Once there are so many tags, half of them are forgotten.
_MANY_TAGS = 1_000


class Shares:
    """The virtual time, and the tags of tenants. For one event loop.

    Args:
        weight_of: The weight of a tenant, above 0.
    """

    def __init__(self, weight_of: Callable[[str], float]) -> None:
        self._weight_of = weight_of
        self._now = 0.0
        self._tags: dict[str, float] = {}

    def enter(self, tenant: str) -> float:
        """The tag of a tenant that has nothing waiting, which is brought up to the virtual time."""
        tag = self._tags.get(tenant, -1.0)
        if tag < self._now:
            if len(self._tags) >= _MANY_TAGS:
                self._forget()
            tag = self._tags[tenant] = self._now
        return tag

    def _forget(self) -> None:
        # The half that used least is brought up to the virtual time, which is then that of the median.
        self._now = max(self._now, sorted(self._tags.values())[_MANY_TAGS // 2])
        self._tags = {tenant: tag for tenant, tag in self._tags.items() if tag > self._now}

    def tag(self, tenant: str) -> float:
        """The tag of a tenant that has entered."""
        return self._tags.get(tenant, self._now)

    def begin(self, tag: float) -> None:
        """Note that an item with this tag begins."""
        self._now = max(self._now, tag)

    def begin_at_once(self, tenant: str) -> None:
        """Note that an item begins which did not wait; its cost is charged as that of others is."""
        self.begin(self.enter(tenant))

    def charge(self, tenant: str, seconds: float) -> None:
        """Charge processor time to a tenant."""
        self._tags[tenant] = self.tag(tenant) + seconds / self._weight_of(tenant)


class FairQueue(Generic[Item]):
    """Items that wait: first in, first out for each tenant, and the tenants by their tags.

    Args:
        shares: The tags, which other queues may share.
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

    def push(self, tenant: str, item: Item) -> None:
        """Append an item of a tenant."""
        items = self._items.get(tenant)
        if items is None:
            items = self._items[tenant] = deque()
            self._order_by(tenant, self._shares.enter(tenant))
        items.append(item)
        self._size += 1

    def pop(self, may_begin: Callable[[str], bool] = lambda _: True) -> tuple[str, Item] | None:
        """Remove the next item, and note that it begins; None if no tenant that has one may begin it."""
        held: list[tuple[float, int, str]] = []
        found = None
        while self._order and found is None:
            tag, arrival, tenant = heapq.heappop(self._order)
            if (present := self._shares.tag(tenant)) > tag:  # charged meanwhile
                heapq.heappush(self._order, (present, arrival, tenant))
            elif may_begin(tenant):
                self._shares.begin(tag)
                found = tenant, self._take(tenant)
            else:
                held.append((tag, arrival, tenant))
        for entry in held:
            heapq.heappush(self._order, entry)
        return found

    def _take(self, tenant: str) -> Item:
        items = self._items[tenant]
        item = items.popleft()
        self._size -= 1
        if items:
            self._order_by(tenant, self._shares.tag(tenant))
        else:
            del self._items[tenant]
        return item

    def _order_by(self, tenant: str, tag: float) -> None:
        heapq.heappush(self._order, (tag, next(self._arrivals), tenant))
