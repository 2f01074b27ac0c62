"""Routing: the target and the rows of a request, and the loaded version that answers it, selected once per request.

A request that names a version gets that version. Any other request is for a pointer: its canary, once it has passed
its self-test in this replica, answers the keys of its share; the stable version answers the others.
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from cachetools import TTLCache

from ml_core.domain.assignment import CanaryRollout
from ml_core.domain.columns import Columns
from ml_core.domain.rollout import Side, choose
from ml_core.domain.signature import Signature
from ml_core.domain.values import category_text
from ml_core.domain.version import SHARED_BYTES, ServableVersion
from ml_core.exceptions import (
    InvalidNameError,
    MLFrameworkError,
    ModelLoadError,
    ModelNotFoundError,
    ModelNotReadyError,
    RegistryUnavailableError,
    SchemaOutOfDateError,
)
from ml_core.ids import EnvironmentName, ModelId, TenantId, VersionId, VersionRef
from ml_core.inference.gate import TenantGate
from ml_core.inference.model_table import ModelTable, Resident

logger = logging.getLogger(__name__)

DEFAULT_ENVIRONMENT = "production"
KNOWN_FOR_S = 60.0
"""Lifetime of a cached version. Archiving a version takes effect within this time."""
UNKNOWN_FOR_S = 1.0
"""Lifetime of a cached absence: short, so that a new version is found; it protects the registry from wrong names."""
MAX_ASKING = 64
"""Concurrent lookups of all tenants: about one second of work for the lookup threads."""
MAX_ASKING_PER_TENANT = 8
"""Concurrent lookups of one tenant, so that one tenant can't delay the others."""
_REMEMBERED = 10_000
_REMEMBERED_BYTES = 128 * 2**20
_VERSION_BYTES = SHARED_BYTES  # of a usual version at most
# How long before the deadline a request that waits for a load gets "not ready" instead of a timeout.
_EXPLAIN_BEFORE_S = 0.02


@dataclass(slots=True)
class Target:
    """The target of a request: a named version, or the rollout of an environment. Names are unparsed.

    Attributes:
        tenant: The tenant.
        model: The model.
        environment: The environment whose rollout answers.
        version: The version that answers instead of the environment's.
        key: The key for the choice of a canary; None: the value of its sticky column.
        request_id: The key if the request has neither.
        is_only: Whether no other request of the tenant is in progress.
    """

    tenant: str
    model: str
    environment: str = DEFAULT_ENVIRONMENT
    version: str | None = None
    key: str | None = None
    request_id: str = ""
    is_only: bool = False

    @property
    def pointer(self) -> tuple[str, str, str]:
        """The key of the pointer in the model table."""
        return (self.tenant, self.model, self.environment)

    def version_ref(self) -> VersionRef:
        """Parse the name of the version.

        Raises:
            ModelNotFoundError: A name is invalid.
        """
        try:
            return VersionRef(TenantId(self.tenant), ModelId(self.model), VersionId(self.version or ""))
        except InvalidNameError as error:
            raise no_such_name(error) from None


class Table(Protocol):
    """The rows of a request before a version is selected."""

    @property
    def rows(self) -> int:
        """The number of rows."""

    @property
    def size(self) -> int:
        """Bytes of the request body; an upper bound of the characters of its strings."""

    def columns(self, signature: Signature) -> Columns:
        """The canonical columns, or ``SignatureMismatchError``."""

    def first_value(self, column: str, signature: Signature) -> str | None:
        """The text of a column in the first row; None if the row has no such value.

        Args:
            column: The column; it need not be in the signature.
            signature: The order of the columns, for rows without names.
        """


def key_text(value: Any) -> str | None:
    """Convert a value to the key of a request: ``7``, ``7.0`` and ``"7"`` are equal. None if missing or no scalar."""
    if value is None or isinstance(value, list | dict) or value != value:
        return None
    return category_text(value) or None


def no_such_name(error: InvalidNameError) -> ModelNotFoundError:
    """The error for an invalid name in a URL: 404, as for a valid name that does not exist."""
    return ModelNotFoundError(error.message, remedy=error.remedy)


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
        self._known: TTLCache[VersionRef, ServableVersion] = TTLCache(
            _REMEMBERED_BYTES, KNOWN_FOR_S, clock, getsizeof=lambda version: _VERSION_BYTES + version.long_bytes
        )
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
            self._unknown[ref] = copy.copy(error)  # without the traceback, which keeps the request and its body alive


class Routed(NamedTuple):
    """The model that answers a request, its side of the rollout, and the shadow that is asked after a stable answer."""

    resident: Resident
    side: Side
    shadow: ServableVersion | None = None


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
        pointer = self._table.pointer(target.pointer) if target.version is None else None
        if pointer is None:
            return Routed(await self.acquire(target, deadline), Side.STABLE)
        canary = pointer.canary
        if canary is not None and _side(target, rows, canary) is Side.CANARY:
            with suppress(ModelLoadError):
                return Routed(await self._loaded(canary.version, deadline), Side.CANARY)
        return Routed(await self.acquire(target, deadline), Side.STABLE, pointer.wanted.shadow)

    async def acquire(self, target: Target, deadline: float) -> Resident:
        """The model of the named version, or of the pointer's stable version.

        Raises:
            ModelNotFoundError, ModelNotReadyError, RegistryUnavailableError: As for ``route``.
        """
        if target.version is not None:
            version = await self._find(target.version_ref())
            try:
                return await self._loaded(version, deadline)
            except ModelLoadError as error:
                raise _not_loadable(error) from error
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
        pointer = self._table.pointer(target.pointer)
        return self._wanted(target) if pointer is None else pointer.serving or pointer.wanted.stable

    async def _loaded(self, version: ServableVersion, deadline: float) -> Resident:
        """The model of a version, loaded again if it was evicted, or ``ModelLoadError``."""
        resident = self._table.acquire(version)
        while resident is None:
            await self._load(version, deadline)
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
                retry_after_s=1,
                **version.ref.attributes,
            )
        loading.result()


def _side(target: Target, rows: Table, canary: CanaryRollout) -> Side:
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
