"""Routing: selects the loaded version that answers a request, once per request.

A request that names a version gets that version. Any other request is for a pointer: its canary, once it has passed
its self-test in this replica, answers the keys of its share; the stable version answers the others.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor
from typing import NamedTuple

from cachetools import TTLCache

from ml_core.domain.rollout import Side, choose
from ml_core.domain.version import ServableVersion
from ml_core.exceptions import (
    InvalidNameError,
    MLFrameworkError,
    ModelLoadError,
    ModelNotFoundError,
    ModelNotReadyError,
    RegistryUnavailableError,
    SchemaOutOfDateError,
)
from ml_core.ids import EnvironmentName, ModelId, VersionRef
from ml_core.inference.gate import TenantGate
from ml_core.inference.model_table import ModelTable
from ml_core.inference.pointers import ReadyCanary
from ml_core.inference.residents import Resident
from ml_core.inference.target import Table, Target, no_such_name

logger = logging.getLogger(__name__)

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


# How long before the deadline a request that waits for a load gets "not ready" instead of a timeout.
_EXPLAIN_BEFORE_S = 0.02


class Routed(NamedTuple):
    """The model that answers a request, and its side of the rollout. Release the model afterwards."""

    resident: Resident
    side: Side


class Router:
    """Selects and loads the version that answers a request. For one event loop.

    Args:
        table: Pointers and models.
        versions: Looks up versions that no pointer names.
    """

    def __init__(self, table: ModelTable, versions: VersionLookup) -> None:
        self._table = table
        self._versions = versions

    async def route(self, target: Target, rows: Table, deadline: float) -> Routed:
        """Select the model that answers a request; release its ``resident`` in the model table afterwards.

        Args:
            target: The target of the request.
            rows: The rows, for the sticky column of a canary.
            deadline: On the event loop's clock, seconds.

        Raises:
            ModelNotFoundError: The model, pointer or version does not exist.
            ModelNotReadyError: The version was not loaded before the deadline, or its load failed.
            RegistryUnavailableError: A version that no pointer names can't be looked up.
        """
        canary = None if target.version is not None else self._table.canary(target.pointer)
        if canary is not None and _side(target, rows, canary) is Side.CANARY:
            resident = await self._acquire_canary(canary.version, deadline)
            if resident is not None:
                return Routed(resident, Side.CANARY)
        return Routed(await self.acquire(target, deadline), Side.STABLE)

    async def acquire(self, target: Target, deadline: float) -> Resident:
        """The model of the named version, or of the pointer's stable version.

        Raises:
            ModelNotFoundError, ModelNotReadyError, RegistryUnavailableError: As for ``route``.
        """
        if target.version is not None:
            return await self._acquire_version(target.version_ref(), deadline)
        resident = self._table.acquire_pointer(target.pointer)
        while resident is None:  # the pointer may move, or the model be evicted, after each load
            version = self._wanted(target)
            try:
                await self._load(version, deadline)
            except ModelLoadError:
                logger.debug("%s failed to load for a request.", version.ref)  # ``_wanted`` selects another or raises
            resident = self._table.acquire_pointer(target.pointer)
        return resident

    async def describe(self, target: Target) -> ServableVersion:
        """The version that ``acquire`` would load, without loading it.

        Raises:
            ModelNotFoundError, RegistryUnavailableError: As for ``route``.
        """
        if target.version is not None:
            return await self._find(target.version_ref())
        serving = self._table.serving(target.pointer)
        wanted = self._table.wanted(target.pointer)
        if serving is not None:
            return serving
        return wanted.stable if wanted is not None else self._wanted(target)

    async def _acquire_canary(self, version: ServableVersion, deadline: float) -> Resident | None:
        """The model of a canary, loaded again if it was evicted; None if the load fails."""
        resident = self._table.acquire(version)
        while resident is None:
            try:
                await self._load(version, deadline)
            except ModelLoadError:
                return None
            resident = self._table.acquire(version)
        return resident

    def _wanted(self, target: Target) -> ServableVersion:
        try:
            ModelId(target.model)
            EnvironmentName(target.environment)
            return self._table.target(target.pointer)
        except InvalidNameError as error:
            raise no_such_name(error) from None
        except ModelLoadError as error:
            raise _not_loadable(error) from error

    async def _acquire_version(self, ref: VersionRef, deadline: float) -> Resident:
        version = await self._find(ref)
        resident = self._table.acquire(version)
        while resident is None:
            try:
                await self._load(version, deadline)
            except ModelLoadError as error:
                raise _not_loadable(error) from error
            resident = self._table.acquire(version)
        return resident

    async def _find(self, ref: VersionRef) -> ServableVersion:
        named = self._table.named(ref)
        if named is not None:
            return named
        try:
            return await self._versions.find(ref)
        except (RegistryUnavailableError, SchemaOutOfDateError) as error:
            logger.warning("%s can't be looked up: %s", ref, error)
            raise RegistryUnavailableError(
                "The registry can't be reached, and no environment points to this version.",
                remedy="Name an environment instead of a version, or try again.",
                tenant_id=ref.tenant_id,
            ) from error

    async def _load(self, version: ServableVersion, deadline: float) -> None:
        loading = asyncio.wrap_future(self._table.request_load(version))
        # Retrieves the exception of a load that ends after the deadline, which asyncio would log otherwise.
        loading.add_done_callback(lambda done: done.cancelled() or done.exception())
        remaining_s = deadline - asyncio.get_running_loop().time() - _EXPLAIN_BEFORE_S
        done, _ = await asyncio.wait([loading], timeout=max(0.0, remaining_s))
        if not done:
            raise ModelNotReadyError(
                f"Version {version.ref.version} of model {version.ref.model_id} is being loaded.",
                remedy="Try again in a moment.",
                tenant_id=version.ref.tenant_id,
                model_id=version.ref.model_id,
                version=version.ref.version,
                retry_after_s=1,
            )
        loading.result()


def _side(target: Target, rows: Table, canary: ReadyCanary) -> Side:
    key = target.key
    if key is None and canary.sticky is not None:
        key = rows.first_value(canary.sticky, canary.version.signature)
    return choose(target.pointer, canary.percent, key or target.request_id)


def _not_loadable(error: MLFrameworkError) -> ModelNotReadyError:
    names = error.attributes()
    model, version = names.get("model_id"), names.get("version")
    return ModelNotReadyError(
        f"Version {version} of model {model} can't be loaded ({error.code}).",
        remedy="The load is retried automatically. To answer now, promote another version or roll back.",
        tenant_id=error.tenant_id,
        details={"cause": error.code},
        model_id=model,
        version=version,
        retry_after_s=5,
    )
