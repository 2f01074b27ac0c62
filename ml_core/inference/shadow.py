"""Shadows: versions that predict the requests of the stable version after it answered; the results are compared.

All shadows of a replica share one thread, in fair order between tenants, and a bounded queue; requests that do not fit,
or have waited for ``WITHIN_S``, are dropped and counted. No request waits for a shadow or fails because of one.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml_core.domain.version import ServableVersion
from ml_core.exceptions import MLFrameworkError
from ml_core.inference.fair_queue import Shares
from ml_core.inference.fair_threads import FairThreads
from ml_core.inference.model_table import ModelTable
from ml_core.inference.pointers import PointerKey, VersionKey, version_key
from ml_core.inference.routing import Table

logger = logging.getLogger(__name__)

MAX_WAITING_REQUESTS = 256
"""Queued requests of all tenants; more are dropped."""
MAX_WAITING_BYTES = 4 * 2**20
"""Size of the bodies of queued requests; more are dropped, unless the queue is empty. Parsed rows take several times as
much memory."""
WITHIN_S = 60.0
"""Seconds after a request in which its shadow is asked and answers; a call that takes longer is lost."""
AGREES_WITHIN = 0.01
"""Relative difference up to which two numbers agree: versions trained on different rows never give equal numbers."""


@dataclass(slots=True)
class ShadowCounts:
    """The counts of a shadow in this replica.

    Attributes:
        rows: Rows that both versions predicted.
        agreements: Rows with equal predictions; see ``AGREES_WITHIN`` for numbers.
        differences: Rows with different predictions.
        errors: Requests that the shadow failed to predict, or not in time.
        not_loaded: Requests that arrived while the shadow was not in memory.
        dropped: Requests that did not fit into the queue.
    """

    rows: int = 0
    agreements: int = 0
    differences: int = 0
    errors: int = 0
    not_loaded: int = 0
    dropped: int = 0


class Shadows:
    """Runs the shadows of one replica.

    Args:
        table: Pointers and models.
        shares: Of the thread; charged with the processor time of each request.
        thread_initializer: Runs at the start of the prediction thread.

    Attributes:
        threads: The thread, and those of lost calls.
    """

    def __init__(self, table: ModelTable, shares: Shares, thread_initializer: Callable[[], None] | None = None) -> None:
        self._table = table
        self.threads = FairThreads(shares, "mlcore-shadow", thread_initializer, threads=1)
        self._lock = threading.Lock()
        self._counts: dict[tuple[PointerKey, VersionKey], ShadowCounts] = {}
        self._requests = self._bytes = 0

    def offer(self, pointer: PointerKey, version: ServableVersion, rows: Table, predictions: NDArray[Any]) -> None:
        """Queue an answered request for a shadow. Does not wait.

        Args:
            pointer: The pointer.
            version: Its shadow.
            rows: The rows of the request.
            predictions: The predictions of the stable version, ``(n_rows,)``.
        """
        with self._lock:
            counts = self._counts.setdefault((pointer, version_key(version)), ShadowCounts())
            is_over = self._requests > 0 and self._bytes + rows.size > MAX_WAITING_BYTES
            if is_over or self._requests >= MAX_WAITING_REQUESTS:
                counts.dropped += 1
                return
            self._requests += 1
            self._bytes += rows.size
        # A copy, because reading rows sets attributes on them. Submitted after the answer is sent.
        asyncio.get_running_loop().call_soon(self._submit, version, counts, copy.copy(rows), predictions)

    def describe(self) -> list[dict[str, Any]]:
        """The counts of the present shadows, without names of tenants and models, for health."""
        with self._lock:
            for key in [key for key in self._counts if not self._is_current(*key)]:
                del self._counts[key]
            return [{"digest": version[3][:12], **asdict(counts)} for (_, version), counts in self._counts.items()]

    def close(self) -> None:
        """Drop the queue."""
        self.threads.close()

    def _submit(self, version: ServableVersion, counts: ShadowCounts, rows: Table, predictions: NDArray[Any]) -> None:
        deadline = asyncio.get_running_loop().time() + WITHIN_S
        tenant, arguments = version.ref.tenant_id, (version, counts, rows, predictions)
        try:
            asking = self.threads.submit(tenant, self._ask, *arguments, deadline=deadline, version=version_key(version))
        except RuntimeError:  # the threads are shut down
            logger.debug("A request for the shadow %s was dropped on shutdown.", version.ref)
        else:
            asking.add_done_callback(lambda done: self._ended(counts, rows, done))

    def _ended(self, counts: ShadowCounts, rows: Table, done: asyncio.Future[None]) -> None:
        with self._lock:
            self._requests -= 1
            self._bytes -= rows.size
        if not done.cancelled() and done.exception() is not None:  # it was not asked or did not answer in time
            self._count(counts, errors=1)

    def _ask(self, version: ServableVersion, counts: ShadowCounts, rows: Table, predictions: NDArray[Any]) -> None:
        try:
            resident = self._table.acquire(version)
            if resident is None:  # not awaited, because one thread serves all shadows
                self._table.preload(version)
                self._count(counts, not_loaded=1)
                return
            try:
                model = resident.model
                answer = model.predict(rows.columns(model.version.signature))
            finally:
                self._table.release(resident)
            same = agreements(predictions, answer)
            self._count(counts, rows=rows.rows, agreements=same, differences=rows.rows - same)
        except Exception as error:  # a shadow must not affect requests
            level = logging.DEBUG if isinstance(error, MLFrameworkError) else logging.ERROR
            logger.log(level, "The shadow %s could not answer.", version.ref, exc_info=error)
            self._count(counts, errors=1)

    def _count(self, counts: ShadowCounts, **more: int) -> None:
        with self._lock:
            for name, number in more.items():
                setattr(counts, name, getattr(counts, name) + number)

    def _is_current(self, pointer: PointerKey, version: VersionKey) -> bool:
        present = self._table.pointer(pointer)
        return present is not None and present.shadow_key == version


def agreements(stable: NDArray[Any], shadow: NDArray[Any]) -> int:
    """Count the equal predictions of two versions, each ``(n_rows,)``."""
    if stable.dtype.kind == "f" and shadow.dtype.kind == "f":
        return int(np.isclose(shadow, stable, rtol=AGREES_WITHIN, atol=0.0, equal_nan=True).sum())
    return sum(mine == theirs for mine, theirs in zip(stable.tolist(), shadow.tolist(), strict=True))
