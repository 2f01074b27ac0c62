"""Lookup of versions that requests name: read from the registry and cached."""

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
"""Lifetime of a cached version. Archiving a version takes effect within this time."""
UNKNOWN_FOR_S = 1.0
"""Lifetime of a cached absence: short, so that a new version is found; it protects the registry from wrong names."""
MAX_ASKING = 64
"""Concurrent lookups of all tenants: about one second of work for the lookup threads."""
MAX_ASKING_PER_TENANT = 8
"""Concurrent lookups of one tenant, so that one tenant can't delay the others."""
_REMEMBERED = 10_000


class VersionLookup:
    """Looks versions up on a thread; concurrent lookups of one version share a call. For one event loop.

    Args:
        find: Reads the registry; raises ``ModelNotFoundError`` or ``RegistryUnavailableError``.
        executor: Runs ``find``.
        clock: Monotonic, in seconds.
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
            ModelNotFoundError: The version does not exist or is archived.
            RegistryUnavailableError: The registry can't be reached.
            QueueFullError: Too many lookups are in progress.
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
        # Shielded: a caller that is cancelled must not cancel the lookup for the others.
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
