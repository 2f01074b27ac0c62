"""Batches: jobs of several tenants that were submitted as one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ml_core.domain.document import Document
from ml_core.domain.job import ENDED, JobKind, JobState
from ml_core.ids import BatchId, TenantId


@dataclass(frozen=True, slots=True)
class Refused(Document):
    """A tenant whose quota does not permit a job, and why."""

    tenant_id: TenantId
    reason: str


@dataclass(frozen=True, slots=True)
class Failures:
    """Jobs that failed for one reason.

    Attributes:
        reason: The message of one of them; those that differ only in numbers and quoted names count as the same.
        tenants: Some of their tenants.
    """

    reason: str
    count: int
    tenants: tuple[TenantId, ...]


@dataclass(frozen=True, slots=True)
class JobBatch:
    """A batch as it is now. Times are UTC.

    Attributes:
        spec: What each job executes; a job has the number of its tenant's dataset.
        states: State → jobs in it.
        without_dataset: Tenants that were left out because they have no such dataset.
        refused: Tenants that were left out because of their quota; after ``retry``, those that it left out.
        failures: The most frequent reasons of failures; not in lists.
        elapsed_s: From the first job's start to the last one's end, or to now.
        rate_per_s: Jobs that ended within the last minute, a second.
    """

    batch_id: BatchId
    kind: JobKind
    spec: Mapping[str, Any]
    submitted_at: datetime
    submitted_by: str
    states: Mapping[JobState, int]
    without_dataset: int
    refused: tuple[Refused, ...]
    failures: tuple[Failures, ...] = ()
    elapsed_s: float | None = None
    rate_per_s: float | None = None

    @property
    def jobs(self) -> int:
        """The jobs in it."""
        return sum(self.states.values())

    @property
    def ended(self) -> int:
        """Its jobs that have ended."""
        return sum(count for state, count in self.states.items() if state in ENDED)

    @property
    def is_final(self) -> bool:
        """Whether all of its jobs have ended."""
        return self.ended == self.jobs

    @property
    def percent(self) -> float:
        """The share of its jobs that have ended, 0 to 100."""
        return 100.0 if self.is_final else 100.0 * self.ended / self.jobs

    @property
    def eta_s(self) -> float | None:
        """Seconds until it ends at the present rate; None: nothing ended lately."""
        return None if self.is_final or not self.rate_per_s else (self.jobs - self.ended) / self.rate_per_s
