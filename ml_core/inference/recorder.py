"""The recorder of a replica: answers for the prediction log, and labels."""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.prediction_record import AnsweredRequest, RowPacker
from ml_core.domain.signature import Label, Signature
from ml_core.domain.tenant_policies import PredictionPolicy
from ml_core.exceptions import ConfigurationError, QueueFullError, RegistryUnavailableError, SchemaOutOfDateError
from ml_core.ids import ModelId, TenantId
from ml_core.inference.assignment import Assignment
from ml_core.inference.prediction_log import PredictionLog
from ml_core.inference.target import Target
from ml_core.registry.predictions.labels import write_label

if TYPE_CHECKING:
    from ml_core.inference.service import Prediction

logger = logging.getLogger(__name__)

LABEL_THREADS = 2
MAX_WAITING_LABELS = 256
"""Labels in progress; more are refused with 429. Storing one takes about a millisecond."""
_REMEMBERED_SIGNATURES = 10_000
EXPLICIT = "explicit"
"""The ``rollout`` of an answer to a request that names a version."""


class PredictionRecorder:
    """Records the answers of one replica, and the labels that are sent to it.

    Args:
        assignment: The policies of the tenants.
        log: The prediction log; ``close`` closes it.
        db: The registry, for labels.

    Attributes:
        log: The prediction log.
    """

    def __init__(self, assignment: Assignment, log: PredictionLog, db: DatabaseConnection) -> None:
        self.log = log
        self._assignment = assignment
        self._db = db
        self._threads = ThreadPoolExecutor(LABEL_THREADS, "mlcore-labels")
        self._waiting = 0
        # By id() of the signature: its hash would walk all columns. The packer keeps the signature alive.
        self._packers: dict[int, RowPacker] = {}

    def record(self, target: Target, prediction: Prediction, *, request_id: str, size: int, latency_ms: float) -> None:
        """Record an answer, unless the policy of its tenant is ``nothing``.

        Args:
            target: The target of the request.
            prediction: The answer.
            request_id: The request id in the answer to the client.
            size: Bytes of the request body.
            latency_ms: Milliseconds since the arrival of the request.
        """
        policy = self._assignment.prediction_policy(target.tenant)
        if policy is PredictionPolicy.NOTHING:
            return
        version, answer = prediction.version, prediction.answer
        is_explicit = target.version is not None
        request = AnsweredRequest(
            target.tenant,
            version.ref.model_id,
            version.ref.version,
            None if is_explicit else target.environment,
            EXPLICIT if is_explicit else prediction.rollout,
            request_id,
            time.time(),
            latency_ms,
            *self._packer(version.signature).pack(prediction.columns, len(answer.predictions)),
            version.signature,
            answer.predictions,
            answer.probabilities,
            policy,
            size,
        )
        self.log.append(request)

    def _packer(self, signature: Signature) -> RowPacker:
        packer = self._packers.get(id(signature))
        if packer is None:
            if len(self._packers) >= _REMEMBERED_SIGNATURES:
                self._packers.clear()  # bounds the memory; packers are cheap to create again
            packer = self._packers[id(signature)] = RowPacker(signature)
        return packer

    async def add_label(self, tenant_id: TenantId, model_id: ModelId, request_id: str, row: int, label: Label) -> None:
        """Store a label, on a thread.

        Raises:
            InvalidRequestError, ModelNotFoundError, TenantNotFoundError: As ``PredictionRepository.add_label``.
            RegistryUnavailableError: The registry can't be reached.
            QueueFullError: Too many labels are in progress.
        """
        if self._waiting >= MAX_WAITING_LABELS:
            raise QueueFullError(
                f"{self._waiting} labels are being stored, which is the limit.",
                remedy="Try again after the pause that Retry-After names.",
                retry_after_s=1,
            )
        self._waiting += 1
        storing = asyncio.get_running_loop().run_in_executor(
            self._threads, write_label, self._db, tenant_id, model_id, request_id, row, label
        )
        storing.add_done_callback(self._stored)
        try:
            await storing
        except (RegistryUnavailableError, SchemaOutOfDateError, ConfigurationError) as error:
            logger.warning("A label can't be stored: %s", error)
            raise RegistryUnavailableError(
                "The registry can't be reached, so the label was not stored.",
                remedy="Send it again in a moment.",
                tenant_id=tenant_id,
            ) from error

    def _stored(self, done: asyncio.Future[None]) -> None:
        self._waiting -= 1
        if not done.cancelled():
            done.exception()  # retrieved, because the client may have disconnected and nobody awaits it

    def close(self) -> None:
        """Write the queue, within a few seconds."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.log.close()
