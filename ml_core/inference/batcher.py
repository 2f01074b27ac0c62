"""The batcher of a loaded model: concurrent requests are predicted in one call.

There is no batching window. A batch consists of the requests that arrived while the model was busy or, for a fast
model, in the same turn of the event loop. An idle model answers immediately; a busy one gets larger batches.

The measured cost of the model (``CostModel``) decides where a batch runs:

==================  =======================================
under 50 µs         in the request, without batching
under 2 ms          on the event loop, at the end of its turn
longer, or unknown  on a thread
==================  =======================================

The cost is measured by number of rows, not by length of strings. Large requests with strings therefore always run on a
thread and are not measured. Neither are models with code of their owner: it may sleep or hang, which processor time
does not show.
"""

from __future__ import annotations

import asyncio
import logging
import math
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ml_core.domain.columns import Columns, concatenate
from ml_core.exceptions import DeadlineExceededError, PredictionError, QueueFullError
from ml_core.inference.fair_threads import FairThreads
from ml_core.models.loading import LoadedModel
from ml_core.observability import NO_HOOKS, Hooks

logger = logging.getLogger(__name__)

AT_ONCE_BELOW_S = 50e-6
"""A call shorter than this runs in the request: creating and waking a future takes about 10 µs."""
ON_LOOP_BELOW_S = 2e-3
"""A longer call would block the other requests of the event loop."""
MAX_RETRY_AFTER_S = 30
"""The longest Retry-After: an estimate of the queue is not valid for longer."""
STRINGS_ON_LOOP_BYTES = 16_384
"""A larger batch runs on a thread if the model reads strings. The bound limits the characters: splitting and hashing
1,000 of them takes about 60 µs."""
# Weight of the newest call in the moving average. A slow first call is forgotten after about twelve others.
_WEIGHT = 0.25


class CostModel:
    """Processor time of a call, in seconds, by number of rows.

    Each bucket of doubling size (1, 2-3, 4-7, … rows) has an exponentially weighted mean. Pass the processor time of
    the calling thread: wall time would include waiting for the interpreter lock.
    """

    def __init__(self) -> None:
        self._seconds: list[float | None] = [None] * 33

    def observe(self, rows: int, seconds: float) -> None:
        """Record a call."""
        bucket = min(rows.bit_length(), 32)
        before = self._seconds[bucket]
        self._seconds[bucket] = seconds if before is None else before + _WEIGHT * (seconds - before)

    def estimate(self, rows: int) -> float:
        """Estimate the seconds of a call; infinity before the first call.

        A size without a measurement has the upper bound that its neighbours give: at most that of a larger call, and
        at most proportional to that of a smaller call.
        """
        bucket = min(rows.bit_length(), 32)
        known = self._seconds[bucket]
        return self._bound(bucket) if known is None else known

    def _bound(self, bucket: int) -> float:
        smaller = next(((i, s) for i in range(bucket - 1, -1, -1) if (s := self._seconds[i]) is not None), None)
        larger = next((s for s in self._seconds[bucket + 1 :] if s is not None), math.inf)
        return larger if smaller is None else min(larger, smaller[1] * 2.0 ** (bucket - smaller[0]))


class DrainRate:
    """Rows per second that leave a busy queue, by the wall clock; gives the Retry-After of a refused request."""

    def __init__(self) -> None:
        self._rows = self._seconds = 0.0

    def observe(self, rows: int, seconds: float) -> None:
        """Record answered rows and the seconds since the rows before them."""
        self._rows += _WEIGHT * (rows - self._rows)
        self._seconds += _WEIGHT * (seconds - self._seconds)

    def seconds_for(self, rows: int) -> float:
        """Estimate the seconds until the rows are answered; 0 before the first measurement."""
        return rows * self._seconds / self._rows if self._rows else 0.0


class Answer(NamedTuple):
    """Predictions ``(n_rows,)`` and, if requested, what the model has.

    Probabilities are ``(n_rows, n_classes) float64``, anomaly scores ``(n_rows,) float64``.
    """

    predictions: NDArray[Any]
    probabilities: NDArray[np.float64] | None
    scores: NDArray[np.float64] | None = None


@dataclass(slots=True, eq=False)
class _Item:
    columns: Columns
    rows: int
    size: int
    proba: bool
    deadline: float
    future: asyncio.Future[Answer]
    queued_at: float
    started_at: float = 0.0


