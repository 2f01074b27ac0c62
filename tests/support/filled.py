"""A tenant with at least one row in every table that holds tenants' rows."""

from __future__ import annotations

import uuid

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.api_key import Scope
from ml_core.domain.job import JobKind, JobQuota
from ml_core.domain.placement import Placement
from ml_core.domain.quality import Verdict
from ml_core.domain.replica_report import LoadState, PendingVersion, ReplicaReport
from ml_core.domain.schedule import Cron
from ml_core.domain.tenant_policies import PredictionQuota
from ml_core.ids import EnvironmentName, HoldName, TenantId
from ml_core.registry.collection.holds import HoldRepository
from ml_core.registry.datasets import DatasetRepository
from ml_core.registry.idempotency import IdempotencyRepository
from ml_core.registry.jobs import JobQueue, JobRepository
from ml_core.registry.keys import KeyRepository
from ml_core.registry.placements import PlacementRepository
from ml_core.registry.predictions import PredictionRepository
from ml_core.registry.promotion.environments import PRODUCTION, EnvironmentRepository
from ml_core.registry.promotion.gates import GateRepository
from ml_core.registry.replicas import ReplicaReports
from ml_core.registry.runs import RunRepository
from ml_core.registry.runs.documents import RunDocuments
from ml_core.registry.runs.experiments import ExperimentRepository
from ml_core.registry.schedules import ScheduleRepository
from ml_core.registry.tenants import TenantRepository
from ml_core.registry.verdicts import VerdictRepository
from ml_core.registry.versions.repository import VersionRepository
from support.predictions import answered, write
from support.registry import TICKETS, register

STAGING = EnvironmentName("staging")


def fill(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """Put at least one row of the tenant into every table."""
    VersionRepository(db, tenant_id).delete(TICKETS, register(db, tenant_id).version)
    version = register(db, tenant_id, metrics={"validation": {"accuracy": 0.9}}, tags={"team": "support"})
    EnvironmentRepository(db, tenant_id).promote(TICKETS, version.version, PRODUCTION, actor="tester")
    EnvironmentRepository(db, tenant_id).protect(STAGING)
    GateRepository(db, tenant_id).set(TICKETS, STAGING, "approved", "approval")
    GateRepository(db, tenant_id).approve(TICKETS, version.version, STAGING)
    KeyRepository(db, tenant_id).create("key", [Scope.PREDICT])
    IdempotencyRepository(db, tenant_id).begin("key", "digest")
    HoldRepository(db, tenant_id).place(TICKETS, version.version, HoldName("legal"), "case 4711")
    runs = RunRepository(db, tenant_id)
    run_id = runs.start(TICKETS, tags={"team": "support"})
    runs.log_metrics(run_id, {"loss": 1.0})
    runs.artifacts.log(run_id, "plot.png", b"png")
    RunDocuments(db, tenant_id).add(run_id, "dataset", {"d": {"digest": "0"}})
    experiments = ExperimentRepository(db, tenant_id)
    if all(each.name != "An experiment" for each in experiments.list().items):
        experiments.create("An experiment")
    write(db, answered(tenant_id, request_id="r"), answered(tenant_id, at=0))
    PredictionRepository(db, tenant_id).add_label(TICKETS, "r", 0, "b")
    DatasetRepository(db, tenant_id).create("d", {"x": [1]})
    jobs = JobRepository(db, tenant_id)
    job_id = jobs.submit("train", {}).job_id
    jobs.say(job_id, ["a line"])
    jobs.cancel(job_id)
    JobQueue(db).set_quota(tenant_id, JobQuota())
    PlacementRepository(db).set(tenant_id, Placement())
    TenantRepository(db).set_quota(tenant_id, PredictionQuota())
    schedules = ScheduleRepository(db, tenant_id)
    if not schedules.list().items:
        schedules.add("yearly", Cron("0 0 1 1 *"), JobKind.TRAIN, {}, {})
    VerdictRepository(db, tenant_id).set(TICKETS, PRODUCTION, version.version, Verdict.OK, Verdict.UNKNOWN)
    pending = PendingVersion(tenant_id, TICKETS, PRODUCTION, version.version, LoadState.FAILED, None, "code", "reason")
    report = ReplicaReport(1, uuid.uuid4(), True, 1, 0, failed=1, pending=(pending,))
    ReplicaReports(db, f"replica-{tenant_id}").write(report, ttl_s=1)
