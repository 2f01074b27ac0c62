"""The prediction log in a replica: answers are written in the background, in batches; labels are stored at once.

The event loop renders an answered request and appends it to the spool (``ml_core.inference.prediction_spool``) before
the answer is sent. A thread writes the segments of the spool to the registry, each as one batch. While the registry is
unavailable the thread retries and the spool grows; at its limit further rows are dropped and counted by tenant, model,
day and reason. Those of a tenant with large rows are dropped before, so that there is space for the others. The counts
are in the spool too, so the log shows its own gaps.

What a killed process leaves in its spool, rows and counts, the thread of another one writes.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ml_core.domain.prediction_record import AnsweredRequest, Loss, LossReason
from ml_core.domain.signature import Label
from ml_core.domain.tenant_policies import PredictionPolicy
from ml_core.exceptions import (
    ConfigurationError,
    DeadlineExceededError,
    MLFrameworkError,
    RegistryUnavailableError,
    SchemaOutOfDateError,
)
from ml_core.inference.assignment import Assignment
from ml_core.inference.gate import TenantGate
from ml_core.inference.prediction_spool import SEGMENT_BYTES, Contents, Segment, Spool, segment_bytes
from ml_core.observability import NO_HOOKS, Hooks
from ml_core.registry.predictions.ingest import PredictionIngest, Written, lost
from ml_core.registry.predictions.labels import write_label
from ml_core.registry.predictions.rendering import RenderedRequest, RenderedRequests, RequestRenderer
from ml_core.settings import PredictionLogSettings

if TYPE_CHECKING:
    from pathlib import Path

    from ml_core.database.connection import DatabaseConnection
    from ml_core.ids import ModelId, TenantId
    from ml_core.inference.fair_threads import FairThreads
    from ml_core.inference.routing import Target
    from ml_core.inference.service import Prediction

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 5.0
"""Seconds between two looks for the spools of replicas that were killed."""
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 5.0
CLOSE_WITHIN_S = 5.0
"""Seconds for the last batches of a replica that stops."""
LABEL_THREADS = 2
MAX_STORING_LABELS, MAX_STORING_PER_TENANT = 256, 64
"""Labels in progress; more are refused with 429. Storing one takes about a millisecond."""
_ROWS_ON_LOOP, _VALUES_ON_LOOP, _BYTES_ON_LOOP = 50, 2_000, 64 * 1024
"""Of a request that is rendered on the event loop, in half a millisecond; a larger one is rendered on a thread."""
SHARE = 2
"""A tenant may hold so many times what is free in the spool: alone two thirds of it (Choudhury and Hahne, 1998)."""
_TIMEOUTS_OF_ONE = 5
"""Of a request alone, each after the time limit of a statement; then it is lost, since it holds up all others."""
EXPLICIT = "explicit"
"""The ``rollout`` of an answer to a request that names a version."""

# Transient errors, which are retried. Any other is caused by a value, which is located by halving the batch, or by the
# size of the batch.
_PASSING = (RegistryUnavailableError, SchemaOutOfDateError, ConfigurationError)


@dataclass(slots=True)
class _Batch:
    """What a segment holds, or a part of it."""

    requests: Sequence[RenderedRequests]
    losses: Sequence[Loss]
    batch_id: str
    is_repeated: bool = False
    timeouts: int = 0

    @property
    def rows(self) -> int:
        return sum(request.rows for request in self.requests)


class PredictionLog:
    """Spools answered requests and writes them. ``append`` never waits for the registry.

    Args:
        ingest: Writes a batch.
        settings: The limit of the spool and the flush interval.
        hooks: Called when rows are queued, written or lost.
        folder: Of the spools of this machine's replicas; None: rows are in memory, and are lost with the process.
    """

    def __init__(
        self,
        ingest: PredictionIngest,
        settings: PredictionLogSettings,
        hooks: Hooks = NO_HOOKS,
        folder: Path | None = None,
    ) -> None:
        self._ingest = ingest
        self._hooks = hooks
        self._flush_s = settings.flush_s
        self._max_bytes = settings.queue_mb * 2**20
        self._lock = threading.Lock()  # held briefly, because the event loop takes it too
        self._spool = Spool(folder)
        self._active = self._spool.segment()
        self._spare: Segment | None = None
        self._full: deque[Segment] = deque()  # those before the active one, oldest first
        self._held_bytes: dict[str, int] = {}  # by tenant, in all of these
        self._share_bytes = 0
        self._share_out()
        self._accepted = self._written = self._withheld = self._queued = self._unspooled = self._recovered = 0
        self._timeouts = 0
        self._lost: Counter[LossReason] = Counter()
        self._error: str | None = None
        self._has_work, self._is_full, self._closing = threading.Event(), threading.Event(), threading.Event()
        self._is_closing = self._gave_up = self._is_uncounted = False
        self._thread = threading.Thread(target=self._run, name="mlcore-prediction-log", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def append(self, request: RenderedRequest) -> None:
        """Spool an answer. Takes about two microseconds, whatever the state of the registry."""
        with self._lock:
            self._accepted += request.rows
            if self._is_closing:
                self._lose(lost(request, LossReason.SHUTDOWN))
                return
            held_bytes = self._held_bytes.get(request.tenant_id, 0)
            if held_bytes > self._share_bytes or not self._put(request):
                self._lose(lost(request, LossReason.QUEUE_FULL))
                return
            self._held_bytes[request.tenant_id] = held_bytes + len(request.lines)
            self._queued += request.rows
            if not self._active.survives:
                self._unspooled += request.rows
        if not self._has_work.is_set():  # set() takes a lock, also if the event is set
            self._has_work.set()

    def lose(self, loss: Loss) -> None:
        """Count answered rows that can't be written."""
        with self._lock:
            self._accepted += loss.rows
            self._lose(loss)

    def close(self, within_s: float = CLOSE_WITHIN_S) -> None:
        """Write the spool within ``within_s`` seconds. Another replica writes the rest; what is in memory is lost."""
        self._is_closing = True
        self._closing.set()
        self._is_full.set()
        self._has_work.set()
        if self._thread.ident is not None:
            self._thread.join(within_s)
        with self._lock:
            self._gave_up = True
            left = sum(segment.rows for segment in (*self._full, self._active) if not segment.survives)
            self._queued -= left
            if left:
                self._lost[LossReason.SHUTDOWN] += left
                self._hooks.predictions_lost(LossReason.SHUTDOWN, left)
        if self._thread.ident is None:
            self._leave()
        if self._queued or left:
            logger.error("The prediction log ends with rows unwritten. %s", self.describe())

    def describe(self) -> dict[str, Any]:
        """Counts of rows for health: ``accepted`` = ``written`` + ``withheld`` + ``queued`` + the sum of ``lost``.

        ``withheld``: the tenant's policy changed after the rows were queued. ``recovered``: of the accepted, those that
        killed replicas left. ``unspooled``: of the accepted, those that were in memory only, and ``spool_fault``: why
        rows are now, or None. ``timeouts``: the writes that took too long. ``error``: the code of the last failed
        write, or None.
        """
        with self._lock:
            return {
                "accepted": self._accepted,
                "written": self._written,
                "withheld": self._withheld,
                "queued": self._queued,
                "lost": {reason.value: rows for reason, rows in self._lost.items()},
                "recovered": self._recovered,
                "unspooled": self._unspooled,
                "spool_fault": self._spool.fault,
                "timeouts": self._timeouts,
                "error": self._error,
            }

    # The caller of these holds the lock.

    def _lose(self, loss: Loss) -> None:
        """Count a loss, to be written with the active segment."""
        self._lost[loss.reason] += loss.rows
        self._hooks.predictions_lost(loss.reason, loss.rows)
        self._note(loss)

    def _note(self, loss: Loss) -> None:
        if not self._active.note(loss) and not self._is_uncounted:
            self._is_uncounted = True  # said once: this is on the path of a request
            logger.error("Losses of %s, and of others later, are only in health: too many models.", loss.model_id)
        self._has_work.set()

    def _put(self, request: RenderedRequest) -> bool:
        return self._active.append(request) or (self._turn(len(request.lines)) and self._active.append(request))

    def _turn(self, line_bytes: int) -> bool:
        """Begin another segment, which has room for such a request; False if the spool would be too large.

        The newest rows are lost, so that the log has one gap. An empty spool takes a request of any size.
        """
        wanted = segment_bytes(line_bytes)
        held = sum(segment.size for segment in (*self._full, self._active))
        if (self._full or not self._active.is_empty) and held + wanted > self._max_bytes:
            return False
        following = self._spare if wanted == SEGMENT_BYTES else None
        if following is not None:
            self._spare = None
        self._put_aside(following or self._spool.segment(wanted))
        self._is_full.set()
        return True

    def _put_aside(self, following: Segment) -> None:
        if self._active.is_empty:
            self._active.discard()
        else:
            self._full.append(self._active)
        self._active = following
        self._share_out()

    def _take_first(self) -> None:
        """Take the oldest segment, which was written, out of the spool."""
        for tenant, size in self._full.popleft().held_bytes.items():
            left = self._held_bytes.pop(tenant) - size
            if left:
                self._held_bytes[tenant] = left
        self._share_out()

    def _share_out(self) -> None:
        """Say how much a tenant may hold."""
        held = sum(segment.size for segment in (*self._full, self._active))
        free = max(0, self._max_bytes - held) + self._active.size - self._active.end
        self._share_bytes = SHARE * free

    # The thread.

    def _run(self) -> None:
        look_at = 0.0
        while not self._gave_up:
            self._has_work.wait(LOOK_EVERY_S)
            if self._has_work.is_set():
                self._is_full.wait(self._flush_s)
            self._has_work.clear()
            self._is_full.clear()
            # Rows that arrive during the writes wait for the next interval: small batches cost as much as large ones.
            is_last = self._is_closing
            self._write_queue()
            if is_last:
                break
            if time.monotonic() >= look_at:
                self._recover()
                look_at = time.monotonic() + LOOK_EVERY_S
        self._leave()

    def _write_queue(self) -> None:
        with self._lock:
            self._hooks.predictions_queued(self._queued)  # in the lock, so that values are reported in order
            following, self._spare = self._spare, None
        following = following or self._spool.segment()  # made here and not on the event loop
        with self._lock:
            if self._active.is_empty:
                self._spare = following
            else:
                self._put_aside(following)
        while self._full:
            segment = self._full[0]
            self._write(segment.read())
            with self._lock:
                if self._gave_up:
                    return
                self._take_first()
            # Without the lock, which the event loop would wait for: it takes milliseconds.
            if self._spare is None and segment.size == SEGMENT_BYTES and segment.survives:
                segment.begin()
                self._spare = segment
            else:
                segment.discard()

    def _recover(self) -> None:
        """Write what killed replicas left."""
        for contents, abandoned in self._spool.abandoned():
            rows = contents.rows
            with self._lock:
                self._accepted += rows
                self._queued += rows
                self._recovered += rows
            # The process may have been killed after it had written them.
            self._write(contents, is_repeated=True)
            if self._gave_up:
                abandoned.leave()
                return
            abandoned.discard()
            if rows:
                logger.warning("A replica ended with %d rows in its spool; they are written now.", rows)

    def _write(self, contents: Contents, *, is_repeated: bool = False) -> None:
        if contents.requests or contents.losses:
            self._deliver(_Batch(contents.requests, contents.losses, contents.batch_id, is_repeated))

    def _deliver(self, batch: _Batch) -> None:
        """Write a batch, and retry while the registry is unavailable. Only a request that it refuses is dropped."""
        pause_s = _FIRST_PAUSE_S
        while not self._gave_up:
            started = time.perf_counter()
            try:
                done = self._ingest.write(batch.requests, batch.losses, batch.batch_id, is_repeated=batch.is_repeated)
            except Exception as error:  # noqa: BLE001 - one row must not end the log of all others
                self._note_error(error, batch)
                if self._is_to_be_divided(batch, error):
                    self._divide(batch)
                    return
                batch.is_repeated = True
                if self._closing.wait(pause_s):
                    # Retries are frequent while ``close`` waits.
                    threading.Event().wait(_FIRST_PAUSE_S)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            else:
                self._finish(batch, done, time.perf_counter() - started)
                return

    def _is_to_be_divided(self, batch: _Batch, error: Exception) -> bool:
        """Whether a smaller batch may be written where this one was not."""
        if isinstance(error, DeadlineExceededError):
            with self._lock:
                self._timeouts += 1
            batch.timeouts += 1
            # One request is small: more likely the database is slow for all.
            return _halves(batch.requests) is not None or batch.timeouts >= _TIMEOUTS_OF_ONE
        return not isinstance(error, _PASSING)

    def _divide(self, batch: _Batch) -> None:
        """Split a refused batch in halves to isolate the request that causes the refusal."""
        if batch.requests and batch.losses:
            # By the id of the whole, which another process writes again if this one ends before all parts are written.
            self._deliver(_Batch((), batch.losses, batch.batch_id, batch.is_repeated))
            batch.losses = ()
        halves = _halves(batch.requests)
        if halves is not None:
            self._deliver(_Batch(halves[0], (), f"{batch.batch_id}a", batch.is_repeated))
            self._deliver(_Batch(halves[1], (), f"{batch.batch_id}b", batch.is_repeated))
            return
        refused = [lost(request, LossReason.REFUSED) for request in batch.requests]
        if not refused:
            logger.error("Counts of lost rows can't be written: %s.", batch.losses)
            return
        with self._lock:
            if self._gave_up:
                return
            self._queued -= batch.rows
            for loss in refused:
                self._lose(loss)

    def _finish(self, batch: _Batch, done: Written, seconds: float) -> None:
        with self._lock:
            if self._gave_up:
                return  # close() has counted these rows
            self._queued -= batch.rows
            self._written += done.kept
            self._withheld += done.withheld
            for loss in done.lost:
                self._lost[loss.reason] += loss.rows
                self._hooks.predictions_lost(loss.reason, loss.rows)
            self._hooks.predictions_written(done.kept, done.withheld, seconds)
            self._hooks.predictions_queued(self._queued)
            was_failing, self._error = self._error, None
        if was_failing:
            logger.warning("The prediction log writes again, after %s. %s", was_failing, self.describe())

    def _note_error(self, error: Exception, batch: _Batch) -> None:
        code = error.code if isinstance(error, MLFrameworkError) else type(error).__name__
        with self._lock:
            is_new, self._error = self._error != code, code
        if is_new:
            logger.warning("%d predictions are not written now: %s", batch.rows, error)

    def _leave(self) -> None:
        """Remove the segments; leave those with records to another replica."""
        with self._lock:
            segments = [*self._full, self._active, *([] if self._spare is None else [self._spare])]
            self._full.clear()
            self._active, self._spare = Spool(None).segment(), None  # later rows are counted as lost
            for segment in segments:
                if segment.is_empty:
                    segment.discard()
                else:
                    segment.leave()


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
        self._renderer = RequestRenderer()

    async def record(
        self, target: Target, prediction: Prediction, arrived: float, size: int, threads: FairThreads
    ) -> None:
        """Record an answer, unless the policy of its tenant is ``nothing``. Call it before the answer is sent.

        Args:
            target: The target of the request.
            prediction: The answer.
            arrived: When the request arrived, on the event loop's clock, seconds.
            size: Bytes of the request's body.
            threads: Those of the predictions. What takes long is rendered there, as a part of the tenant's share.
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
            (time.monotonic() - arrived) * 1000,  # the clock of the loop, whose own time stands still within a turn
            version.signature,
            prediction.columns,
            answer.predictions,
            answer.probabilities,
            policy,
        )
        values = request.rows * len(request.columns)
        is_small = request.rows <= _ROWS_ON_LOOP and values <= _VALUES_ON_LOOP and size <= _BYTES_ON_LOOP
        try:
            if is_small:
                rendered = self._renderer.render(request)
            else:
                rendered = await threads.submit(target.tenant, self._renderer.render, request)
        except (TypeError, ValueError):
            self.log.lose(lost(request, LossReason.REFUSED))
        else:
            self.log.append(rendered)

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
        """Write the spool, within a few seconds."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.log.close()


def _halves(
    requests: Sequence[RenderedRequests],
) -> tuple[Sequence[RenderedRequests], Sequence[RenderedRequests]] | None:
    """Split requests into two halves; None if there is one request or none."""
    if len(requests) == 1 and len(requests[0].parts) > 1:
        requests = requests[0].split()
    middle = len(requests) // 2
    return (requests[:middle], requests[middle:]) if middle else None