class Batcher:
    """Queues and batches the requests of one model on one event loop.

    Args:
        model: The model. One call at a time runs, possibly on another thread.
        threads: Run long calls, when it is the tenant's turn.
        max_queued_rows: Limit of queued rows; an empty queue accepts any request.
        max_batch_rows: Limit of rows in one call; a larger request is a call of its own.
        hooks: Called when rows are queued and predicted.
    """

    def __init__(
        self,
        model: LoadedModel,
        threads: FairThreads,
        *,
        max_queued_rows: int,
        max_batch_rows: int,
        hooks: Hooks = NO_HOOKS,
    ) -> None:
        self._model = model
        self._ref = model.version.ref
        self._hooks = hooks
        self._threads = threads
        self._max_queued_rows = max_queued_rows
        self._max_batch_rows = max_batch_rows
        self._cost = CostModel()
        inputs = model.version.signature.inputs
        reads_strings = any(not column.kind.is_numeric for column in inputs)
        self._max_size_on_loop = STRINGS_ON_LOOP_BYTES if reads_strings else sys.maxsize
        if model.version.modules:
            self._max_size_on_loop = -1
        self._queue: deque[_Item] = deque()
        self._queued_rows = 0
        self._is_busy = False  # a batch runs or is about to
        self._drain = DrainRate()
        self._running_rows = 0
        self._running_since = 0.0

    async def predict(self, columns: Columns, rows: int, *, size: int, proba: bool, deadline: float) -> Answer:
        """Predict the rows of one request.

        Args:
            columns: Canonical columns.
            rows: The number of rows, at least 1.
            size: Bytes of the request body; an upper bound of the characters of its strings.
            proba: Whether to predict probabilities, or anomaly scores.
            deadline: On the event loop's clock, seconds. The caller must bound its wait by it as well.

        Raises:
            QueueFullError: The queue is full.
            DeadlineExceededError: The deadline passed while the request was queued.
            PredictionError: The model failed on these rows.
        """
        if not self._is_busy and size <= self._max_size_on_loop and self._cost.estimate(rows) < AT_ONCE_BELOW_S:
            started = time.perf_counter()
            answer = self._call([columns], rows, size, proba=proba)
            self._hooks.request_predicted(self._ref, rows, 0.0, time.perf_counter() - started)
            return answer
        if self._queue and self._queued_rows + rows > self._max_queued_rows:
            self._hooks.request_refused("queue_full")
            raise self._queue_full(rows)
        loop = asyncio.get_running_loop()
        item = _Item(columns, rows, size, proba, deadline, loop.create_future(), loop.time())
        self._queue.append(item)
        self._queued_rows += rows
        self._hooks.rows_queued(rows)
        if not self._is_busy:
            self._is_busy = True
            # At the end of this turn, so that other requests of the turn join the batch.
            loop.call_soon(self._run_next, loop)
        answer = await item.future
        # Called here and not in _finish, because a trace needs the context of the request.
        self._hooks.request_predicted(self._ref, rows, item.started_at - item.queued_at, loop.time() - item.started_at)
        return answer

    def _run_next(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        self._note_drained(now)
        batch, rows, size = self._gather(now)
        self._running_rows, self._running_since = rows, now
        if not batch:
            self._is_busy = False
        elif size <= self._max_size_on_loop and (cost_s := self._cost.estimate(rows)) < ON_LOOP_BELOW_S:
            self._threads.shares.begin_at_once(self._ref.tenant_id)
            self._threads.shares.charge(self._ref.tenant_id, cost_s)
            _deliver(batch, self._answer(batch, rows, size))
            self._continue(loop)
        else:
            running = self._threads.submit(self._ref.tenant_id, self._answer, batch, rows, size)
            running.add_done_callback(lambda done: self._finish(batch, done, loop))

    def _finish(
        self,
        batch: list[_Item],
        done: asyncio.Future[list[Answer | PredictionError]],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        if done.cancelled():  # the threads were shut down
            for item in batch:
                item.future.cancel()
        else:
            _deliver(batch, done.result())
        self._continue(loop)

    def _continue(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._queue:
            loop.call_soon(self._run_next, loop)
        else:
            self._is_busy = False
            self._note_drained(loop.time())

    def _note_drained(self, now: float) -> None:
        # From the start of a batch to the start of the next, so the other work of the loop is included.
        if self._running_rows:
            self._drain.observe(self._running_rows, now - self._running_since)
            self._running_rows = 0

    def _gather(self, now: float) -> tuple[list[_Item], int, int]:
        """The next batch, its rows and its size. Skips cancelled requests and refuses those past their deadline."""
        batch: list[_Item] = []
        rows = size = 0
        queued_rows = self._queued_rows
        while self._queue:
            item = self._queue[0]
            if batch and rows + item.rows > self._max_batch_rows:
                break
            self._queue.popleft()
            self._queued_rows -= item.rows
            if item.future.done():
                continue
            if item.deadline <= now:
                self._hooks.request_refused("deadline")
                item.future.set_exception(self._too_late())
                continue
            item.started_at = now
            batch.append(item)
            rows += item.rows
            size += item.size
        self._hooks.rows_dequeued(queued_rows - self._queued_rows)
        return batch, rows, size

    def _answer(self, batch: Sequence[_Item], rows: int, size: int) -> list[Answer | PredictionError]:
        """One answer or error per item."""
        try:
            answer = self._call([item.columns for item in batch], rows, size, proba=any(item.proba for item in batch))
        except PredictionError as error:
            if len(batch) == 1:
                return [error]
            # Repeated one by one, so that rows of one request can't fail the others. Not for those who have left, since
            # a model may take long to fail.
            return [self._too_late() if item.future.done() else self._answer_alone(item) for item in batch]
        return _split(batch, answer)

    def _answer_alone(self, item: _Item) -> Answer | PredictionError:
        (outcome,) = self._answer([item], item.rows, item.size)
        return outcome

    def _call(self, tables: Sequence[Columns], rows: int, size: int, *, proba: bool) -> Answer:
        started, cpu_started = time.perf_counter(), time.thread_time()
        try:
            columns = concatenate(tables)
            if proba and self._model.version.signature.output.threshold is not None:
                predictions, scores = self._model.predict_scored(columns)
                return Answer(predictions, None, scores)
            if proba:
                return Answer(*self._model.predict_both(columns))
            return Answer(self._model.predict(columns), None)
        except PredictionError:
            raise
        except BaseException as error:  # SystemExit or KeyboardInterrupt of a model would end the event loop
            logger.exception("%s failed unexpectedly.", self._ref)
            raise PredictionError.wrap(error, f"{self._ref} could not predict", **self._ref.attributes) from error
        finally:
            if size <= self._max_size_on_loop:  # long strings would distort the cost per row
                self._cost.observe(rows, time.thread_time() - cpu_started)
            self._hooks.batch_predicted(len(tables), rows, time.perf_counter() - started)

    def _queue_full(self, rows: int) -> QueueFullError:
        # Rows to predict before this request fits: the running batch, then the excess of the queue, or all of it.
        ahead = self._running_rows + min(self._queued_rows, self._queued_rows + rows - self._max_queued_rows)
        pause_s = math.ceil(self._drain.seconds_for(ahead))
        return QueueFullError(
            f"The queue of this model has {self._queued_rows} rows; {rows} more exceed its limit of "
            f"{self._max_queued_rows}.",
            remedy="Try again after the pause that Retry-After names, or add replicas.",
            retry_after_s=min(max(1, pause_s), MAX_RETRY_AFTER_S),
            **self._ref.attributes,
        )

    def _too_late(self) -> DeadlineExceededError:
        return DeadlineExceededError(
            "The deadline passed while the request was queued.",
            remedy="Send fewer rows per request, raise x-request-timeout-ms, or add replicas.",
            **self._ref.attributes,
        )


def _split(batch: Sequence[_Item], answer: Answer) -> list[Answer | PredictionError]:
    if len(batch) == 1:
        return [answer]
    parts: list[Answer | PredictionError] = []
    start = 0
    for item in batch:
        rows = slice(start, start + item.rows)
        others = (each[rows] if item.proba and each is not None else None for each in answer[1:])
        parts.append(Answer(answer.predictions[rows], *others))
        start += item.rows
    return parts


def _deliver(batch: Sequence[_Item], outcomes: Sequence[Answer | PredictionError]) -> None:
    for item, outcome in zip(batch, outcomes, strict=True):
        if item.future.done():
            continue  # the client disconnected
        if isinstance(outcome, PredictionError):
            item.future.set_exception(outcome)
        else:
            item.future.set_result(outcome)
