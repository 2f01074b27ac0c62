"""Batches of jobs, for the verbs of ``mlcore jobs``, which take them by their ids."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ml_core.cli.console import err, print_fields, print_rows, printed_as_json, wants_json
from ml_core.cli.target import platform
from ml_core.domain.job import ENDED, JobState
from ml_core.exceptions import Action, TrainingError

if TYPE_CHECKING:
    from ml_core.api.schemas.job_batches import JobBatch

_LOOK_EVERY_S = 1.0
_FIELDS = ("batch_id", "kind", "submitted_at", "submitted_by", "jobs", "percent", "elapsed_s", "rate_per_s", "eta_s")


@dataclass(frozen=True, slots=True)
class _Watched:
    """A batch as ``watching`` shows a job."""

    job_id: str
    batch: JobBatch
    state: str = JobState.RUNNING

    @property
    def progress(self) -> dict[str, Any]:
        ended = sum(count for state, count in self.batch.states.items() if state in ENDED)
        metrics = {"jobs/s": self.batch.rate_per_s or 0.0}
        return {"stage": "jobs", "done": ended, "total": self.batch.jobs, "unit": "jobs", "metrics": metrics}


def submit(job: dict[str, Any], *, wait: bool) -> None:
    """Submit a job for each tenant."""
    with platform(of_tenant=False) as client:
        batch = client.job_batches.submit(job)
    if wait:
        wait_for(batch.batch_id)
    else:
        show(batch)


def act(verb: str, batch_id: str) -> None:
    """Show a batch, after it was cancelled or retried if the verb says so."""
    with platform(of_tenant=False) as client:
        show(getattr(client.job_batches, verb)(batch_id))


def wait_for(batch_id: str) -> None:
    """Show a batch once all of its jobs have ended.

    Raises:
        TrainingError: Some did not succeed.
    """
    # Imported late: most verbs draw no progress.
    from ml_core.jobs.progress import watching

    with platform(of_tenant=False) as client, watching(err, shown=not wants_json.get()) as shown:
        while (batch := client.job_batches.get(batch_id)).percent < 100:
            shown(_Watched(batch.batch_id, batch))
            time.sleep(_LOOK_EVERY_S)  # each answer is one look at a count that moves all the time
    show(batch)
    if missed := batch.jobs - batch.states.get(JobState.SUCCEEDED, 0):
        raise TrainingError(
            f"{missed} of {batch.jobs} jobs did not succeed.",
            remedy="Mend what their errors name, then retry the batch.",
            action=Action.of("jobs.retry", job=batch_id),
            stage="fit",
        )


def show(batch: JobBatch) -> None:
    """Print a batch."""
    if printed_as_json(batch):
        return
    lines = {name: getattr(batch, name) for name in _FIELDS}
    lines |= {"states": counted(batch.states) or None, "without_dataset": batch.without_dataset or None}
    print_fields((name, value) for name, value in lines.items() if value is not None)
    if batch.failures:
        print_rows([dict(each) for each in batch.failures], ["count", "reason", "tenants"], empty="")
    if batch.refused:
        print_rows([dict(each) for each in batch.refused], ["tenant_id", "reason"], empty="")


def counted(states: Mapping[JobState, int]) -> str:
    """How many jobs are in which state, for people."""
    return ", ".join(f"{count} {state}" for state, count in states.items())
