"""Shadows: versions that predict what the stable version was asked, after it answered, and are only counted.

All run on one thread of their own, behind a bounded queue: what does not fit is dropped and counted. They share the
processors with the requests and may slow them as any neighbour does, but no request waits for one or fails with it.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml_core.domain.version import ServableVersion
from ml_core.exceptions import MLFrameworkError
from ml_core.inference.model_table import ModelTable
from ml_core.inference.pointers import PointerKey, version_key
from ml_core.inference.residents import VersionKey
from ml_core.inference.target import Table

logger = logging.getLogger(__name__)

MAX_WAITING_REQUESTS = 256
"""Requests of all tenants that wait to be asked of their shadows; more are dropped."""
MAX_WAITING_BYTES = 4 * 2**20
"""Bytes of their bodies together; likewise, but one may always wait. Parsed rows take several times as much."""
AGREES_WITHIN = 0.01
"""Two numbers agree that differ by at most this fraction of the stable version's: one that is retrained on newer rows
never gives the same digits."""


@dataclass(slots=True)
class ShadowCounts:
    """What a shadow did since it started in this replica.

    Attributes:
        rows: Rows that both versions answered.
        agreements: Rows with the same answer; see ``AGREES_WITHIN`` for numbers.
        differences: Rows with another one.
        errors: Requests that the shadow could not answer.
        not_loaded: Requests that came while it was not in memory.
        dropped: Requests for which the queue had no room.
    """

    rows: int = 0
    agreements: int = 0
    differences: int = 0
    errors: int = 0
    not_loaded: int = 0
    dropped: int = 0


class Shadows:
    """Asks the shadows of one replica.

    Args:
        table: Pointers and models.
        thread_initializer: Runs first on the thread that predicts.
    """

    def __init__(self, table: ModelTable, thread_initializer: Callable[[], None] | None = None) -> None:
        self._table = table
        self._thread = ThreadPoolExecutor(1, "mlcore-shadow", thread_initializer)
        self._lock = threading.Lock()
        self._counts: dict[tuple[PointerKey, VersionKey], ShadowCounts] = {}
        self._requests = self._bytes = 0

    def offer(self, pointer: PointerKey, rows: Table, predictions: NDArray[Any]) -> None:
        """Ask the pointer's shadow, if it has one, what its stable version just answered; returns at once.

        Args:
            pointer: The pointer.
            rows: What was asked.
            predictions: The stable version's, ``(n_rows,)``.
        """
        version = self._table.shadow(pointer)
        if version is None:
            return
        counts = self._counts_of(pointer, version)
        with self._lock:
            is_over = self._requests > 0 and self._bytes + rows.size > MAX_WAITING_BYTES
            if is_over or self._requests >= MAX_WAITING_REQUESTS:
                counts.dropped += 1
                return
            self._requests += 1
            self._bytes += rows.size
        # Its own copy, since reading rows notes things on them; and not before the answer went out.
        asyncio.get_running_loop().call_soon(self._submit, version, counts, copy.copy(rows), predictions)

    def describe(self) -> list[dict[str, Any]]:
        """The counts of the shadows that run, without the names of tenants and models: anybody may ask."""
        with self._lock:
            for key in [key for key in self._counts if not self._is_current(*key)]:
                del self._counts[key]
            return [
                {"digest": version[3][:12], **{f.name: getattr(counts, f.name) for f in fields(counts)}}
                for (_, version), counts in self._counts.items()
            ]

    def close(self) -> None:
        """Drop what waits."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _submit(self, version: ServableVersion, counts: ShadowCounts, rows: Table, predictions: NDArray[Any]) -> None:
        try:
            self._thread.submit(self._ask, version, counts, rows, predictions)
        except RuntimeError:  # closed meanwhile
            logger.debug("The shadow of %s is not asked any more.", version.ref)

    def _ask(self, version: ServableVersion, counts: ShadowCounts, rows: Table, predictions: NDArray[Any]) -> None:
        try:
            resident = self._table.acquire(version)
            if resident is None:
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
        except Exception as error:  # whatever a shadow does, it is only counted
            level = logging.DEBUG if isinstance(error, MLFrameworkError) else logging.ERROR
            logger.log(level, "The shadow %s could not answer.", version.ref, exc_info=error)
            self._count(counts, errors=1)
        finally:
            with self._lock:
                self._requests -= 1
                self._bytes -= rows.size

    def _counts_of(self, pointer: PointerKey, version: ServableVersion) -> ShadowCounts:
        with self._lock:
            return self._counts.setdefault((pointer, version_key(version)), ShadowCounts())

    def _count(self, counts: ShadowCounts, **more: int) -> None:
        with self._lock:
            for name, number in more.items():
                setattr(counts, name, getattr(counts, name) + number)

    def _is_current(self, pointer: PointerKey, version: VersionKey) -> bool:
        shadow = self._table.shadow(pointer)
        return shadow is not None and version_key(shadow) == version


def agreements(stable: NDArray[Any], shadow: NDArray[Any]) -> int:
    """How many of two versions' predictions ``(n_rows,)`` are the same."""
    if stable.dtype.kind == "f" and shadow.dtype.kind == "f":
        return int(np.isclose(shadow, stable, rtol=AGREES_WITHIN, atol=0.0, equal_nan=True).sum())
    return sum(mine == theirs for mine, theirs in zip(stable.tolist(), shadow.tolist(), strict=True))
