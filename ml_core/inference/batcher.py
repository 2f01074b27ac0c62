"""The batcher of a loaded model: concurrent requests are predicted in one call.

There is no batching window. A batch consists of the requests that arrived while the model was busy or, for a fast
model, in the same turn of the event loop. An idle model answers immediately; a busy one gets larger batches.

The measured cost of the model (``CostModel``) decides where a batch runs:

==================  ===============================================================================================
under 50 µs         in the request, without batching
under 2 ms          on the event loop, at the end of its turn; in the request, if it is the only one of its tenant
longer, or unknown  on a thread
==================  ===============================================================================================

A request whose tenant has no other waits for nothing that could be predicted with it: beside a flood of another tenant,
each further turn of the loop takes milliseconds.

The cost is measured by number of rows, not by length of strings. Large requests with strings therefore always run on a
thread, and do not count for this. Neither do models with code of their owner: it may sleep or hang, which processor
time does not show.

While other tenants have calls on the threads, a call has as many rows as take about ``PART_S``, and those of a larger
request are divided: between two parts the others have their turns. The costs of all calls, fixed and for each row,
decide how many that are; a model whose calls have a high fixed cost gets longer ones. Predictions are by row, so the
answers are those of one call, to the last bit where rows that BLAS computes together stay together (``TOGETHER``).
"""

from __future__ import annotations

import asyncio
import copy
import logging
import math
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ml_core.domain.columns import Columns, concatenate, take
from ml_core.exceptions import DeadlineExceededError, ModelNotReadyError, PredictionError, QueueFullError
from ml_core.inference.costs import CostModel, DrainRate
from ml_core.inference.fair_queue import Shares
from ml_core.inference.fair_threads import FairThreads
from ml_core.inference.pointers import version_key
from ml_core.models.loading import LoadedModel
from ml_core.observability import NO_HOOKS, Hooks

logger = logging.getLogger(__name__)

AT_ONCE_BELOW_S = 50e-6
"""A call shorter than this runs in the request: creating and waking a future takes about 10 µs."""
ON_LOOP_BELOW_S = 2e-3
"""A longer call would block the other requests of the event loop."""
PART_S = 5e-3
"""Processor time of a call while other tenants wait for the threads."""
TOGETHER = 16
"""The parts of a request, but the last, have a multiple of so many rows. BLAS multiplies up to 8 rows at a time, and
the last few with another order of additions: last bits differ, as they do between single rows and batches."""
MAX_LOST_CALLS = 2
"""Calls of a version that are lost (``fair_threads``), after which it is asked no more until one returns."""
MAX_RETRY_AFTER_S = 30
"""The longest Retry-After: an estimate of the queue is not valid for longer."""
STRINGS_ON_LOOP_BYTES = 16_384
"""A larger batch runs on a thread if the model reads strings. The bound limits the characters: splitting and hashing
1,000 of them takes about 60 µs."""


class Answer(NamedTuple):
    """Predictions ``(n_rows,)`` and, if requested, what the model has.

    Probabilities are ``(n_rows, n_classes) float64``, anomaly scores ``(n_rows,) float64``.
    """

    predictions: NDArray[Any]
    probabilities: NDArray[np.float64] | None
    scores: NDArray[np.float64] | None = None


@dataclass(slots=True, eq=False)
class _Item:
    """A request; ``taken`` of its rows were given to the model, and ``answers`` are those to the parts before."""

    columns: Columns
    rows: int
    size: int
    proba: bool
    deadline: float
    future: asyncio.Future[Answer]
    queued_at: float
    started_at: float = 0.0
    taken: int = 0
    answers: list[Answer] | None = None

    @property
    def item(self) -> _Item:
        """Its request: it is a part itself unless it is divided."""
        return self

    def take(self, rows: int) -> _Item | _Part:
        """The next rows."""
        start, self.taken = self.taken, self.taken + rows
        return self if rows == self.rows else _Part(self, take(self.columns, slice(start, self.taken)), rows)


class _Part(NamedTuple):
    """Rows of a request that is divided."""

    item: _Item
    columns: Columns
    rows: int


class _Batch:
    """What is predicted in one call."""

    __slots__ = ("is_running", "parts", "rows", "size")

    def __init__(self) -> None:
        self.parts: list[_Item | _Part] = []
        self.rows = self.size = 0
        self.is_running = False  # on a thread, which sets it

    def add(self, item: _Item, rows: int) -> None:
        """Add the next rows of a request."""
        self.parts.append(item.take(rows))
        self.rows += rows
        self.size += item.size


