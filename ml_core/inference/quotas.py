"""Quotas of requests and rows, which a replica enforces by token buckets.

A tenant's rates are those of all live replicas of its cell together: each replica admits its part, an equal one, since
the ingress spreads requests evenly. A bucket holds a whole burst in each replica, so that a request which fits is
admitted whatever the number of replicas is.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import NamedTuple

from ml_core.domain.tenant_policies import PredictionQuota
from ml_core.exceptions import Action, QuotaExceededError, RequestTooLargeError
from ml_core.inference.assignment import Assignment
from ml_core.observability import NO_HOOKS, Hooks
from ml_core.settings import ServingSettings

_NS = 1_000_000_000


class TokenBucket:
    """Admits at most ``rate * t + size`` tokens in any ``t`` seconds.

    It is the generic cell rate algorithm on whole nanoseconds, so that a wait is exact: after it the tokens are there,
    a nanosecond sooner they are not.

    Args:
        rate: Tokens per second.
        size: Tokens that a full bucket holds, at least 1. It is full at the beginning.
    """

    __slots__ = ("_full_at", "_ns", "size")

    def __init__(self, rate: float, size: int) -> None:
        self.size = size
        self._ns = math.ceil(_NS / rate)  # per token
        self._full_at = 0

    def take(self, tokens: int, now_ns: int) -> int:
        """Take tokens if they are there.

        Args:
            tokens: How many, at most ``size``.
            now_ns: The time of a clock that never goes back, nanoseconds.

        Returns:
            Nanoseconds until they are there; 0: they were taken.
        """
        full_at = max(self._full_at, now_ns) + tokens * self._ns
        wait_ns = full_at - now_ns - self.size * self._ns
        if wait_ns > 0:
            return wait_ns
        self._full_at = full_at
        return 0

    def go_on_from(self, before: TokenBucket, now_ns: int) -> None:
        """Lack as many tokens as another bucket of this size lacks."""
        missing_ns = max(0, before._full_at - now_ns)
        self._full_at = now_ns + math.ceil(missing_ns * self._ns / before._ns)


class _Limit(NamedTuple):
    """A rate, its setting, and the bucket that enforces the replica's part of it."""

    name: str
    rate: float
    bucket: TokenBucket


class _Buckets(NamedTuple):
    """The limits of a tenant, and what they were made of."""

    quota: PredictionQuota
    replicas: int
    requests: _Limit | None
    rows: _Limit | None


class Quotas:
    """The quotas of all tenants of a replica. For one event loop.

    Args:
        assignment: The quotas of tenants, and the number of replicas.
        limits: The rates of tenants that have none of their own.
        hooks: Called for each refusal.
        clock_ns: Never goes back, nanoseconds.
    """

    def __init__(
        self,
        assignment: Assignment,
        limits: ServingSettings,
        hooks: Hooks = NO_HOOKS,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._assignment = assignment
        self._defaults = limits.requests_per_s, limits.rows_per_s
        self._hooks = hooks
        self._clock_ns = clock_ns
        self._buckets: dict[str, _Buckets] = {}

    def take_request(self, tenant: str) -> None:
        """Count a request.

        Raises:
            QuotaExceededError: It exceeds the quota; says after what time it does not.
        """
        if self._assignment.quota(tenant).requests_per_s is None and self._defaults[0] is None:
            return
        limit = self._of(tenant).requests
        if limit is not None and (wait_ns := limit.bucket.take(1, self._clock_ns())):
            self._hooks.request_refused("quota_requests")
            raise _exceeded(tenant, limit, wait_ns)

    def take_rows(self, tenant: str, rows: int) -> None:
        """Count the rows of a request.

        Raises:
            QuotaExceededError: They exceed the quota; says after what time they do not.
            RequestTooLargeError: They are more than a burst, so that waiting is of no use.
        """
        if self._assignment.quota(tenant).rows_per_s is None and self._defaults[1] is None:
            return
        limit = self._of(tenant).rows
        if limit is None:
            return
        if rows > limit.bucket.size:
            self._hooks.request_refused("quota_rows")
            raise RequestTooLargeError(
                f"The request has {rows:,} rows; the tenant's quota permits {limit.bucket.size:,} at once.",
                remedy="Send fewer rows per request, or have the platform's operator raise burst_s or rows_per_s.",
                action=Action.of("tenants.quota", tenant=tenant),
                limit=limit.bucket.size,
                actual=rows,
            )
        if wait_ns := limit.bucket.take(rows, self._clock_ns()):
            self._hooks.request_refused("quota_rows")
            raise _exceeded(tenant, limit, wait_ns)

    def _of(self, tenant: str) -> _Buckets:
        quota, replicas = self._assignment.quota(tenant), self._assignment.replicas
        found = self._buckets.get(tenant)
        if found is None or found.quota is not quota or found.replicas != replicas:
            if len(self._buckets) >= 2 * self._assignment.tenant_count + 100:
                self._buckets = {}  # most are of deleted tenants
            before, found = found, self._made(quota, replicas)
            self._buckets[tenant] = found
            # Only an operator's change fills buckets: a burst may be an hour's, and replicas come and go.
            if before is not None and before.quota == quota:
                now_ns = self._clock_ns()
                for limit, old in ((found.requests, before.requests), (found.rows, before.rows)):
                    if limit is not None and old is not None:
                        limit.bucket.go_on_from(old.bucket, now_ns)
        return found

    def _made(self, quota: PredictionQuota, replicas: int) -> _Buckets:
        rates = (quota.requests_per_s, quota.rows_per_s)
        requests, rows = (default if own is None else own for own, default in zip(rates, self._defaults, strict=True))
        return _Buckets(
            quota,
            replicas,
            _limit("requests_per_s", requests, quota.burst_s, replicas),
            _limit("rows_per_s", rows, quota.burst_s, replicas),
        )


def _limit(name: str, rate: float | None, burst_s: float, replicas: int) -> _Limit | None:
    if rate is None:
        return None
    return _Limit(name, rate, TokenBucket(rate / replicas, max(1, int(round(rate * burst_s, 6)))))


def _exceeded(tenant: str, limit: _Limit, wait_ns: int) -> QuotaExceededError:
    wait_s = math.ceil(wait_ns / 1e6) / 1e3
    return QuotaExceededError(
        f"The tenant's quota {limit.name} of {limit.rate:,g} is used up for {wait_s:,g} s.",
        remedy="Try again after the pause that Retry-After names, or have the platform's operator raise the quota.",
        tenant_id=tenant,
        quota=limit.name,
        limit=limit.rate,
        left=0,
        retry_after_s=wait_s,
    )
