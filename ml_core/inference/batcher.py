"""The batcher of one loaded model: requests that arrive together are predicted together.

There is no waiting window. A batch is what has gathered while the model was busy, or, for a short model, what the event
loop received in the same turn. So an idle model answers at once, and a busy one takes larger batches instead of longer
queues.

Where a batch runs follows from what the model's calls have cost so far (``CostModel``):

==================  ===========================================================================
under 50 µs         in the request itself: gathering would cost more than it saves
under 2 ms          on the event loop, at the end of its turn
longer, or unknown  on a thread; the next batch gathers meanwhile
==================  ===========================================================================

A cost is known by the number of rows, which says nothing of how long their strings are. So rows with strings of a large
request go to a thread whatever was learned, and nothing is learned from them.
"""

from __future__ import annotations

import asyncio
import logging
import math
import sys
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ml_core.domain.columns import Columns, concatenate
from ml_core.exceptions import DeadlineExceededError, PredictionError, QueueFullError
from ml_core.inference.cost import CostModel, DrainRate
from ml_core.models.loading import LoadedModel
from ml_core.observability import NO_HOOKS, Hooks

logger = logging.getLogger(__name__)

AT_ONCE_BELOW_S = 50e-6
"""A call shorter than this runs in the request: creating and waking a future takes about 10 µs."""
ON_LOOP_BELOW_S = 2e-3
"""A call longer than this would hold up the other requests of the event loop."""
MAX_RETRY_AFTER_S = 30
"""The longest pause that is asked for: what is known of the queue is no longer true much later."""
STRINGS_ON_LOOP_BYTES = 16_384
"""Requests of one call that are larger together go to a thread if the model reads strings. It bounds the characters:
splitting and hashing 1,000 of them takes about 60 µs."""