class Batcher:
    """Queues and batches the requests of one model on one event loop.

    Args:
        model: The model. One call at a time runs, possibly on another thread; calls that are lost run beside it.
        threads: Run long calls, when it is the tenant's turn.
        loop_shares: Of the event loop; charged with the calls on it.
        max_queued_rows: Limit of queued rows; an empty queue accepts any request.
        max_batch_rows: Limit of rows in one call; a larger request needs several calls.
        hooks: Called when rows are queued and predicted.
    """

    def __init__(
        self,
        model: LoadedModel,
        threads: FairThreads,
        loop_shares: Shares,
        *,
        max_queued_rows: int,
        max_batch_rows: int,
        hooks: Hooks = NO_HOOKS,
    ) -> None:
        self._model = model
        self._ref = model.version.ref
        self._hooks = hooks
        self._threads = threads
        self._loop_shares = loop_shares
        self._max_queued_rows = max_queued_rows
        self._max_batch_rows = max_batch_rows
        self._cost = CostModel()  # of calls that may run on the loop
        self._work = CostModel()  # of all calls but the first, which may import and compile
        self._is_first = True
        inputs = model.version.signature.inputs
        reads_strings = any(not column.kind.is_numeric for column in inputs)
        self._max_size_on_loop = STRINGS_ON_LOOP_BYTES if reads_strings else sys.maxsize
        if model.version.modules:
            self._max_size_on_loop = -1
        self._queue: deque[_Item] = deque()
        self._queued_rows = 0
        self._reserved_rows = 0
        self._is_busy = False  # a batch runs or is about to
        self._lost: list[_Batch] = []  # had not returned when looked at
        self._drain = DrainRate()
        self._running_rows = 0
        self._running_since = 0.0

    def reserved(self, rows: int) -> AbstractContextManager[None]:
        """Keep room in the queue for a request that takes long to read.

        Raises:
            QueueFullError, ModelNotReadyError: As ``predict``.
        """
        self._check_room(rows)
        return self._reserving(rows)

    @contextmanager
    def _reserving(self, rows: int) -> Iterator[None]:
        self._reserved_rows += rows
        try:
            yield
        finally:
            self._reserved_rows -= rows

    async def predict(
        self, columns: Columns, rows: int, *, size: int, proba: bool, deadline: float, is_only: bool = False
    ) -> Answer:
        """Predict the rows of one request.

        Args:
            columns: Canonical columns.
            rows: The number of rows, at least 1.
            size: Bytes of the request body; an upper bound of the characters of its strings.
            proba: Whether to predict probabilities, or anomaly scores.
            deadline: On the event loop's clock, seconds. The caller must bound its wait by it as well.
            is_only: Whether the tenant has no other request, which would be predicted with it.

        Raises:
            QueueFullError: The queue is full.
            DeadlineExceededError: The deadline passed while the request was queued or predicted.
            ModelNotReadyError: Calls of the model have not returned.
            PredictionError: The model failed on these rows.
        """
        cost_s = math.inf if self._is_busy or size > self._max_size_on_loop else self._cost.estimate(rows)
        if cost_s < (ON_LOOP_BELOW_S if is_only else AT_ONCE_BELOW_S):
            self._loop_shares.charge(self._ref.tenant_id, cost_s)
            started = time.perf_counter()
            answer = self._call([columns], rows, size, proba=proba)
            self._hooks.request_predicted(self._ref, rows, 0.0, time.perf_counter() - started)
            return answer
        self._check_room(rows)
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
        now, tenant = loop.time(), self._ref.tenant_id
        self._note_drained(now)
        batch = self._gather(now)
        self._running_rows, self._running_since = batch.rows, now
        if not batch.parts:
            self._is_busy = False
        elif batch.size <= self._max_size_on_loop and (cost_s := self._cost.estimate(batch.rows)) < ON_LOOP_BELOW_S:
            self._loop_shares.charge(tenant, cost_s)
            _deliver(batch, self._answer(batch.parts, batch.rows, batch.size))
            self._continue(loop)
        else:
            deadline = max(part.item.deadline for part in batch.parts)
            version = version_key(self._model.version)
            running = self._threads.submit(tenant, self._answer_on_thread, batch, deadline=deadline, version=version)
            running.add_done_callback(lambda done: self._finish(batch, done, loop))

    def _finish(
        self, batch: _Batch, done: asyncio.Future[list[Answer | PredictionError]], loop: asyncio.AbstractEventLoop
    ) -> None:
        if done.cancelled():  # the threads were shut down
            for part in batch.parts:
                part.item.future.cancel()
        elif (error := done.exception()) is None:
            _deliver(batch, done.result())
        else:
            if batch.is_running:
                self._lost.append(batch)
            if isinstance(error, PredictionError):  # of the threads; the model's own are results
                error.__dict__.update(self._ref.attributes)
            else:
                error = PredictionError.wrap(error, f"{self._ref} could not predict", **self._ref.attributes)
            _deliver(batch, [copy.copy(error) for _ in batch.parts])
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

    def _gather(self, now: float) -> _Batch:
        """The next batch. Skips cancelled requests and refuses those past their deadline."""
        batch, most = _Batch(), self._most_rows()
        queued_rows = self._queued_rows
        while self._queue and batch.rows < most:
            item = self._queue[0]
            left, is_gone = item.rows - item.taken, item.future.done()
            if is_gone or item.deadline <= now:
                self._queue.popleft()
                self._queued_rows -= left
                if not is_gone:
                    self._hooks.request_refused("deadline")
                    item.future.set_exception(self._too_late())
                continue
            if batch.parts and batch.rows + left > most:
                break
            if not item.taken:
                item.started_at = now
            if left > most:
                of_equal_parts = math.ceil(left / math.ceil(left / most))
                left = min(most // TOGETHER * TOGETHER or most, TOGETHER * math.ceil(of_equal_parts / TOGETHER))
            batch.add(item, left)
            self._queued_rows -= left
            if item.taken == item.rows:
                self._queue.popleft()
        self._hooks.rows_dequeued(queued_rows - self._queued_rows)
        return batch

    def _most_rows(self) -> int:
        """The rows of the next call."""
        # Twice as many, since a size that is not known is estimated by the least rows of its bucket.
        if self._work.estimate(2 * self._queued_rows) <= PART_S or self._threads.is_alone(self._ref.tenant_id):
            return self._max_batch_rows
        return min(self._max_batch_rows, max(TOGETHER, self._work.rows_within(PART_S) // TOGETHER * TOGETHER))

    def _answer_on_thread(self, batch: _Batch) -> list[Answer | PredictionError]:
        batch.is_running = True
        try:
            return self._answer(batch.parts, batch.rows, batch.size)
        finally:
            batch.is_running = False

    def _answer(self, parts: Sequence[_Item | _Part], rows: int, size: int) -> list[Answer | PredictionError]:
        """One answer or error per part."""
        proba = any(part.item.proba for part in parts)
        try:
            answer = self._call([part.columns for part in parts], rows, size, proba=proba)
        except PredictionError as error:
            if len(parts) == 1:
                return [error]
            # Repeated one by one, so that rows of one request can't fail the others. Not for those who have left, since
            # a model may take long to fail.
            return [self._too_late() if part.item.future.done() else self._answer_alone(part) for part in parts]
        return _split(parts, answer)

    def _answer_alone(self, part: _Item | _Part) -> Answer | PredictionError:
        (outcome,) = self._answer([part], part.rows, part.item.size)
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
            cpu_s = time.thread_time() - cpu_started
            if size <= self._max_size_on_loop:  # long strings would distort the cost per row
                self._cost.observe(rows, cpu_s)
            if not self._is_first:
                self._work.observe(rows, cpu_s)
            self._is_first = False
            self._hooks.batch_predicted(len(tables), rows, time.perf_counter() - started)

    def _check_room(self, rows: int) -> None:
        waiting = self._queued_rows + self._reserved_rows
        if waiting and waiting + rows > self._max_queued_rows:
            self._hooks.request_refused("queue_full")
            raise self._queue_full(rows, waiting)
        if self._lost:
            self._check_returns()

    def _check_returns(self) -> None:
        self._lost = [batch for batch in self._lost if batch.is_running]
        if len(self._lost) >= MAX_LOST_CALLS:
            self._hooks.request_refused("lost_calls")
            raise ModelNotReadyError(
                f"{len(self._lost)} calls of version {self._ref.version} of model {self._ref.model_id} have not "
                "returned in time.",
                remedy="Correct the code of the model, or roll back to another version. Try again once they return.",
                retry_after_s=MAX_RETRY_AFTER_S,
                **self._ref.attributes,
            )

    def _queue_full(self, rows: int, waiting: int) -> QueueFullError:
        # Rows to predict before this request fits: the running batch, then the excess of the queue, or all of it.
        ahead = self._running_rows + min(waiting, waiting + rows - self._max_queued_rows)
        pause_s = math.ceil(self._drain.seconds_for(ahead))
        return QueueFullError(
            f"The queue of this model has {waiting} rows; {rows} more exceed its limit of {self._max_queued_rows}.",
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


def _split(parts: Sequence[_Item | _Part], answer: Answer) -> list[Answer | PredictionError]:
    if len(parts) == 1:
        return [answer]
    answers: list[Answer | PredictionError] = []
    start = 0
    for part in parts:
        rows = slice(start, start + part.rows)
        others = (each[rows] if part.item.proba and each is not None else None for each in answer[1:])
        answers.append(Answer(answer.predictions[rows], *others))
        start += part.rows
    return answers


def _deliver(batch: _Batch, outcomes: Sequence[Answer | PredictionError]) -> None:
    for part, outcome in zip(batch.parts, outcomes, strict=True):
        item = part.item
        if item.future.done():
            continue  # the client disconnected
        if isinstance(outcome, PredictionError):
            item.future.set_exception(outcome)
            continue
        if part is item:
            item.future.set_result(outcome)
            continue
        item.answers = [*(item.answers or ()), outcome]
        if item.taken == item.rows:
            item.future.set_result(_joined(item.answers))


def _joined(answers: Sequence[Answer]) -> Answer:
    """One answer to the parts of a request."""
    predictions, probabilities, scores = zip(*answers, strict=True)
    return Answer(
        np.concatenate(predictions),
        None if probabilities[0] is None else np.concatenate(probabilities),
        None if scores[0] is None else np.concatenate(scores),
    )
