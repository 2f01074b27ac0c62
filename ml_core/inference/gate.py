"""A limit of concurrent operations, with a smaller limit per tenant."""

from __future__ import annotations

from ml_core.exceptions import QueueFullError


class TenantGate:
    """Limits concurrent operations in total and per tenant. For one event loop.

    Args:
        what: The name of the operations, in the plural, for the message.
        total: The limit for all tenants together.
        per_tenant: The limit for one tenant.
    """

    def __init__(self, what: str, *, total: int, per_tenant: int) -> None:
        self._what = what
        self._max_total = total
        self._max_per_tenant = per_tenant
        self._total = 0
        self._by_tenant: dict[str, int] = {}

    def __len__(self) -> int:
        """The number of operations in progress."""
        return self._total

    @property
    def tenants(self) -> int:
        """The number of tenants that have operations in progress."""
        return len(self._by_tenant)

    def of(self, tenant: str) -> int:
        """The number of a tenant's operations in progress."""
        return self._by_tenant.get(tenant, 0)

    def enter(self, tenant: str) -> None:
        """Begin an operation; ``leave`` must follow.

        Raises:
            QueueFullError: A limit is reached.
        """
        mine = self._by_tenant.get(tenant, 0)  # not by a call: twice in each request
        if mine >= self._max_per_tenant or self._total >= self._max_total:
            raise self._full(tenant, mine)
        self._by_tenant[tenant] = mine + 1
        self._total += 1

    def leave(self, tenant: str) -> None:
        """End an operation."""
        self._total -= 1
        mine = self._by_tenant[tenant] - 1
        if mine:
            self._by_tenant[tenant] = mine
        else:
            del self._by_tenant[tenant]  # so that the dictionary does not grow with the number of tenants

    def _full(self, tenant: str, mine: int) -> QueueFullError:
        # The total is not shown: a tenant must not learn the load of others.
        if mine >= self._max_per_tenant:
            message = f"The tenant has {mine} {self._what} in this replica, which is the limit."
        else:
            message = f"This replica has reached its limit of {self._what}."
        return QueueFullError(
            message,
            remedy="Try again after the pause that Retry-After names, or add replicas.",
            tenant_id=tenant,
            retry_after_s=1,
        )