class Answer(NamedTuple):
    """Predictions ``(n_rows,)`` and, where asked for and available, probabilities ``(n_rows, n_classes) float64``."""

    predictions: NDArray[Any]
    probabilities: NDArray[np.float64] | None


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
    """Queues the requests of one model on one event loop.

    Args:
        model: Answers; its calls may run on another thread, one at a time.
        executor: Where long calls run.
        max_queued_rows: Rows that may wait; more is refused. One request may always wait.
        max_batch_rows: Rows in one call; a single request with more is one call of its own.
        hooks: Are called as rows are queued and predicted.
    """

    def __init__(
        self,
        model: LoadedModel,
        executor: Executor,
        *,
        max_queued_rows: int,
        max_batch_rows: int,
        hooks: Hooks = NO_HOOKS,
    ) -> None:
        self._model = model
        self._ref = model.version.ref
        self._hooks = hooks
        self._executor = executor
        self._max_queued_rows = max_queued_rows
        self._max_batch_rows = max_batch_rows
        self._cost = CostModel()
        inputs = model.version.signature.inputs
        reads_strings = any(not column.kind.is_numeric for column in inputs)
        self._max_size_on_loop = STRINGS_ON_LOOP_BYTES if reads_strings else sys.maxsize
        self._queue: deque[_Item] = deque()
        self._queued_rows = 0
        self._is_busy = False  # a batch runs or is about to
        self._drain = DrainRate()
        self._running_rows = 0
        self._running_since = 0.0

    async def predict(self, columns: Columns, rows: int, *, size: int, proba: bool, deadline: float) -> Answer:
        """Answer one request.

        Args:
            columns: As the model's signature made them.
            rows: Their number, at least 1.
            size: Bytes of the request they came in, at least the number of characters of their strings.
            proba: Whether probabilities are wanted.
            deadline: On the event loop's clock, seconds. The caller bounds its own wait by it as well; a caller that
                was cancelled costs no call.

        Raises:
            QueueFullError: Too many rows wait.
            DeadlineExceededError: The request waited until its deadline.
            PredictionError: The model can't answer these rows.
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
            loop.call_soon(self._run_next, loop)
        answer = await item.future
        # Here and not where the batch ends: in the request's own context, which a trace goes by.
        self._hooks.request_predicted(self._ref, rows, item.started_at - item.queued_at, loop.time() - item.started_at)
        return answer

    def _run_next(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        self._note_drained(now)
        batch, rows, size = self._gather(now)
        self._running_rows, self._running_since = rows, now
        if not batch:
            self._is_busy = False
        elif size <= self._max_size_on_loop and self._cost.estimate(rows) < ON_LOOP_BELOW_S:
            _deliver(batch, self._answer(batch, rows, size))
            self._continue(loop)
        else:
            running = loop.run_in_executor(self._executor, self._answer, batch, rows, size)
            running.add_done_callback(lambda done: self._finish(batch, done, loop))

    def _finish(
        self,
        batch: list[_Item],
        done: asyncio.Future[list[Answer | PredictionError]],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        if done.cancelled():  # the executor was shut down
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
        # From the start of a batch to the start of the next, or to idleness: what the loop does in between counts.
        if self._running_rows:
            self._drain.observe(self._running_rows, now - self._running_since)
            self._running_rows = 0

    def _gather(self, now: float) -> tuple[list[_Item], int, int]:
        """The next batch, its rows and its size; drops who has left the queue and refuses who is late."""
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
        """One answer or error per item; an item that the model can't answer does not harm the others."""
        try:
            answer = self._call([item.columns for item in batch], rows, size, proba=any(item.proba for item in batch))
        except PredictionError as error:
            if len(batch) == 1:
                return [error]
            return [outcome for item in batch for outcome in self._answer([item], item.rows, item.size)]
        return _split(batch, answer)

    def _call(self, tables: Sequence[Columns], rows: int, size: int, *, proba: bool) -> Answer:
        started, cpu_started = time.perf_counter(), time.thread_time()
        try:
            columns = concatenate(tables)
            if proba:
                return Answer(*self._model.predict_both(columns))
            return Answer(self._model.predict(columns), None)
        except PredictionError:
            raise
        except Exception as error:
            logger.exception("%s failed unexpectedly.", self._ref)
            raise PredictionError.wrap(error, f"{self._ref} could not predict", **self._names()) from error
        finally:
            if size <= self._max_size_on_loop:
                self._cost.observe(rows, time.thread_time() - cpu_started)
            self._hooks.batch_predicted(len(tables), rows, time.perf_counter() - started)

    def _queue_full(self, rows: int) -> QueueFullError:
        # The batch that runs goes first, then as many as have to leave for these to fit, or all of them.
        ahead = self._running_rows + min(self._queued_rows, self._queued_rows + rows - self._max_queued_rows)
        pause_s = math.ceil(self._drain.seconds_for(ahead))
        return QueueFullError(
            f"{self._queued_rows} rows wait for this model already; {rows} more are over its bound of "
            f"{self._max_queued_rows}.",
            remedy="Try again after the pause that Retry-After names, or add replicas.",
            retry_after_s=min(max(1, pause_s), MAX_RETRY_AFTER_S),
            **self._names(),
        )

    def _too_late(self) -> DeadlineExceededError:
        return DeadlineExceededError(
            "The request waited for its model until its deadline.",
            remedy="Send fewer rows at a time, allow more in x-request-timeout-ms, or add replicas.",
            **self._names(),
        )

    def _names(self) -> dict[str, Any]:
        ref = self._ref
        return {"tenant_id": ref.tenant_id, "model_id": ref.model_id, "version": ref.version}


def _split(batch: Sequence[_Item], answer: Answer) -> list[Answer | PredictionError]:
    if len(batch) == 1:
        return [answer]
    parts: list[Answer | PredictionError] = []
    start = 0
    for item in batch:
        rows = slice(start, start + item.rows)
        wants_probabilities = item.proba and answer.probabilities is not None
        parts.append(
            Answer(answer.predictions[rows], answer.probabilities[rows] if wants_probabilities else None)  # type: ignore[index]
        )
        start += item.rows
    return parts


def _deliver(batch: Sequence[_Item], outcomes: Sequence[Answer | PredictionError]) -> None:
    for item, outcome in zip(batch, outcomes, strict=True):
        if item.future.done():
            continue  # its client has left
        if isinstance(outcome, PredictionError):
            item.future.set_exception(outcome)
        else:
            item.future.set_result(outcome)
