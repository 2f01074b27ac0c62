"""Search over a tenant's runs, newest first, in keyset pages."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Connection

from ml_core.database.tables import run_metric_summaries, run_tags, runs
from ml_core.domain.run import Run, RunQuery, RunStatus
from ml_core.exceptions import InvalidRequestError
from ml_core.ids import ModelId, TenantId
from ml_core.registry.pages import Page, after, check_limit, decode_cursor, encode_cursor
from ml_core.registry.runs.lifecycle import in_status, seen_status
from ml_core.registry.runs.reading import read_summaries, read_tags, read_versions

if TYPE_CHECKING:
    from ml_core.registry.versions.rows import AnyRow, AnySelect


def find_all(
    connection: Connection,
    tenant_id: TenantId,
    query: RunQuery,
    dead_after_s: float,
    limit: int,
    cursor: str | None,
) -> Page[Run]:
    """One page of the runs that a query finds, each with its tags and the summaries of its metrics.

    Four statements, or five if a run has no metric, however many runs there are.

    Raises:
        InvalidRequestError: The limit, the cursor or a parameter can't be used.
    """
    order = (runs.c.started_at, runs.c.run_id)
    statement = _select(tenant_id, dead_after_s).where(*_conditions(tenant_id, query, dead_after_s))
    if cursor is not None:
        statement = statement.where(after(order, _read_cursor(cursor), descending=True))
    statement = statement.order_by(*(column.desc() for column in order)).limit(check_limit(limit) + 1)
    rows = connection.execute(statement).all()
    last = rows[limit - 1] if len(rows) > limit else None
    next_cursor = None if last is None else encode_cursor([last.started_at.isoformat(), last.run_id])
    return Page(_complete(connection, tenant_id, rows[:limit]), next_cursor)


def find(connection: Connection, tenant_id: TenantId, run_ids: Collection[str], dead_after_s: float) -> dict[str, Run]:
    """The runs of these ids, of those that there are, each with its tags and the summaries of its metrics."""
    statement = _select(tenant_id, dead_after_s).where(runs.c.run_id.in_(run_ids))
    found = _complete(connection, tenant_id, connection.execute(statement).all())
    return {run.run_id: run for run in found}


def _select(tenant_id: TenantId, dead_after_s: float) -> AnySelect:
    columns = [column for column in runs.c if column.name not in ("tenant_id", "status")]
    return sa.select(*columns, seen_status(dead_after_s).label("status")).where(runs.c.tenant_id == tenant_id)


def _complete(connection: Connection, tenant_id: TenantId, rows: Collection[AnyRow]) -> list[Run]:
    run_ids = [row.run_id for row in rows]
    metrics = read_summaries(connection, tenant_id, run_ids) if run_ids else {}
    tags = read_tags(connection, tenant_id, run_ids) if run_ids else {}
    versions = read_versions(connection, tenant_id, run_ids) if run_ids else {}
    return [
        Run(
            run_id=row.run_id,
            model_id=ModelId(row.model_id),
            kind=row.kind,
            status=RunStatus(row.status),
            parameters=row.parameters,
            started_at=row.started_at,
            heartbeat_at=row.heartbeat_at,
            finished_at=row.finished_at,
            error=row.error,
            metrics=metrics[row.run_id],
            tags=tags[row.run_id],
            parent_run_id=row.parent_run_id,
            created_by=row.created_by,
            versions=tuple(versions[row.run_id]),
        )
        for row in rows
    ]


def _conditions(tenant_id: TenantId, query: RunQuery, dead_after_s: float) -> list[sa.ColumnElement[bool]]:
    named = {"model_id": query.model_id, "kind": query.kind, "parent_run_id": query.parent_run_id}
    conditions = [runs.c[name] == value for name, value in named.items() if value is not None]
    if query.status is not None:
        conditions.append(in_status(query.status, dead_after_s))
    if query.started_from is not None:
        conditions.append(runs.c.started_at >= query.started_from)
    if query.started_before is not None:
        conditions.append(runs.c.started_at < query.started_before)
    conditions += [
        runs.c.parameters[tuple(name.split("."))] == sa.literal(value, JSONB)
        for name, value in query.parameters.items()
    ]
    return conditions + _through_tags(tenant_id, query) + _through_metrics(tenant_id, query)


def _through_tags(tenant_id: TenantId, query: RunQuery) -> list[sa.ColumnElement[bool]]:
    found = []
    for key, value in query.tags.items():
        tag = run_tags.alias()
        of = (tag.c.tenant_id == tenant_id, tag.c.run_id == runs.c.run_id)
        found.append(sa.exists().where(*of, tag.c.key == key, tag.c.value == value))
    return found  # type: ignore[return-value]


def _through_metrics(tenant_id: TenantId, query: RunQuery) -> list[sa.ColumnElement[bool]]:
    found = []
    for metric, wanted in query.metrics.items():
        line = run_metric_summaries.alias()
        conditions = [line.c.tenant_id == tenant_id, line.c.run_id == runs.c.run_id, line.c.metric == metric]
        if wanted.at_least is not None:
            # A NaN is greater than every number to Postgres, and in no range.
            conditions += [line.c.last_value >= wanted.at_least, line.c.last_value <= sa.text("'Infinity'::float8")]
        if wanted.at_most is not None:
            conditions.append(line.c.last_value <= wanted.at_most)
        found.append(sa.exists().where(*conditions))
    return found  # type: ignore[return-value]


def _read_cursor(cursor: str) -> list[object]:
    moment, run_id = decode_cursor(cursor, str, str)
    try:
        return [datetime.fromisoformat(moment), run_id]
    except ValueError:
        raise InvalidRequestError(
            "The cursor is not one that this list returned.", remedy="Begin without one.", field="cursor"
        ) from None
