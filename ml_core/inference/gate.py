"""A bound on what goes on at the same time, with a smaller one for each tenant so that none takes all of it."""

from __future__ import annotations

from ml_core.exceptions import QueueFullError


class TenantGate:
    """Counts what each tenant has going on, and refuses what is over a bound. For one event loop.

    Args:
        what: What is counted, in the plural, for the message.
        total: Of all tenants together.
        per_tenant: Of one tenant.
    """

    def __init__(self, what: str, *, total: int, per_tenant: int) -> None:
        self._what = what
        self._max_total = total
        self._max_per_tenant = per_tenant
        self._total = 0
        self._by_tenant: dict[str, int] = {}

    def __len__(self) -> int:
        """What goes on now."""
        return self._total

    def enter(self, tenant: str) -> None:
        """Count one more; ``leave`` must follow.

        Raises:
            QueueFullError: There are as many as there may be.
        """
        mine = self._by_tenant.get(tenant, 0)
        if mine >= self._max_per_tenant or self._total >= self._max_total:
            raise self._full(tenant, mine)
        self._by_tenant[tenant] = mine + 1
        self._total += 1

    def leave(self, tenant: str) -> None:
        """One that was counted is over."""
        self._total -= 1
        mine = self._by_tenant[tenant] - 1
        if mine:
            self._by_tenant[tenant] = mine
        else:
            del self._by_tenant[tenant]

    def _full(self, tenant: str, mine: int) -> QueueFullError:
        # Of the total only that it is reached: a tenant must not learn how much others ask.
        if mine >= self._max_per_tenant:
            message = f"This replica has {mine} {self._what} of the tenant already."
        else:
            message = f"This replica has as many {self._what} as it can take."
        return QueueFullError(
            message,
            remedy="Try again after the pause that Retry-After names, or add replicas.",
            tenant_id=tenant,
            retry_after_s=1,
        )
