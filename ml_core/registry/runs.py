"""Runs: one training or tuning execution each, with its parameters, metric series and outcome."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import Connection

from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables import run_metrics, runs
from ml_core.exceptions import InvalidRequestError
from ml_core.ids import ModelId, TenantId
from ml_core.registry.rows import refusal
from ml_core.registry.tenants import tenant_not_found

if TYPE_CHECKING:
    from ml_core.registry.rows import AnyRow

_MAX_ERROR_LENGTH = 4_000  # characters: enough for a message and the end of a traceback


class RunStatus(StrEnum):
    """Where a run stands."""

    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"


# (state, trigger) → state; everything else is refused.
_MOVES = {
    (RunStatus.RUNNING, "finish"): RunStatus.FINISHED,
    (RunStatus.RUNNING, "fail"): RunStatus.FAILED,
    (RunStatus.RUNNING, "log"): RunStatus.RUNNING,
}


@dataclass(frozen=True, slots=True)
class Run:
    """A run. ``metrics``: name → (step, value) in the order of steps. Times are UTC."""

    run_id: str
    model_id: ModelId
    kind: str
    status: RunStatus
    parameters: Mapping[str, Any]
    started_at: datetime
    heartbeat_at: datetime
    finished_at: datetime | None
    error: str | None
    metrics: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)


class RunRepository:
    """The runs of one tenant."""

    def __init__(self, db: DatabaseConnection, tenant_id: TenantId) -> None:
        self._db = db
        self._tenant_id = tenant_id

    def start(self, model_id: ModelId, *, kind: str = "train", parameters: Mapping[str, Any] | None = None) -> str:
        """Begin a run.

        Args:
            model_id: The model that it is for; it need not exist yet.
            kind: ``train`` or ``tune``.
            parameters: As given, JSON-compatible.

        Returns:
            Its id: ``run_`` and 16 hexadecimal digits.

        Raises:
            TenantNotFoundError: There is no such tenant.
        """
        run_id = f"run_{secrets.token_hex(8)}"
        row = {
            "tenant_id": self._tenant_id,
            "run_id": run_id,
            "model_id": model_id,
            "kind": kind,
            "status": RunStatus.RUNNING.value,
            "parameters": dict(parameters or {}),
        }
        with self._db.tenant(self._tenant_id) as connection:
            try:
                connection.execute(runs.insert().values(**row))
            except sa.exc.IntegrityError as error:
                if refusal(error) == "fk_runs_tenants":
                    raise tenant_not_found(self._tenant_id) from error
                raise
        return run_id

    def log_metrics(self, run_id: str, metrics: Mapping[str, float], step: int = 0) -> None:
        """Note values of a step, all in one statement; a step's value that is there is replaced. A sign of life too.

        Raises:
            InvalidRequestError: There is no such run, or it has ended.
        """
        rows = [
            {"tenant_id": self._tenant_id, "run_id": run_id, "metric": name, "step": step, "value": float(value)}
            for name, value in metrics.items()
        ]
        with self._db.tenant(self._tenant_id) as connection:
            self._move(connection, run_id, "log", heartbeat_at=sa.func.now())
            if rows:
                statement = insert(run_metrics).values(rows)
                connection.execute(
                    statement.on_conflict_do_update(
                        constraint="pk_run_metrics",
                        set_={"value": statement.excluded.value, "at": sa.func.now()},
                    )
                )

    def finish(self, run_id: str) -> None:
        """End a run that did what it should.

        Raises:
            InvalidRequestError: There is no such run, or it has ended.
        """
        with self._db.tenant(self._tenant_id) as connection:
            self._move(connection, run_id, "finish", finished_at=sa.func.now())

    def fail(self, run_id: str, error: str) -> None:
        """End a run that did not; of a long error the end is kept.

        Raises:
            InvalidRequestError: There is no such run, or it has ended.
        """
        kept = error.replace("\0", "")[-_MAX_ERROR_LENGTH:]
        with self._db.tenant(self._tenant_id) as connection:
            self._move(connection, run_id, "fail", finished_at=sa.func.now(), error=kept)

    def get(self, run_id: str) -> Run:
        """A run with its metric series.

        Raises:
            InvalidRequestError: There is no such run.
        """
        series = (
            sa.select(run_metrics.c.metric, run_metrics.c.step, run_metrics.c.value)
            .where(run_metrics.c.tenant_id == self._tenant_id, run_metrics.c.run_id == run_id)
            .order_by(run_metrics.c.metric, run_metrics.c.step)
        )
        with self._db.tenant(self._tenant_id) as connection:
            row = connection.execute(sa.select(runs).where(self._is(run_id))).one_or_none()
            if row is None:
                raise self._unknown(run_id)
            metrics: dict[str, list[tuple[int, float]]] = {}
            for point in connection.execute(series):
                metrics.setdefault(point.metric, []).append((point.step, point.value))
        return _run(row, metrics)

    def list(self, model_id: ModelId, *, limit: int = 100) -> Sequence[Run]:
        """A model's runs, newest first, without their metric series."""
        statement = (
            sa.select(runs)
            .where(runs.c.tenant_id == self._tenant_id, runs.c.model_id == model_id)
            .order_by(runs.c.started_at.desc(), runs.c.run_id)
            .limit(limit)
        )
        with self._db.tenant(self._tenant_id) as connection:
            return [_run(row, {}) for row in connection.execute(statement)]

    def _move(self, connection: Connection, run_id: str, trigger: str, **changes: Any) -> None:
        status = connection.scalar(sa.select(runs.c.status).where(self._is(run_id)).with_for_update())
        if status is None:
            raise self._unknown(run_id)
        target = _MOVES.get((RunStatus(status), trigger))
        if target is None:
            raise InvalidRequestError(
                f"The run {run_id} is {status} and can't {trigger}.",
                remedy="Start another run.",
                tenant_id=self._tenant_id,
                field="run_id",
            )
        connection.execute(runs.update().where(self._is(run_id)).values(status=target.value, **changes))

    def _is(self, run_id: str) -> sa.ColumnElement[bool]:
        return sa.and_(runs.c.tenant_id == self._tenant_id, runs.c.run_id == run_id)

    def _unknown(self, run_id: str) -> InvalidRequestError:
        return InvalidRequestError(
            f"There is no run {run_id[:40]!r}.",
            remedy="List the model's runs.",
            tenant_id=self._tenant_id,
            field="run_id",
        )


def _run(row: AnyRow, metrics: Mapping[str, Sequence[tuple[int, float]]]) -> Run:
    return Run(
        row.run_id,
        ModelId(row.model_id),
        row.kind,
        RunStatus(row.status),
        row.parameters,
        row.started_at,
        row.heartbeat_at,
        row.finished_at,
        row.error,
        metrics,
    )
