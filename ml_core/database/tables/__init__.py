"""The tables, as this release needs them. The migrations make them; a test compares the two.

``tenant_id`` leads every key and every unique index, so that neither a scan nor a duplicate-key error reaches over
tenants. Exceptions, all on purpose: the feed's indexes lead with the generation, because the serving plane reads
over tenants; those of what replicas report, which only the serving plane writes. Some indexes of jobs, schedules, the
audit and verdicts span tenants, too: they serve the platform's own transactions.
"""

from __future__ import annotations

from ml_core.database.tables.base import FEED_CHANNEL, PLATFORM, SCHEMA, SCHEMA_REVISION, metadata
from ml_core.database.tables.environments import (
    approvals,
    environment_history,
    environment_policies,
    environments,
    gates,
)
from ml_core.database.tables.jobs import job_batches, job_logs, job_quotas, jobs, schedules
from ml_core.database.tables.models import deleted_versions, holds, models, version_metrics, version_tags, versions
from ml_core.database.tables.serving import (
    PARTITION_SCHEMA,
    feedback,
    live_verdicts,
    prediction_losses,
    predictions,
    replica_pending,
    replica_reports,
    replica_traffic,
)
from ml_core.database.tables.sizes import bound
from ml_core.database.tables.tenants import (
    api_keys,
    audit,
    audit_clock,
    feed_clock,
    idempotency_keys,
    placements,
    platform_keys,
    prediction_quotas,
    tenant_key,
    tenants,
)
from ml_core.database.tables.training import (
    dataset_versions,
    datasets,
    experiments,
    run_artifacts,
    run_documents,
    run_metric_summaries,
    run_metrics,
    run_tags,
    runs,
)

for _table in metadata.sorted_tables:
    bound(_table)

__all__ = [
    "FEED_CHANNEL",
    "PARTITION_SCHEMA",
    "PLATFORM",
    "SCHEMA",
    "SCHEMA_REVISION",
    "api_keys",
    "approvals",
    "audit",
    "audit_clock",
    "dataset_versions",
    "datasets",
    "deleted_versions",
    "environment_history",
    "environment_policies",
    "environments",
    "experiments",
    "feed_clock",
    "feedback",
    "gates",
    "holds",
    "idempotency_keys",
    "job_batches",
    "job_logs",
    "job_quotas",
    "jobs",
    "live_verdicts",
    "metadata",
    "models",
    "placements",
    "platform_keys",
    "prediction_losses",
    "prediction_quotas",
    "predictions",
    "replica_pending",
    "replica_reports",
    "replica_traffic",
    "run_artifacts",
    "run_documents",
    "run_metric_summaries",
    "run_metrics",
    "run_tags",
    "runs",
    "schedules",
    "tenant_key",
    "tenants",
    "version_metrics",
    "version_tags",
    "versions",
]
