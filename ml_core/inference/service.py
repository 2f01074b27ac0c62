"""The prediction service: authentication, routing and prediction within a deadline, without a web framework.

A request uses one version from start to end.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, TypeVar, TypeVarTuple
from weakref import WeakKeyDictionary, ref

from cachetools import LRUCache

from ml_core.domain.api_key import Scope, bearer_token
from ml_core.domain.columns import Columns
from ml_core.domain.explanation import Explanation
from ml_core.domain.principal import Principal
from ml_core.domain.rollout import Side
from ml_core.domain.version import ServableVersion
from ml_core.exceptions import Action, PermissionDeniedError, PredictionError, TenantNotFoundError
from ml_core.ids import VersionRef
from ml_core.inference.assignment import Assignment
from ml_core.inference.batcher import Answer, Batcher
from ml_core.inference.explanations import Explanations
from ml_core.inference.fair_queue import Shares
from ml_core.inference.fair_threads import FairThreads
from ml_core.inference.follower import AssignmentFollower
from ml_core.inference.loads import MAX_LOST_LOADS
from ml_core.inference.model_table import ModelTable, Resident
from ml_core.inference.pointers import VersionKey
from ml_core.inference.prediction_log import PredictionRecorder
from ml_core.inference.quotas import Quotas
from ml_core.inference.routing import Router, Table, Target, VersionLookup
from ml_core.inference.shadow import Shadows
from ml_core.observability import NO_HOOKS, Hooks
from ml_core.registry.oidc import FETCH_WITHIN_S, TokenVerifier
from ml_core.settings import ServingSettings

logger = logging.getLogger(__name__)

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

REFUSED_AFTER_S = 0.25
"""Seconds until the answer to a large request that is refused before it is read."""
# A larger table is read on a thread, so that it does not block the event loop: a value takes about 0.3 µs.
_READ_ON_LOOP_VALUES = 5_000
# The bound for tables of few but long strings.
_READ_ON_LOOP_BYTES = 256 * 1024
_LOOKUP_THREADS = 2
_REMEMBERED_MODELS = 1_000


class Prediction(NamedTuple):
    """An answer, its version, the columns that the version read, and the side of the rollout."""

    version: ServableVersion
    answer: Answer
    columns: Columns
    rollout: Side = Side.STABLE


class PredictionService:
    """Answers the requests of one cell on one event loop.

    Args:
        assignment: Tenants, keys and prediction policies.
        table: Pointers and models.
        find_version: Looks up a version in the registry.
        limits: The limits of queues and batches.
        follower: The follower, for health; None if there is none.
        thread_initializer: Runs at the start of each prediction thread.
        recorder: Records answers and labels; None: nothing is recorded.
        tokens: Verifies tokens of the OpenID issuer; None: tokens are not accepted.
        hooks: Called by the edge and the batchers.
        is_shared: Whether several tenants use the cell; a single one may use all threads.

    Attributes:
        quotas: Of requests, which the edge takes, and of rows.
        explanations: Explains predictions.
        threads: Run what would block the event loop.
        loop_shares: Of tenants in the event loop's time.
        asked: Tenants that were asked for predictions, until somebody takes them out.
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
        recorder: PredictionRecorder | None = None,
        tokens: TokenVerifier | None = None,
        hooks: Hooks = NO_HOOKS,
        is_shared: bool = True,
    ) -> None:
        self.limits = limits
        self.recorder = recorder
        self.hooks = hooks
        self.asked: set[str] = set()
        self._assignment = assignment
        self._tokens = tokens
        self._table = table
        self._follower = follower

        # Two pools, so that a registry that hangs can't block the prediction threads.
        def weight_of(tenant: str) -> float:
            return assignment.quota(tenant).weight

        self.quotas = Quotas(assignment, limits, hooks)
        self.loop_shares = Shares(weight_of)
        self.threads = FairThreads(Shares(weight_of), "mlcore-predict", thread_initializer, is_shared=is_shared)
        self._looking_up = ThreadPoolExecutor(_LOOKUP_THREADS, "mlcore-lookup")
        self.router = Router(table, VersionLookup(find_version, self._looking_up, time.monotonic))
        self._shadows = Shadows(table, Shares(weight_of), thread_initializer)
        self.explanations = Explanations(Shares(weight_of), thread_initializer)
        self._all_threads = self.threads, self.explanations.threads, self._shadows.threads
        # The batcher of a model's last large request, and its bytes for each row.
        self._large: LRUCache[tuple[str, str], tuple[ref[Batcher], float]] = LRUCache(_REMEMBERED_MODELS)
        self._batchers: WeakKeyDictionary[Resident, Batcher] = WeakKeyDictionary()

    # Authentication.

    async def authorize(
        self, authorization: bytes | None, tenant: str, *scopes: Scope, within_s: float = FETCH_WITHIN_S
    ) -> Principal:
        """Authenticate and authorize a request to the URL of a tenant.

        Args:
            authorization: The header ``Authorization``.
            tenant: The tenant in the URL.
            *scopes: The scopes, of which the principal needs one.
            within_s: Longest wait in seconds for the keys of the issuer, if a token is signed with an unknown key.

        Raises:
            AuthenticationError: The key or token is missing or invalid.
            TenantNotFoundError: The key or token is for another tenant, whether or not the tenant in the URL exists.
            PermissionDeniedError: The key or token has none of the scopes.
            ModelNotReadyError: The replica has not read the assignment yet.
            IssuerUnavailableError: The keys of the token's issuer can't be read.
        """
        # A JWT contains dots and an API key does not.
        if self._tokens is not None and authorization is not None and b"." in authorization:
            principal = await self._token_holder(self._tokens, bearer_token(authorization), tenant, within_s)
        else:
            principal = self._assignment.principal(authorization)
            if principal.tenant_id != tenant:
                raise _no_such_tenant()
        if not any(map(principal.allows, scopes)):
            raise PermissionDeniedError(
                f"The key or token lacks the scope {' or '.join(scopes)}.",
                remedy="Use a key or token that has the scope.",
                action=Action.of("keys.create", tenant=tenant, scope=scopes[0].value),
                tenant_id=tenant,
                scope=str(scopes[0]),
            )
        return principal

    async def _token_holder(self, tokens: TokenVerifier, token: str, tenant: str, within_s: float) -> Principal:
        identity = tokens.remembered(token) or await tokens.verify_async(token, within_s)
        # A claim does not prove that the tenant exists.
        if not (identity.is_platform_wide or tenant in identity.tenants) or not self._assignment.has_tenant(tenant):
            raise _no_such_tenant()
        return identity.principal(tenant)

    # Prediction.

    async def predict(self, target: Target, table: Table, *, proba: bool, deadline: float) -> Prediction:
        """Predict the rows of a request.

        Args:
            target: The target of the request.
            table: The rows.
            proba: Whether to predict probabilities, or anomaly scores, if the model has them.
            deadline: On the event loop's clock, seconds. The caller must bound its wait by it as well.

        Raises:
            ModelNotFoundError, ModelNotReadyError, RegistryUnavailableError: See ``Router.route``.
            SignatureMismatchError: A row does not fit the signature.
            QueueFullError, DeadlineExceededError, ModelNotReadyError, PredictionError: See ``Batcher.predict``.
            QuotaExceededError, RequestTooLargeError: The rows exceed the tenant's quota.
        """
        self.quotas.take_rows(target.tenant, table.rows)
        self.asked.add(target.tenant)
        resident, side, shadow = await self.router.route(target, table, deadline)
        try:
            version = resident.model.version
            signature = version.signature
            batcher = self._batchers.get(resident) or self._batcher(resident)
            if table.size > _READ_ON_LOOP_BYTES:
                self._large[target.tenant, target.model] = ref(batcher), table.size / table.rows
            if table.rows * len(signature.inputs) > _READ_ON_LOOP_VALUES or table.size > _READ_ON_LOOP_BYTES:
                with batcher.reserved(table.rows):
                    columns = await self.on_thread(target.tenant, table.columns, signature)
            else:
                columns = table.columns(signature)
            answer = await batcher.predict(
                columns, table.rows, size=table.size, proba=proba, deadline=deadline, is_only=target.is_only
            )
        finally:
            self._table.release(resident)
        if shadow is not None:
            self._shadows.offer(target.pointer, shadow, table, answer.predictions)
        return Prediction(version, answer, columns, side)

    @asynccontextmanager
    async def room_for(self, tenant: str, model: str, size: int) -> AsyncIterator[None]:
        """Keep room in the queue of a model for a large request to predict while it is parsed.

        Its rows, and the version that answers it, are taken to be as those of the model's last large request, and as
        many as are permitted at most: one with long texts must not seem to have more than any queue has room for. Once
        it is read, its own rows count. A request that is refused here would cost several times as much if it was read;
        the pause is for clients that send it again at once.

        Raises:
            QueueFullError, ModelNotReadyError: As for ``predict``, after ``REFUSED_AFTER_S``.
        """
        last, bytes_per_row = self._large.get((tenant, model)) or (None, 1.0)
        batcher = None if last is None else last()
        if batcher is None:
            yield
            return
        try:
            room = batcher.reserved(min(self.limits.max_rows, max(1, int(size / bytes_per_row))))
        except PredictionError:
            await asyncio.sleep(REFUSED_AFTER_S)
            raise
        with room:
            yield

    async def explain(self, target: Target, table: Table, deadline: float) -> tuple[ServableVersion, Side, Explanation]:
        """Explain the predictions for the rows of a request by the version that answers them. Nothing is logged.

        Raises:
            ModelNotFoundError, ModelNotReadyError, RegistryUnavailableError: See ``Router.route``.
            SignatureMismatchError, RequestTooLargeError, QueueFullError, DeadlineExceededError, ModelNotReadyError,
                PredictionError: See ``Explanations.explain``.
            QuotaExceededError, RequestTooLargeError: The rows exceed the tenant's quota.
        """
        self.quotas.take_rows(target.tenant, table.rows)
        self.asked.add(target.tenant)
        resident, side, _ = await self.router.route(target, table, deadline)
        try:
            return resident.model.version, side, await self.explanations.explain(resident.model, table, deadline)
        finally:
            self._table.release(resident)

    def on_thread(self, tenant: str, function: Callable[[*Ts], T], *arguments: *Ts) -> asyncio.Future[T]:
        """Run a function that would block the event loop on a prediction thread, when it is the tenant's turn."""
        return self.threads.submit(tenant, function, *arguments)

    async def ensure_ready(self, target: Target, deadline: float) -> ServableVersion:
        """Load the version that would answer, for a pointer the stable one.

        Raises:
            ModelNotFoundError, ModelNotReadyError, RegistryUnavailableError: As for ``predict``.
        """
        resident = await self.router.acquire(target, deadline)
        self._table.release(resident)
        return resident.model.version

    def _batcher(self, resident: Resident) -> Batcher:
        batcher = self._batchers[resident] = Batcher(
            resident.model,
            self.threads,
            self.loop_shares,
            max_queued_rows=self.limits.max_queued_rows,
            max_batch_rows=self.limits.max_batch_rows,
            hooks=self.hooks,
        )
        return batcher

    # Health.

    @property
    def is_ready(self) -> bool:
        """Whether the assignment was read, so that requests can be answered."""
        return self._assignment.is_known

    @property
    def lost_calls(self) -> int:
        """The calls of models that did not return in time, and have not returned since."""
        return sum(threads.lost for threads in self._all_threads)

    @property
    def is_spent(self) -> bool:
        """Whether so many calls or loads are lost that the replica has to be replaced."""
        is_any = any(threads.is_spent for threads in self._all_threads)
        return is_any or len(self._table.lost_loads) >= MAX_LOST_LOADS

    @property
    def lost_versions(self) -> set[VersionKey]:
        """The versions of the lost calls and loads."""
        return self._table.lost_loads.union(*(threads.lost_versions for threads in self._all_threads))

    def describe(self) -> dict[str, Any]:
        """The state of the replica and its failed loads."""
        # Without names of tenants and models, because health needs no authentication.
        failures = [
            {"digest": failure.key[3][:12], "code": failure.error.code, "attempts": failure.attempts}
            for failure in self._table.failures()
        ]
        return {
            "ready": self.is_ready,
            "assignment": self._assignment.describe(),
            "registry": self._follower.describe() if self._follower else None,
            "models": self._table.describe(),
            "shadows": self._shadows.describe(),
            "prediction_log": self.recorder.log.describe() if self.recorder else None,
            "issuer": self._tokens.describe() if self._tokens else None,
            "lost_calls": self.lost_calls,
            "lost_loads": len(self._table.lost_loads),
            "failed_loads": len(failures),
            "failures": failures,
        }

    def close(self) -> None:
        """Stop the threads after the calls in progress."""
        self.threads.close()
        self._looking_up.shutdown(wait=False, cancel_futures=True)
        self._shadows.close()
        self.explanations.close()


def _no_such_tenant() -> TenantNotFoundError:
    # The same error for a tenant that does not exist and for another tenant: callers must not learn which exist.
    return TenantNotFoundError(
        "There is no such tenant, or the key is not one of its keys.", remedy="Check the URL and the key."
    )
