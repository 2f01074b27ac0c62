"""The prediction service: who asks, which version answers, and the answer within the deadline. Knows no web framework.

A request takes one version once and keeps it to its end, so that an answer never mixes two.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar, TypeVarTuple
from weakref import WeakKeyDictionary

from ml_core.domain.api_key import KeyRecord, Scope
from ml_core.domain.version import ServableVersion
from ml_core.exceptions import (
    InvalidNameError,
    MLFrameworkError,
    ModelLoadError,
    ModelNotReadyError,
    PermissionDeniedError,
    RegistryUnavailableError,
    SchemaOutOfDateError,
    TenantNotFoundError,
)
from ml_core.ids import EnvironmentName, ModelId, VersionRef
from ml_core.inference.assignment import Assignment
from ml_core.inference.batcher import Answer, Batcher
from ml_core.inference.follower import AssignmentFollower
from ml_core.inference.model_table import ModelTable
from ml_core.inference.residents import Resident
from ml_core.inference.target import Table, Target, no_such_name
from ml_core.inference.version_lookup import VersionLookup
from ml_core.settings import ServingSettings

logger = logging.getLogger(__name__)

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# Reading a value costs about 0.3 µs: a larger table is read on a thread, so that other requests go on meanwhile.
_READ_ON_LOOP_VALUES = 5_000
# Likewise where few values are long strings, which are looked through.
_READ_ON_LOOP_BYTES = 256 * 1024
# A load that is still running this long before the deadline is answered with "not ready" rather than a bare timeout.
_EXPLAIN_BEFORE_S = 0.02
_LOOKUP_THREADS = 2


class Prediction(NamedTuple):
    """An answer and the version that gave it."""

    version: ServableVersion
    answer: Answer


class PredictionService:
    """Answers the requests of one cell on one event loop.

    Args:
        assignment: Tenants and keys.
        table: Pointers and models.
        find_version: Asks the registry for a version that no pointer names.
        limits: Bounds of queues and batches.
        follower: For health; None where nothing follows.
        thread_initializer: Runs first on each thread that predicts.
    """

    def __init__(
        self,
        assignment: Assignment,
        table: ModelTable,
        find_version: Callable[[VersionRef], ServableVersion],
        *,
        limits: ServingSettings,
        follower: AssignmentFollower | None = None,
        thread_initializer: Callable[[], None] | None = None,
    ) -> None:
        self.limits = limits
        self._assignment = assignment
        self._table = table
        self._follower = follower
        # Two pools, so that a registry that hangs does not take the threads of the models.
        self._predicting = ThreadPoolExecutor(os.cpu_count() or 1, "mlcore-predict", thread_initializer)
        self._looking_up = ThreadPoolExecutor(_LOOKUP_THREADS, "mlcore-lookup")
        self._versions = VersionLookup(find_version, self._looking_up, time.monotonic)
        self._batchers: WeakKeyDictionary[Resident, Batcher] = WeakKeyDictionary()

    # Who asks.

    def authorize(self, authorization: bytes | None, tenant: str, *scopes: Scope) -> KeyRecord:
        """Who sends a request to a tenant's URL, with one of the scopes.

        Raises:
            AuthenticationError: No key, or none that is valid.
            TenantNotFoundError: The key is another tenant's, whether or not the tenant in the URL exists.
            PermissionDeniedError: The key has none of the scopes.
            ModelNotReadyError: No key is known yet.
        """
        principal = self._assignment.principal(authorization)
        if principal.tenant_id != tenant:
            raise TenantNotFoundError(
                "There is no such tenant, or the key is not one of its keys.", remedy="Check the URL and the key."
            )
        if not any(principal.allows(scope) for scope in scopes):
            raise PermissionDeniedError(
                f"The key lacks the scope {' or '.join(scopes)}.",
                remedy="Use a key that has it (mlcore keys create --scope).",
                tenant_id=principal.tenant_id,
                scope=str(scopes[0]),
            )
        return principal

    # Answers.

    async def predict(self, target: Target, table: Table, *, proba: bool, deadline: float) -> Prediction:
        """Answer the rows of a request.

        Args:
            target: Which model.
            table: The rows.
            proba: Whether probabilities are wanted, where the model has them.
            deadline: On the event loop's clock, seconds. The caller bounds its wait by it as well.

        Raises:
            ModelNotFoundError: There is no such model, pointer or version.
            ModelNotReadyError: Its version is not loaded before the deadline, or can't be.
            SignatureMismatchError: A row does not fit.
            QueueFullError, DeadlineExceededError, PredictionError: See ``Batcher``.
            RegistryUnavailableError: A version that no pointer names can't be looked up now.
        """
        resident = await self._acquire(target, deadline)
        try:
            version = resident.model.version
            signature = version.signature
            if table.rows * len(signature.inputs) > _READ_ON_LOOP_VALUES or table.size > _READ_ON_LOOP_BYTES:
                columns = await self.on_thread(table.columns, signature)
            else:
                columns = table.columns(signature)
            batcher = self._batchers.get(resident) or self._batcher(resident)
            answer = await batcher.predict(columns, table.rows, size=table.size, proba=proba, deadline=deadline)
            return Prediction(version, answer)
        finally:
            self._table.release(resident)

    async def on_thread(self, function: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """What a function returns, called where models predict: for work that would hold up the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._predicting, function, *arguments)

    async def describe_version(self, target: Target) -> ServableVersion:
        """The version that would answer, without loading it.

        Raises:
            ModelNotFoundError, RegistryUnavailableError: As for ``predict``.
        """
        if target.version is not None:
            return await self._find(target.version_ref())
        serving = self._table.serving(target.pointer)
        wanted = self._table.wanted(target.pointer)
        if serving is not None:
            return serving
        return wanted.stable if wanted is not None else self._wanted(target)

    async def ensure_ready(self, target: Target, deadline: float) -> ServableVersion:
        """Load the version that answers, if it is not loaded.

        Raises:
            ModelNotFoundError, ModelNotReadyError, RegistryUnavailableError: As for ``predict``.
        """
        resident = await self._acquire(target, deadline)
        self._table.release(resident)
        return resident.model.version

    def _batcher(self, resident: Resident) -> Batcher:
        batcher = self._batchers[resident] = Batcher(
            resident.model,
            self._predicting,
            max_queued_rows=self.limits.max_queued_rows,
            max_batch_rows=self.limits.max_batch_rows,
        )
        return batcher

    async def _acquire(self, target: Target, deadline: float) -> Resident:
        if target.version is not None:
            return await self._acquire_version(target.version_ref(), deadline)
        resident = self._table.acquire_pointer(target.pointer)
        while resident is None:
            version = self._wanted(target)
            try:
                await self._load(version, deadline)
            except ModelLoadError:
                logger.debug("%s failed to load for a request.", version.ref)  # ``_wanted`` knows what is left to try
            resident = self._table.acquire_pointer(target.pointer)
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
                "The registry can't be reached now, and no environment points to this version.",
                remedy="Ask for an environment instead of a version, or try again.",
                tenant_id=ref.tenant_id,
            ) from error

    async def _load(self, version: ServableVersion, deadline: float) -> None:
        loading = asyncio.wrap_future(self._table.request_load(version))
        loading.add_done_callback(lambda done: done.cancelled() or done.exception())  # it may end after we left
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

    # Health.

    @property
    def is_ready(self) -> bool:
        """Whether requests can be answered: the assignment was read once."""
        return self._assignment.is_known

    def describe(self) -> dict[str, Any]:
        """What the cell serves and what failed, without the names of tenants and models: anybody may ask."""
        failures = [
            {"digest": failure.version.digest[:12], "code": failure.error.code, "attempts": failure.attempts}
            for failure in self._table.failures()
        ]
        return {
            "ready": self.is_ready,
            "assignment": self._assignment.describe(),
            "registry": self._follower.describe() if self._follower else None,
            "models": self._table.describe(),
            "failed_loads": len(failures),
            "failures": failures,
        }

    def close(self) -> None:
        """Let the threads end; calls that run are finished."""
        self._predicting.shutdown(wait=False, cancel_futures=True)
        self._looking_up.shutdown(wait=False, cancel_futures=True)


def _not_loadable(error: MLFrameworkError) -> ModelNotReadyError:
    names = error.attributes()
    model, version = names.get("model_id"), names.get("version")
    return ModelNotReadyError(
        f"Version {version} of model {model} can't be loaded ({error.code}).",
        remedy="It is tried again by itself; meanwhile promote another version or roll back.",
        tenant_id=error.tenant_id,
        details={"cause": error.code},
        model_id=model,
        version=version,
        retry_after_s=5,
    )
