"""``KubernetesRunner``: attempts as RayJobs of Kubernetes, each in a pod of its own."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from k8s.cluster import Cluster
from k8s.objects import DISPATCHER_LABEL, RUN_ANNOTATION, job_name, ray_job
from ml_core.domain.job import Attempt
from ml_core.ids import RunId

_KIND: Final = "RayJob"
_ENDED: Final = frozenset({"Complete", "Failed", "ValidationFailed"})
_KEPT_S: Final = 3_600.0
"""Time after its end for which a RayJob is kept, with the reason of its end."""


class KubernetesRunner:
    """Creates a RayJob for each attempt; its name is derived from the run.

    Args:
        cluster: Where.
        template: What the RayJobs have in common; see ``ray_job``.
        dispatcher: The name by which this runner knows its jobs again.
    """

    def __init__(self, cluster: Cluster, template: Mapping[str, Any], dispatcher: str) -> None:
        self._cluster = cluster
        self._template = template
        self._dispatcher = dispatcher
        self._ended_at: dict[RunId, float] = {}

    def start(self, attempt: Attempt, variables: Mapping[str, str]) -> None:
        """See ``Runner``."""
        self._cluster.apply(ray_job(attempt, variables, self._template))

    def seen(self) -> dict[RunId, str | None]:
        """See ``Runner``."""
        found = self._cluster.list(_KIND, f"{DISPATCHER_LABEL}={self._dispatcher}")
        jobs = {RunId(each["metadata"]["annotations"][RUN_ANNOTATION]): each.get("status", {}) for each in found}
        ends = {run_id: end_of(status) for run_id, status in jobs.items()}
        self._ended_at = {run_id: _ended_at(jobs[run_id]) for run_id, end in ends.items() if end is not None}
        return ends

    def stop(self, run_id: RunId) -> None:
        """See ``Runner``. A RayJob that has ended is kept for an hour; its pods are gone before."""
        if time.time() - self._ended_at.get(run_id, 0.0) > _KEPT_S:
            self._cluster.delete(_KIND, job_name(run_id))


def end_of(status: Mapping[str, Any]) -> str | None:
    """Why a RayJob ended, by its status; None: it has not."""
    state = status.get("jobDeploymentStatus")
    if state not in _ENDED:
        return None
    if state == "Complete":
        return "Its RayJob is complete."
    return f"Its RayJob is {str(state).lower()} ({status.get('reason') or status.get('jobStatus') or 'no reason'})."


def _ended_at(status: Mapping[str, Any]) -> float:
    ended = status.get("endTime")
    return datetime.fromisoformat(ended).timestamp() if ended else time.time()
