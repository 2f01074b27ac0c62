"""Claimed jobs, without a queue."""

from __future__ import annotations

from ml_core.domain.job import Attempt, JobKind
from ml_core.domain.principal import Principal
from ml_core.ids import JobId, RunId, TenantId

RUN = RunId("run_0123456789abcdef")


def attempt(kind: JobKind = JobKind.TRAIN, cpus: float = 1.0) -> Attempt:
    """One of the tenant ``acme_``."""
    return Attempt(
        tenant_id=TenantId("acme_"),
        job_id=JobId("job_fedcba9876543210"),
        kind=kind,
        spec={"secret": "of the tenant"},
        cpus=cpus,
        principal=Principal.operator("ada"),
        request_id="r1",
        number=1,
        run_id=RUN,
        process=RUN,
        dispatcher="kubernetes",
    )
