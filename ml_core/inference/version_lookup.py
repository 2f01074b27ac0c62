"""Versions that a request asks for by name: resolved in the registry, remembered for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor

from cachetools import TTLCache

from ml_core.domain.version import ServableVersion
from ml_core.exceptions import ModelNotFoundError
from ml_core.ids import VersionRef
from ml_core.inference.gate import TenantGate

KNOWN_FOR_S = 60.0
"""A version never changes, but it may be archived: that takes effect within this time."""
UNKNOWN_FOR_S = 1.0
"""Short, so that a version just registered is found; long enough that wrong names don't load the registry."""
MAX_ASKING = 64
"""Questions of all tenants that wait for the registry: about a second's worth for the threads that ask it."""
MAX_ASKING_PER_TENANT = 8
"""Questions of one tenant: who asks for ever new names waits for himself only."""
_REMEMBERED = 10_000


class VersionLookup:
    """Resolves on a thread; equal questions that overlap share one. For one event loop.

    Args:
        find: Asks the registry; raises ``ModelNotFoundError`` or ``RegistryUnavailableError``.
        executor: Where it is asked.
        clock: Seconds, monotonic.
    """

    def __init__(
        self, find: Callable[[VersionRef], ServableVersion], executor: Executor, clock: Callable[[], float]
    ) -> None:
        self._find = find
        self._executor = executor
        self._known: TTLCache[VersionRef, ServableVersion] = TTLCache(_REMEMBERED, KNOWN_FOR_S, clock)
        self._unknown: TTLCache[VersionRef, ModelNotFoundError] = TTLCache(_REMEMBERED, UNKNOWN_FOR_S, clock)
        self._asking: dict[VersionRef, asyncio.Future[ServableVersion]] = {}
        self._gate = TenantGate("version look-ups", total=MAX_ASKING, per_tenant=MAX_ASKING_PER_TENANT)

    async def find(self, ref: VersionRef) -> ServableVersion:
        """The version of that name.

        Raises:
            ModelNotFoundError: There is no such version, or it is archived.
            RegistryUnavailableError: The registry can't be reached.
            QueueFullError: Too many questions wait for it.
        """
        known = self._known.get(ref)
        if known is not None:
            return known
        unknown = self._unknown.get(ref)
        if unknown is not None:
            raise ModelNotFoundError(unknown.message, remedy=unknown.remedy, tenant_id=unknown.tenant_id)
        asking = self._asking.get(ref)
        if asking is None:
            self._gate.enter(ref.tenant_id)
            asking = asyncio.get_running_loop().run_in_executor(self._executor, self._find, ref)
            self._asking[ref] = asking
            asking.add_done_callback(lambda done: self._remember(ref, done))
        # Shielded: that one caller leaves must not cancel what others wait for.
        return await asyncio.shield(asking)

    def _remember(self, ref: VersionRef, done: asyncio.Future[ServableVersion]) -> None:
        del self._asking[ref]
        self._gate.leave(ref.tenant_id)
        if done.cancelled():
            return
        error = done.exception()
        if error is None:
            self._known[ref] = done.result()
        elif isinstance(error, ModelNotFoundError):
            self._unknown[ref] = error
