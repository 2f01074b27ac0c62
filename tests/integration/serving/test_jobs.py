"""Jobs on the Ray cluster of a running platform."""

from __future__ import annotations

import os
import signal
import time

from ml_core.domain.job import JobState
from ml_core.domain.run import RunStatus
from ml_core.jobs.processes import ProcessRunner
from ml_core.platform.processes import find_marked
from ml_core.registry.datasets import DatasetRepository
from ml_core.registry.jobs import JobRepository
from ml_core.registry.runs import RunRepository
from ml_core.registry.versions.repository import VersionRepository
from support.tables import measures
from support.waiting import wait_until

ENDS = (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


def spec(model_id: str, **hyperparameters: object) -> dict[str, object]:
    training = {"dataset": "m@1", "target": "outcome", "hyperparameters": hyperparameters}
    return {"model_id": model_id, "training": training}


def ended(own: JobRepository, job_id: str):
    return wait_until(lambda: (found := own.get(job_id)).state in ENDS and found, 120)


def workers(platform, run_id: str) -> list[int]:
    """The processes of a run in the platform."""
    return [
        process.pid
        for process in find_marked(platform.settings.platform.home, platform.local.state.session_id)
        if run_id in " ".join(process.cmdline()) and "python" in process.cmdline()[0]
    ]


def test_a_job_of_the_queue_is_done_by_ray(platform) -> None:
    """Submitted, found by the control loop, executed as a Ray job; its version is what another way makes of the spec."""
    tenant = platform.tenant("jobs-1")
    DatasetRepository(platform.db, tenant.tenant_id).create("m", measures(400))
    own = JobRepository(platform.db, tenant.tenant_id)
    began = time.monotonic()
    job = own.submit("train", spec("m", algorithm="logistic_regression"))
    wait_until(lambda: own.get(job.job_id).state is not JobState.QUEUED, 60)
    print("claimed after", time.monotonic() - began)
    wait_until(lambda: own.get(job.job_id).state not in (JobState.QUEUED, JobState.STARTING), 60)
    print("running after", time.monotonic() - began)
    done = ended(own, job.job_id)
    print("done after", time.monotonic() - began)
    assert done.state is JobState.SUCCEEDED, done.error
    versions = VersionRepository(platform.db, tenant.tenant_id)
    made = versions.get("m", done.result["version"])
    here = tenant.platform.db
    from ml_core.domain.train_spec import TrainSpec
    from ml_core.training.trainer import Trainer

    again = Trainer(here, tenant.tenant_id).train_spec(
        "m2", TrainSpec.from_json(spec("m", algorithm="logistic_regression")["training"])
    )
    assert versions.get("m2", again.version).digest == made.digest
