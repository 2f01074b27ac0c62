"""The states of a run in the database: moves by the table of ``ml_core.domain.run``, silence by the clock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.database.tables import runs, versions
from ml_core.domain.run import MOVES, TRACKED, RunStatus, RunTrigger, sources
from ml_core.exceptions import Action, RunInUseError, RunNotFoundError, RunStateError, shown
from ml_core.ids import TenantId
from ml_core.registry.limits import check_document
from ml_core.registry.missing import not_found

_SHOWN = 10
"""Versions and runs that an error names."""


def is_run(tenant_id: TenantId, run_id: str) -> sa.ColumnElement[bool]:
    """The condition that a row is this run's."""
    return sa.and_(runs.c.tenant_id == tenant_id, runs.c.run_id == run_id)


def _is_silent(dead_after_s: float) -> sa.ColumnElement[bool]:
    """The condition that a run's last heartbeat is older than that, by the database's clock."""
    return runs.c.heartbeat_at < sa.func.now() - sa.func.make_interval(0, 0, 0, 0, 0, 0, dead_after_s)


def seen_status(dead_after_s: float) -> sa.ColumnElement[str]:
    """A run's status as it is shown: a running run that is silent is dead."""
    return sa.case((in_status(RunStatus.DEAD, dead_after_s), RunStatus.DEAD.value), else_=runs.c.status)


def in_status(status: RunStatus, dead_after_s: float) -> sa.ColumnElement[bool]:
    """The condition that ``seen_status`` is this one, in a form that the index over the stored status serves."""
    if status not in (RunStatus.RUNNING, RunStatus.DEAD):
        return runs.c.status == status.value
    silent = _is_silent(dead_after_s)
    return sa.and_(runs.c.status == RunStatus.RUNNING.value, silent if status is RunStatus.DEAD else sa.not_(silent))


def move(
    connection: Connection,
    tenant_id: TenantId,
    run_id: str,
    trigger: RunTrigger,
    *conditions: sa.ColumnElement[bool],
    **changes: Any,
) -> str:
    """Move a run, if its row meets the conditions, and keep the row locked until the transaction ends.

    Returns:
        The name of its model.

    Raises:
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
        status = require_run(connection, tenant_id, run_id)
        raise RunStateError(
            f"The run {run_id} is {status} and can't {trigger}.",
            remedy="Start another run.",
            tenant_id=tenant_id,
            run_id=run_id,
            status=status.value,
            trigger=trigger.value,
        )
    return str(model_id)


def accept_results(connection: Connection, tenant_id: TenantId, run_id: str) -> None:
    """Let results be written to a run, and keep its row locked until the transaction ends; counts as a heartbeat.

    Raises:
        RunStateError: It has ended, and MLflow's client did not start it.
    """
    is_running = runs.c.status == RunStatus.RUNNING.value
    statement = (
        runs.update()
        .where(is_run(tenant_id, run_id), sa.or_(is_running, runs.c.kind == TRACKED))
        .values(heartbeat_at=sa.case((is_running, sa.func.now()), else_=runs.c.heartbeat_at))
        .returning(runs.c.run_id)
    )
    if connection.scalar(statement) is None:
        move(connection, tenant_id, run_id, RunTrigger.LOG, heartbeat_at=sa.func.now())


def add_parameters(connection: Connection, tenant_id: TenantId, run_id: str, added: Mapping[str, Any]) -> None:
    """Add parameters to a run whose row is locked; one that it has with the same value stays.

    Raises:
        RunStateError: It has one with another value.
        RequestTooLargeError: The parameters would be too large.
    """
    known = connection.execute(sa.select(runs.c.parameters).where(is_run(tenant_id, run_id))).scalar_one()
    changed = [name for name, value in added.items() if name in known and known[name] != value]
    if changed:
        name = changed[0]
        raise RunStateError(
            f"The parameter {shown(name)} of the run {run_id} is {shown(known[name])} and can't be changed to"
            f" {shown(added[name])}.",
            remedy="Give it another name, or start another run.",
            tenant_id=tenant_id,
            run_id=run_id,
            trigger=RunTrigger.LOG.value,
        )
    kept = check_document({**known, **added}, "parameters")
    connection.execute(runs.update().where(is_run(tenant_id, run_id)).values(parameters=kept))


def lock_unused(connection: Connection, tenant_id: TenantId, run_id: str, dead_after_s: float) -> str:
    """Lock the row of a run that may be deleted, with the errors of ``RunRepository.delete``; returns its model."""
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
    made = sa.select(versions.c.model_id, versions.c.version).filter_by(tenant_id=tenant_id, run_id=run_id)
    parts = sa.select(runs.c.run_id).filter_by(tenant_id=tenant_id, parent_run_id=run_id)
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
    return str(row.model_id)


def require_run(connection: Connection, tenant_id: TenantId, run_id: str) -> RunStatus:
    """A run's stored status.

    Raises:
        RunNotFoundError: There is no such run.
    """
    status = connection.scalar(sa.select(runs.c.status).where(is_run(tenant_id, run_id)))
    if status is None:
        raise run_not_found(tenant_id, run_id)
    return RunStatus(status)


def refuse_given_up(connection: Connection, tenant_id: TenantId, run_id: str | None) -> None:
    """Refuse what comes of a run that was given up; its row stays as it is until the transaction ends.

    Raises:
        RunStateError: The run has failed or was cancelled.
    """
    status = connection.scalar(
        sa.select(runs.c.status).where(is_run(tenant_id, str(run_id))).with_for_update(read=True)
    )
    if status in (RunStatus.FAILED, RunStatus.CANCELLED):
        raise RunStateError(
            f"The run {run_id} is {status}, so nothing is registered as its result.",
            remedy="Start another run.",
            tenant_id=tenant_id,
            run_id=run_id,
            status=status,
            trigger="register",
        )


def run_not_found(tenant_id: TenantId, run_id: str, part: str = "") -> RunNotFoundError:
    """The error for a run that does not exist, or for a run without ``part``, such as ``metric 'loss'``."""
    if not part:
        return not_found(RunNotFoundError, "run", run_id, tenant_id)
    name = str(run_id)[:40]
    action = Action.of("runs.get", tenant=str(tenant_id), run=name)
    message, remedy = f"The run {name!r} has no {part}.", "See what the run has."
    return RunNotFoundError(message, remedy=remedy, action=action, tenant_id=tenant_id, run_id=name)
