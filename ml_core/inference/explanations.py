"""Explanations in a cell: bounded, and on a thread of their own, so that predictions do not wait for them.

Tenants take turns on it by the processor time that they used, a step of a request at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

from ml_core.domain.columns import take
from ml_core.domain.explanation import MAX_EXPLAINED_ROWS, Explanation, joined
from ml_core.evaluation.explaining import Explainer
from ml_core.exceptions import RequestTooLargeError
from ml_core.inference.fair_queue import Shares
from ml_core.inference.fair_threads import FairThreads
from ml_core.inference.gate import TenantGate
from ml_core.inference.pointers import version_key
from ml_core.inference.routing import Table
from ml_core.models.loading import LoadedModel

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

MAX_MODEL_BYTES = 128 * 2**20
"""The largest model that is explained: what is prepared for a request takes about as much memory once more."""
MAX_WORK = 1_000_000_000
"""Elementary operations for one request, of about 5 ns each (``benchmarks/explain.py``)."""
MAX_NUMBERS = 250_000
"""Contributions in one answer, rows times columns times scores: about 6 MB of JSON."""
# A step of a request ends within some 50 ms, if one row does: then other requests get their turn, and a request whose
# deadline passed, or whose client left, goes no further.
_STEP_WORK = 10_000_000
_WAITING = 32
_WAITING_PER_TENANT = 8


class Explanations:
    """Explains predictions on one thread, for one event loop.

    Args:
        shares: Of the thread; charged with the processor time of each step.
        thread_initializer: Runs at the start of the thread.

    Attributes:
        threads: The thread, and those of lost calls.
    """

    def __init__(self, shares: Shares, thread_initializer: Callable[[], None] | None) -> None:
        self.threads = FairThreads(shares, "mlcore-explain", thread_initializer, threads=1)
        self._gate = TenantGate("explanations", total=_WAITING, per_tenant=_WAITING_PER_TENANT)

    async def explain(self, model: LoadedModel, table: Table, deadline: float) -> Explanation:
        """Explain the predictions of a model.

        Args:
            model: The model.
            table: The rows.
            deadline: On the event loop's clock, seconds.

        Raises:
            SignatureMismatchError: A row does not fit the signature.
            RequestTooLargeError: The model has too many nodes, columns or classes for so many rows.
            QueueFullError: Too many explanations are waiting.
            DeadlineExceededError: The model did not return in time.
            ModelNotReadyError: Calls of the tenant's models have not returned.
            PredictionError: The model failed, or can't be explained.
        """
        tenant, version = model.version.ref.tenant_id, version_key(model.version)
        self._gate.enter(tenant)
        try:
            columns = await self.on_thread(tenant, table.columns, model.version.signature)
            if await self.on_thread(tenant, lambda: model.memory_bytes) > MAX_MODEL_BYTES:
                raise _too_much(table.rows, 0)
            explainer = await self.threads.submit(tenant, Explainer, model, deadline=deadline, version=version)
            most = _most_rows(explainer, model)
            if table.rows > most:
                raise _too_much(table.rows, most)
            size = max(1, min(explainer.rows_at_once, _STEP_WORK // explainer.work_per_row))
            steps = [take(columns, slice(start, start + size)) for start in range(0, table.rows, size)]
            found = [
                await self.threads.submit(tenant, explainer.explain, step, deadline=deadline, version=version)
                for step in steps
            ]
            return joined(found)
        finally:
            self._gate.leave(tenant)

    def on_thread(self, tenant: str, function: Callable[[*Ts], T], *arguments: *Ts) -> asyncio.Future[T]:
        """Run a function on the thread, when it is the tenant's turn."""
        return self.threads.submit(tenant, function, *arguments)

    def close(self) -> None:
        """Stop the thread after the call in progress."""
        self.threads.close()


def _most_rows(explainer: Explainer, model: LoadedModel) -> int:
    """The rows of a model that one request may have explained."""
    signature = model.version.signature
    numbers = len(signature.inputs) * max(1, len(signature.output.classes))
    return min(MAX_EXPLAINED_ROWS, MAX_WORK // explainer.work_per_row, MAX_NUMBERS // numbers)


def _too_much(rows: int, most: int) -> RequestTooLargeError:
    if most:
        remedy = f"Send at most {most} {'row' if most == 1 else 'rows'} per request."
    else:
        remedy = "Explain it in a process of your own with MLSystem.explain, which has no limit."
    return RequestTooLargeError(
        f"Explaining {rows} {'row' if rows == 1 else 'rows'} of this model costs too much for a replica.",
        remedy=remedy,
        limit=most,
        actual=rows,
    )
