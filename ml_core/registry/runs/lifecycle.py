"""The states of a run in the database: moves by the table of ``ml_core.domain.run``, silence by its clock."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.database.tables import runs
from ml_core.domain.run import MOVES, RunStatus, RunTrigger, sources
from ml_core.exceptions import RunNotFoundError, RunStateError
from ml_core.ids import TenantId


def is_run(tenant_id: TenantId, run_id: str) -> sa.ColumnElement[bool]:
    """The condition that a row is this run's."""
    return sa.and_(runs.c.tenant_id == tenant_id, runs.c.run_id == run_id)


def is_silent(dead_after_s: float) -> sa.ColumnElement[bool]:
    """The condition that a run's last sign of life is older than that, by the database's clock."""
    return runs.c.heartbeat_at < sa.func.now() - sa.func.make_interval(0, 0, 0, 0, 0, 0, dead_after_s)


def seen_status(dead_after_s: float) -> sa.ColumnElement[str]:
    """A run's status as it is shown: a running run that is silent is dead."""
    lost = sa.and_(runs.c.status == RunStatus.RUNNING.value, is_silent(dead_after_s))
    return sa.case((lost, RunStatus.DEAD.value), else_=runs.c.status)


def in_status(status: RunStatus, dead_after_s: float) -> sa.ColumnElement[bool]:
    """The condition that ``seen_status`` is this one, in a form that the index over the stored status serves."""
    stored = runs.c.status == status.value
    if status is RunStatus.RUNNING:
        return sa.and_(stored, sa.not_(is_silent(dead_after_s)))
    if status is RunStatus.DEAD:
        either = runs.c.status.in_([RunStatus.RUNNING.value, RunStatus.DEAD.value])
        return sa.and_(either, sa.or_(stored, is_silent(dead_after_s)))
    return stored


def move(
    connection: Connection,
    tenant_id: TenantId,
    run_id: str,
    trigger: RunTrigger,
    *conditions: sa.ColumnElement[bool],
    **changes: Any,
) -> str:
    """Move a run and keep its row locked until the transaction ends.

    Args:
        connection: In the tenant's transaction.
        tenant_id: The tenant.
        run_id: The run.
        trigger: What happens to it.
        *conditions: What must hold of its row besides.
        **changes: Columns to set.

    Returns:
        The name of its model.

    Raises:
        RunNotFoundError: There is no such run.
        RunStateError: Its state does not allow it.
    """
    allowed = sources(trigger)
    target = MOVES[allowed[0], trigger]
    statement = (
        runs.update()
        .where(is_run(tenant_id, run_id), runs.c.status.in_([state.value for state in allowed]), *conditions)
        .values(status=target.value, **changes)
        .returning(runs.c.model_id)
    )
    model_id = connection.scalar(statement)
    if model_id is None:
        status = require(connection, tenant_id, run_id)
        raise not_allowed(tenant_id, run_id, status, trigger)
    return str(model_id)


def require(connection: Connection, tenant_id: TenantId, run_id: str) -> RunStatus:
    """A run's stored status.

    Raises:
        RunNotFoundError: There is no such run.
    """
    status = connection.scalar(sa.select(runs.c.status).where(is_run(tenant_id, run_id)))
    if status is None:
        raise run_not_found(tenant_id, run_id)
    return RunStatus(status)


def not_allowed(
    tenant_id: TenantId, run_id: str, status: RunStatus, trigger: RunTrigger, remedy: str | None = None
) -> RunStateError:
    """The error for a move that a run's state does not allow."""
    if remedy is None:
        alive = status is RunStatus.RUNNING
        remedy = "It gave a sign of life not long ago: cancel it first." if alive else "Start another run."
    return RunStateError(
        f"The run {run_id} is {status} and can't {trigger}.",
        remedy=remedy,
        tenant_id=tenant_id,
        run_id=run_id,
        status=status.value,
        trigger=trigger.value,
    )


def run_not_found(tenant_id: TenantId, run_id: str, what: str = "", remedy: str | None = None) -> RunNotFoundError:
    """The error for a run, or ``what`` of it, that does not exist."""
    remedy = remedy or f"List them: mlcore runs list --tenant {tenant_id!s}"
    shown = str(run_id)[:40]
    message = f"The run {shown!r} has {what}." if what else f"There is no run {shown!r}."
    return RunNotFoundError(message, remedy=remedy, tenant_id=tenant_id, run_id=shown)
