"""Deleting a run: everything of it or nothing, and nothing that a version or another run needs."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.database.tables import run_artifacts, run_metric_summaries, run_metrics, run_tags, runs, versions
from ml_core.domain.run import RunStatus
from ml_core.exceptions import RunInUseError, RunStateError
from ml_core.ids import Digest, TenantId
from ml_core.registry import journal
from ml_core.registry.erasure import erase
from ml_core.registry.runs.lifecycle import is_run, run_not_found, seen_status

_SHOWN = 10


def delete_rows(connection: Connection, tenant_id: TenantId, run_id: str, dead_after_s: float) -> list[Digest]:
    """Delete a run in the tenant's transaction.

    Returns:
        The digests of its files, whose bytes may be free now.

    Raises:
        RunNotFoundError: There is no such run.
        RunStateError: It is running.
        RunInUseError: A version came from it, or another run is a part of it.
    """
    statement = sa.select(seen_status(dead_after_s), runs.c.model_id).where(is_run(tenant_id, run_id))
    row = connection.execute(statement.with_for_update()).one_or_none()
    if row is None:
        raise run_not_found(tenant_id, run_id)
    if row[0] == RunStatus.RUNNING:
        raise RunStateError(
            f"The run {run_id} is running and can't be deleted.",
            remedy="Cancel it first, or wait for its end.",
            tenant_id=tenant_id,
            run_id=run_id,
            status=row[0],
            trigger="delete",
        )
    _refuse_if_used(connection, tenant_id, run_id)
    found = sa.select(run_artifacts.c.digest).distinct()
    digests = connection.scalars(
        found.where(run_artifacts.c.tenant_id == tenant_id, run_artifacts.c.run_id == run_id)
    ).all()
    for table in (run_artifacts, run_metric_summaries, run_metrics, run_tags, runs):
        erase(connection, table, run_id=run_id)
    journal.record(
        connection, tenant_id, "run.deleted", {"run_id": run_id}, {"model_id": row.model_id, "files": len(digests)}
    )
    return [Digest(digest) for digest in digests]


def _refuse_if_used(connection: Connection, tenant_id: TenantId, run_id: str) -> None:
    made = sa.select(versions.c.model_id, versions.c.version).where(
        versions.c.tenant_id == tenant_id, versions.c.run_id == run_id
    )
    parts = sa.select(runs.c.run_id).where(runs.c.tenant_id == tenant_id, runs.c.parent_run_id == run_id)
    used_by = [f"{row.model_id}@{row.version}" for row in connection.execute(made.limit(_SHOWN))]
    used_by += list(connection.scalars(parts.limit(_SHOWN)))
    if used_by:
        raise RunInUseError(
            f"The run {run_id} is needed by {', '.join(used_by)}.",
            remedy="Delete those first: a version's lineage names its run, and a part its whole.",
            tenant_id=tenant_id,
            run_id=run_id,
            used_by=used_by,
        )
