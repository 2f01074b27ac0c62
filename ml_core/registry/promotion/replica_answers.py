"""What the replicas answer when they are asked about one pointer, from their reports."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables import environments, feed_clock, replica_pending, replica_reports
from ml_core.domain.replica_report import LoadState, ReplicaAnswer
from ml_core.exceptions import RegistryUnavailableError
from ml_core.ids import EnvironmentName, ModelId, TenantId, VersionId
from ml_core.registry.promotion.pointer_rows import pointer_key

if TYPE_CHECKING:
    from ml_core.registry.versions.rows import AnyRow

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 0.25
_BY_BADNESS = list(LoadState)


def ask_replicas(
    db: DatabaseConnection,
    tenant_id: TenantId,
    model_id: ModelId,
    environment: EnvironmentName,
    version: VersionId | None = None,
    *,
    wait_s: float = 0.0,
) -> Sequence[ReplicaAnswer]:
    """What each live replica last reported of a pointer; none if no replica is alive, or there is no such pointer.

    Args:
        db: The registry.
        tenant_id: The tenant.
        model_id: The model.
        environment: The environment.
        version: Ask about this version of the rollout alone; None: about all that the pointer names.
        wait_s: Seconds to wait at most until each has applied the pointer's last move, and loaded its versions or
            failed to.

    Raises:
        RegistryUnavailableError: Postgres can't be reached, to the end of the wait.
    """
    deadline, pause = time.monotonic() + wait_s, _FIRST_PAUSE_S
    statement = _statement(tenant_id, model_id, environment, version)
    while True:
        left = deadline - time.monotonic()
        try:
            answers = _ask(db, tenant_id, statement)
            if left <= 0 or all(answer.is_final for answer in answers):
                return answers
        except RegistryUnavailableError:
            if left <= 0:
                raise
        time.sleep(min(pause, max(left, 0.0)))
        pause = min(1.5 * pause, _LONGEST_PAUSE_S)


def _statement(
    tenant_id: TenantId, model_id: ModelId, environment: EnvironmentName, version: VersionId | None
) -> sa.Select[Any]:
    """A row for each live replica and pending version of the pointer; one without for a replica that has none."""
    report, pending, pointer = replica_reports.c, replica_pending.c, environments.c
    is_pending = sa.and_(
        pending.tenant_id == pointer.tenant_id,
        pending.model_id == pointer.model_id,
        pending.environment == pointer.environment,
        pending.cell == report.cell,
        pending.replica_id == report.replica_id,
        sa.true() if version is None else pending.version == version,
    )
    is_applied = sa.and_(report.epoch == feed_clock.c.epoch, report.generation >= pointer.feed_generation)
    return (
        sa.select(
            report.replica_id,
            report.unlisted,
            is_applied.label("is_applied"),
            pointer.version.label("stable"),
            *(pending[name] for name in ("version", "state", "serves", "code", "reason")),
        )
        .join_from(environments, feed_clock, feed_clock.c.cell == pointer.cell)
        .join(replica_reports, report.cell == pointer.cell)
        .join(replica_pending, is_pending, isouter=True)
        .where(*pointer_key(tenant_id, model_id, environment), report.expires_at > sa.func.now())
        .order_by(report.started_at, report.replica_id)
    )


def _ask(db: DatabaseConnection, tenant_id: TenantId, statement: sa.Select[Any]) -> Sequence[ReplicaAnswer]:
    found: dict[str, list[ReplicaAnswer]] = {}
    with db.tenant(tenant_id) as connection:
        for row in connection.execute(statement):
            found.setdefault(row.replica_id, []).append(_answer(row))
    return [max(answers, key=lambda answer: _BY_BADNESS.index(answer.state)) for answers in found.values()]


def _answer(row: AnyRow) -> ReplicaAnswer:
    if not row.is_applied:
        return ReplicaAnswer(row.replica_id, LoadState.BEHIND)
    if row.state is not None:
        return ReplicaAnswer(row.replica_id, LoadState(row.state), row.version, row.serves, row.code, row.reason)
    if row.unlisted:  # what a report has no room for may be this pointer's
        return ReplicaAnswer(row.replica_id, LoadState.LOADING)
    return ReplicaAnswer(row.replica_id, LoadState.LOADED, serves=row.stable)
