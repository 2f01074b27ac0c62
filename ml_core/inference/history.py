"""What a replica does for the prediction history: notes each answer as its tenant allows, and takes labels."""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from ml_core.domain.prediction_record import AnsweredRequest, RowPacker
from ml_core.domain.signature import Label, Signature
from ml_core.domain.tenant_policies import HistoryPolicy
from ml_core.exceptions import ConfigurationError, QueueFullError, RegistryUnavailableError, SchemaOutOfDateError
from ml_core.ids import ModelId, TenantId
from ml_core.inference.assignment import Assignment
from ml_core.inference.prediction_log import PredictionLog
from ml_core.inference.target import Target
from ml_core.registry.history.labels import LabelWriter

if TYPE_CHECKING:
    from ml_core.inference.service import Prediction

logger = logging.getLogger(__name__)

LABEL_THREADS = 2
MAX_WAITING_LABELS = 256
"""Labels that wait for the registry; more are refused with 429. A label takes it about a millisecond."""
_REMEMBERED_SIGNATURES = 10_000
EXPLICIT = "explicit"
"""The rollout of an answer by a version that was asked by its name."""


class ServingHistory:
    """The history as one replica writes it.

    Args:
        assignment: Knows what each tenant lets be kept.
        log: Takes what is kept.
        labels: Stores labels.
    """

    def __init__(self, assignment: Assignment, log: PredictionLog, labels: LabelWriter) -> None:
        self._assignment = assignment
        self._log = log
        self._labels = labels
        self._threads = ThreadPoolExecutor(LABEL_THREADS, "mlcore-labels")
        self._waiting = 0
        self._packers: dict[int, RowPacker] = {}  # by the id of the signature, which each keeps alive

    def start(self) -> None:
        """Begin to write."""
        self._log.start()

    def note(self, target: Target, prediction: Prediction, *, request_id: str, size: int, latency_ms: float) -> None:
        """Note an answer, unless its tenant wants nothing kept; then it gets no further than this.

        Args:
            target: What was asked.
            prediction: What was answered.
            request_id: As in the answer to the client.
            size: Bytes in which the rows were sent.
            latency_ms: Since the request came.
        """
        policy = self._assignment.history_policy(target.tenant)
        if policy is HistoryPolicy.NOTHING:
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
        self._log.append(request)

    def _packer(self, signature: Signature) -> RowPacker:
        packer = self._packers.get(id(signature))
        if packer is None:
            if len(self._packers) >= _REMEMBERED_SIGNATURES:
                self._packers.clear()
            packer = self._packers[id(signature)] = RowPacker(signature)
        return packer

    async def add_label(self, tenant_id: TenantId, model_id: ModelId, request_id: str, row: int, label: Label) -> None:
        """Store a label, on a thread.

        Raises:
            InvalidRequestError, ModelNotFoundError, TenantNotFoundError: See ``HistoryRepository.add_feedback``.
            RegistryUnavailableError: The registry can't be reached now.
            QueueFullError: Too many labels wait.
        """
        if self._waiting >= MAX_WAITING_LABELS:
            raise QueueFullError(
                f"{self._waiting} labels wait for the registry already.",
                remedy="Try again after the pause that Retry-After names.",
                retry_after_s=1,
            )
        self._waiting += 1
        storing = asyncio.get_running_loop().run_in_executor(
            self._threads, self._labels.write, tenant_id, model_id, request_id, row, label
        )
        storing.add_done_callback(self._stored)
        try:
            await storing
        except (RegistryUnavailableError, SchemaOutOfDateError, ConfigurationError) as error:
            logger.warning("A label can't be stored: %s", error)
            raise RegistryUnavailableError(
                "The registry can't be reached now, so the label was not stored.",
                remedy="Send it again in a moment.",
                tenant_id=tenant_id,
            ) from error

    def _stored(self, done: asyncio.Future[None]) -> None:
        self._waiting -= 1
        if not done.cancelled():
            done.exception()  # whoever waited may have left

    def describe(self) -> dict[str, Any]:
        """Counts for health."""
        return self._log.describe()

    def close(self) -> None:
        """Write what is left, within a few seconds."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._log.close()
