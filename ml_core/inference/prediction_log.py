"""The prediction log in a replica: answers are written in the background, in batches; labels are stored at once.

The event loop appends answered requests to a bounded queue. A thread renders them to text and writes batches to the
registry. While the registry is unavailable the thread retries and the queue fills; then further rows are dropped and
counted by tenant, model, day and reason. The counts are written with the next batch, so the log shows its own gaps.

A process that is killed (``kill -9``, out of memory, power) loses its queue: the rows of the last flush interval, or
since the registry became unavailable. Those rows are not counted.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from ml_core.domain.prediction_record import AnsweredRequest, Loss, LossReason, RowPacker
from ml_core.domain.signature import Label, Signature
from ml_core.domain.tenant_policies import PredictionPolicy
from ml_core.exceptions import ConfigurationError, MLFrameworkError, RegistryUnavailableError, SchemaOutOfDateError
from ml_core.inference.assignment import Assignment
from ml_core.inference.gate import TenantGate
from ml_core.observability import NO_HOOKS, Hooks
from ml_core.registry.predictions.ingest import PredictionIngest, Written, lost
from ml_core.registry.predictions.labels import write_label
from ml_core.registry.predictions.rendering import RenderedRequests, RequestRenderer
from ml_core.settings import PredictionLogSettings

if TYPE_CHECKING:
    from ml_core.database.connection import DatabaseConnection
    from ml_core.ids import ModelId, TenantId
    from ml_core.inference.routing import Target
    from ml_core.inference.service import Prediction

logger = logging.getLogger(__name__)

BATCH_ROWS = 10_000
"""Rows in one transaction, which takes 0.1 s. Larger batches do not lower the cost per row."""
_RENDERED_ROWS = 500  # in one step: about 2 ms
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 5.0
CLOSE_WITHIN_S = 5.0
"""Seconds for the last batches of a replica that stops."""
LABEL_THREADS = 2
MAX_STORING_LABELS, MAX_STORING_PER_TENANT = 256, 64
"""Labels in progress; more are refused with 429. Storing one takes about a millisecond."""
_REMEMBERED_SIGNATURES = 10_000
EXPLICIT = "explicit"
"""The ``rollout`` of an answer to a request that names a version."""

# Transient errors, which are retried. Any other is caused by a value, which is located by halving the batch.
_PASSING = (RegistryUnavailableError, SchemaOutOfDateError, ConfigurationError)


@dataclass(slots=True)
class _Batch:
    requests: Sequence[RenderedRequests]
    losses: Sequence[Loss]
    batch_id: str
    is_repeated: bool = False

    @property
    def rows(self) -> int:
        return sum(request.rows for request in self.requests)


class PredictionLog:
    """Queues answered requests and writes them. ``append`` never waits for the registry.

    Args:
        ingest: Writes a batch.
        settings: The limits of the queue and the flush interval.
        hooks: Called when rows are queued, written or lost.
    """

    def __init__(self, ingest: PredictionIngest, settings: PredictionLogSettings, hooks: Hooks = NO_HOOKS) -> None:
        self._ingest = ingest
        self._hooks = hooks
        self._flush_s = settings.flush_s
        self._max_rows = settings.queue_rows
        self._max_bytes = settings.queue_mb * 2**20
        self._lock = threading.Lock()  # held briefly, because the event loop takes it too
        self._pending: list[AnsweredRequest] = []
        self._held_rows = self._held_bytes = 0
        self._accepted = self._written = self._withheld = 0
        self._lost: Counter[LossReason] = Counter()
        self._unwritten_losses: Counter[tuple[str, str, date, LossReason]] = Counter()
        self._error: str | None = None
        self._has_work, self._is_full, self._closing = threading.Event(), threading.Event(), threading.Event()
        self._gave_up = False
        self._renderer = RequestRenderer()
        self._backlog: deque[RenderedRequests] = deque()  # used by the thread only
        self._thread = threading.Thread(target=self._run, name="mlcore-prediction-log", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def append(self, request: AnsweredRequest) -> None:
        """Queue an answer. Takes a few microseconds, whatever the state of the registry."""
        rows, size = request.rows, request.memory_bytes
        with self._lock:
            self._accepted += rows
            if self._closing.is_set():
                self._lose(lost(request, LossReason.SHUTDOWN))
                return
            # An empty queue accepts a request of any size. The newest rows are lost, so that the log has one gap.
            if self._held_rows and (
                self._held_rows + rows > self._max_rows or self._held_bytes + size > self._max_bytes
            ):
                self._lose(lost(request, LossReason.QUEUE_FULL))
                return
            self._pending.append(request)
            self._held_rows += rows
            self._held_bytes += size
            is_first, is_full = len(self._pending) == 1, self._held_rows >= BATCH_ROWS
        if is_first:
            self._has_work.set()
        if is_full and not self._is_full.is_set():  # set() takes a lock, also if the event is set
            self._is_full.set()

    def close(self, within_s: float = CLOSE_WITHIN_S) -> None:
        """Write the queue within ``within_s`` seconds; the remaining rows are counted as lost and logged."""
        self._closing.set()
        self._is_full.set()
        self._has_work.set()
        if self._thread.ident is not None:
            self._thread.join(within_s)
        with self._lock:
            self._gave_up = True
            left, self._held_rows, self._held_bytes = self._held_rows, 0, 0
            if left:
                self._lost[LossReason.SHUTDOWN] += left
                self._hooks.predictions_lost(LossReason.SHUTDOWN, left)
        if left or self._unwritten_losses:
            logger.error("The prediction log ends with %d rows unwritten. %s", left, self.describe())

    def describe(self) -> dict[str, Any]:
        """Counts of rows for health: ``accepted`` = ``written`` + ``withheld`` + ``queued`` + the sum of ``lost``.

        ``withheld``: the tenant's policy changed after the rows were queued. ``error``: the code of the last failed
        write, or None.
        """
        with self._lock:
            return {
                "accepted": self._accepted,
                "written": self._written,
                "withheld": self._withheld,
                "queued": self._held_rows,
                "lost": {reason.value: rows for reason, rows in self._lost.items()},
                "error": self._error,
            }

    # The thread.

    def _run(self) -> None:
        while True:
            self._has_work.wait()
            self._is_full.wait(self._flush_s)
            self._has_work.clear()
            self._is_full.clear()
            # Rows that arrive during the writes wait for the next interval: small batches cost as much as large ones.
            is_last = self._closing.is_set()
            self._render_pending()
            while (batch := self._next_batch()) is not None:
                self._deliver(batch)
            if is_last:
                return

    def _render_pending(self) -> None:
        """Render the pending requests and move them to the backlog."""
        # Also while the registry is unavailable: rendered text takes a tenth of the memory.
        with self._lock:
            pending, self._pending = self._pending, []
            self._hooks.predictions_queued(self._held_rows)  # in the lock, so that values are reported in order
        for requests in _portions(pending):
            rendered, refused = self._renderer.render(requests)
            self._backlog.extend(rendered)
            freed = sum(request.memory_bytes for request in requests) - sum(each.memory_bytes for each in rendered)
            with self._lock:
                if self._gave_up:
                    return
                self._held_bytes -= freed
                for request in refused:
                    self._held_rows -= request.rows
                    self._lose(lost(request, LossReason.REFUSED))
            time.sleep(0)  # offers the interpreter lock to the event loop

    def _next_batch(self) -> _Batch | None:
        """The next batch of rows and losses; None if there are none."""
        with self._lock:
            noted, self._unwritten_losses = self._unwritten_losses, Counter()
        requests: list[RenderedRequests] = []
        rows = 0
        while self._backlog and (not requests or rows + self._backlog[0].rows <= BATCH_ROWS):
            requests.append(self._backlog.popleft())
            rows += requests[-1].rows
        losses = [Loss(*key, count) for key, count in noted.items()]
        return _Batch(requests, losses, secrets.token_hex(8)) if requests or losses else None

    def _deliver(self, batch: _Batch) -> None:
        """Write a batch, and retry while the registry is unavailable. Only a request that it refuses is dropped."""
        pause_s = _FIRST_PAUSE_S
        while not self._gave_up:
            started = time.perf_counter()
            try:
                done = self._ingest.write(batch.requests, batch.losses, batch.batch_id, is_repeated=batch.is_repeated)
            except _PASSING as error:
                self._note_error(error, batch)
                batch.is_repeated = True
                self._render_pending()
                if self._closing.wait(pause_s):
                    # Retries are frequent while ``close`` waits.
                    threading.Event().wait(_FIRST_PAUSE_S)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            except Exception as error:  # noqa: BLE001 - one row must not end the log of all others
                self._note_error(error, batch)
                self._divide(batch)
                return
            else:
                self._finish(batch, done, time.perf_counter() - started)
                return

    def _divide(self, batch: _Batch) -> None:
        """Split a refused batch in halves to isolate the request that causes the refusal."""
        halves = _halves(batch.requests)
        if halves is not None:
            self._deliver(_Batch(halves[0], batch.losses, batch.batch_id, batch.is_repeated))
            self._deliver(_Batch(halves[1], (), f"{batch.batch_id}b", batch.is_repeated))
            return
        losses = [lost(request, LossReason.REFUSED) for request in batch.requests]
        if not losses:
            logger.error("Counts of lost rows can't be written: %s.", batch.losses)
            return
        with self._lock:
            if self._gave_up:
                return
            self._release(batch)
            for loss in losses:
                self._lose(loss)
            for loss in batch.losses:
                self._unwritten_losses[loss.tenant_id, loss.model_id, loss.day, loss.reason] += loss.rows

    def _finish(self, batch: _Batch, done: Written, seconds: float) -> None:
        with self._lock:
            if self._gave_up:
                return  # close() has counted these rows as lost
            self._release(batch)
            self._written += done.kept
            self._withheld += done.withheld
            for loss in done.lost:
                self._lost[loss.reason] += loss.rows
                self._hooks.predictions_lost(loss.reason, loss.rows)
            self._hooks.predictions_written(done.kept, done.withheld, seconds)
            was_failing, self._error = self._error, None
        if was_failing:
            logger.warning("The prediction log writes again, after %s. %s", was_failing, self.describe())

    def _release(self, batch: _Batch) -> None:
        self._held_rows -= batch.rows
        self._held_bytes -= sum(request.memory_bytes for request in batch.requests)
        self._hooks.predictions_queued(self._held_rows)

    def _lose(self, loss: Loss) -> None:
        """Count a loss, to be written with the next batch. The caller holds the lock."""
        self._lost[loss.reason] += loss.rows
        self._unwritten_losses[loss.tenant_id, loss.model_id, loss.day, loss.reason] += loss.rows
        self._hooks.predictions_lost(loss.reason, loss.rows)
        self._has_work.set()

    def _note_error(self, error: Exception, batch: _Batch) -> None:
        code = error.code if isinstance(error, MLFrameworkError) else type(error).__name__
        with self._lock:
            is_new, self._error = self._error != code, code
        if is_new:
            logger.warning("%d predictions are not written now: %s", batch.rows, error)


class PredictionRecorder:
    """Records the answers of one replica, and the labels that are sent to it.

    Args:
        assignment: The policies of the tenants.
        log: The prediction log, also an attribute; ``close`` closes it.
        db: The registry, for labels.
    """

    def __init__(self, assignment: Assignment, log: PredictionLog, db: DatabaseConnection) -> None:
        self.log = log
        self._assignment = assignment
        self._db = db
        self._threads = ThreadPoolExecutor(LABEL_THREADS, "mlcore-labels")
        self._storing = TenantGate("labels being stored", total=MAX_STORING_LABELS, per_tenant=MAX_STORING_PER_TENANT)
        # By id() of the signature: its hash would walk all columns. The packer keeps the signature alive.
        self._packers: dict[int, RowPacker] = {}

    def record(self, target: Target, prediction: Prediction, *, size: int, arrived: float) -> None:
        """Record an answer, unless the policy of its tenant is ``nothing``. Call it after the answer was rendered.

        Args:
            target: The target of the request.
            prediction: The answer.
            size: Bytes of the request body.
            arrived: When the request arrived, on the event loop's clock, seconds.
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
            target.request_id,
            time.time(),
            (asyncio.get_running_loop().time() - arrived) * 1000,
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
        self._storing.enter(tenant_id)
        storing = asyncio.get_running_loop().run_in_executor(
            self._threads, write_label, self._db, tenant_id, model_id, request_id, row, label
        )
        storing.add_done_callback(lambda done: self._stored(tenant_id, done))
        try:
            await storing
        except _PASSING as error:
            logger.warning("A label can't be stored: %s", error)
            raise RegistryUnavailableError(
                "The registry can't be reached, so the label was not stored.",
                remedy="Send it again in a moment.",
                tenant_id=tenant_id,
            ) from error

    def _stored(self, tenant_id: TenantId, done: asyncio.Future[None]) -> None:
        self._storing.leave(tenant_id)
        if not done.cancelled():
            done.exception()  # retrieved, because the client may have disconnected and nobody awaits it

    def close(self) -> None:
        """Write the queue, within a few seconds."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.log.close()


def _portions(requests: Sequence[AnsweredRequest]) -> Iterator[list[AnsweredRequest]]:
    """Group requests into portions of at most ``_RENDERED_ROWS`` rows; a larger request is a portion of its own."""
    portion: list[AnsweredRequest] = []
    rows = 0
    for request in requests:
        if portion and rows + request.rows > _RENDERED_ROWS:
            yield portion
            portion, rows = [], 0
        portion.append(request)
        rows += request.rows
    if portion:
        yield portion


def _halves(
    requests: Sequence[RenderedRequests],
) -> tuple[Sequence[RenderedRequests], Sequence[RenderedRequests]] | None:
    """Split requests into two halves; None if there is one request or none."""
    if len(requests) == 1 and len(requests[0].parts) > 1:
        requests = requests[0].split()
    middle = len(requests) // 2
    return (requests[:middle], requests[middle:]) if middle else None
