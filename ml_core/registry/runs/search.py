"""Reading runs: by criteria, newest first, in keyset pages; each with its tags, summaries and versions."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypedDict

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Connection

from ml_core.database.tables import run_metric_summaries, run_tags, runs, versions
from ml_core.domain.comparison import Comparison, Field, FieldKind, Operator, Order
from ml_core.domain.keywords import check_keywords
from ml_core.domain.metric import HIGHER_IS_BETTER, parse_bound
from ml_core.domain.run import Run, RunStatus
from ml_core.exceptions import InvalidRequestError, shown
from ml_core.ids import ModelId, TenantId
from ml_core.registry.limits import check_choice, check_filters, check_moment
from ml_core.registry.pages import Page
from ml_core.registry.records import value_of
from ml_core.registry.runs.comparing import condition, read_ordered
from ml_core.registry.runs.lifecycle import in_status, seen_status
from ml_core.registry.runs.series import read_summaries
from ml_core.registry.search import in_range, of_owner, tagged

if TYPE_CHECKING:
    from ml_core.registry.pages import AnyRow, AnySelect

STARTED = "started"
NEWEST_FIRST = Order(Field(FieldKind.ATTRIBUTE, "started_at"), is_descending=True)
_KEY = ("run_id",)


class RunCriteria(TypedDict, total=False):
    """The filters of ``RunRepository.search``; None or an empty one does not restrict."""

    kind: str | None
    status: str | None
    tags: Mapping[str, str] | None
    parameters: Mapping[str, Any] | None
    metrics: Iterable[str] | str | None
    parent_run_id: str | None
    started_from: datetime | None
    started_before: datetime | None


def sorting(
    tenant_id: TenantId, sort: str, descending: bool | None
) -> tuple[Sequence[sa.ColumnElement[bool]], Sequence[Order]]:
    """The condition that a run has what is sorted by, and the order: of equal metrics the newest first."""
    if sort == STARTED:
        return [], [Order(NEWEST_FIRST.field, descending is not False)]
    field = Field(FieldKind.METRIC, sort)
    is_descending = HIGHER_IS_BETTER.get(sort.rpartition("/")[2], True) if descending is None else descending
    return [condition(tenant_id, Comparison(field, Operator.IS_NOT_NULL))], [Order(field, is_descending), NEWEST_FIRST]


def require_sortable(connection: Connection, tenant_id: TenantId, sort: str) -> None:
    """Refuse to sort by a metric that no run has: a typo would read like a result.

    Raises:
        InvalidRequestError: No run of the tenant has it.
    """
    of = sa.select(run_metric_summaries.c.run_id).filter_by(tenant_id=tenant_id, metric=sort)
    if sort != STARTED and connection.scalar(of.limit(1)) is None:
        raise InvalidRequestError(
            f"No run has the metric {shown(sort, 100)}.",
            remedy="Sort by 'started', or by a metric as it was logged, such as 'validation/accuracy'.",
            field="sort",
        )


def ordered(
    connection: Connection,
    tenant_id: TenantId,
    conditions: Sequence[sa.ColumnElement[bool]],
    orders: Sequence[Order],
    dead_after_s: float,
    limit: int,
    cursor: str | None,
) -> Page[Run]:
    """One page of the runs that meet conditions; four statements, however many runs there are."""
    statement = _select(tenant_id, dead_after_s).where(*conditions)
    page = read_ordered(connection, tenant_id, statement, orders, limit=limit, cursor=cursor)
    return Page(_complete(connection, tenant_id, page.items), page.next_cursor)


def conditions_of(
    tenant_id: TenantId, model_id: str | None, criteria: RunCriteria, dead_after_s: float
) -> Sequence[sa.ColumnElement[bool]]:
    """The conditions on a row of ``runs``.

    Raises:
        InvalidRequestError: The status, a bound of a metric or a moment can't be used.
        InvalidNameError: The model's name is not valid.
        RequestTooLargeError: There are too many.
        TypeError: There is no such criterion.
    """
    check_keywords("search", criteria, RunCriteria.__annotations__)
    found: list[sa.ColumnElement[bool]] = []
    named = {"model_id": None if model_id is None else ModelId(model_id), "kind": criteria.get("kind")}
    named["parent_run_id"] = criteria.get("parent_run_id")
    found += [runs.c[name] == value for name, value in named.items() if value is not None]
    if (status := criteria.get("status")) is not None:
        found.append(in_status(check_choice(RunStatus, status, "status"), dead_after_s))
    if (since := check_moment("started_from", criteria.get("started_from"))) is not None:
        found.append(runs.c.started_at >= since)
    if (until := check_moment("started_before", criteria.get("started_before"))) is not None:
        found.append(runs.c.started_at < until)
    for name, value in (criteria.get("parameters") or {}).items():
        found.append(runs.c.parameters[tuple(name.split("."))] == sa.literal(value, JSONB))
    found += tagged(run_tags, runs, _KEY, tenant_id, criteria.get("tags") or {})
    bounds = criteria.get("metrics") or ()
    found += [_in_range(tenant_id, bound) for bound in ([bounds] if isinstance(bounds, str) else bounds)]
    return check_filters(found)


def find(connection: Connection, tenant_id: TenantId, run_ids: Collection[str], dead_after_s: float) -> dict[str, Run]:
    """The runs of these ids that exist."""
    statement = _select(tenant_id, dead_after_s).where(runs.c.run_id.in_(run_ids))
    found = _complete(connection, tenant_id, connection.execute(statement).all())
    return {run.run_id: run for run in found}


def read_tags(connection: Connection, tenant_id: TenantId, run_ids: Collection[str]) -> dict[str, dict[str, str]]:
    """Run → key → value."""
    statement = sa.select(run_tags).filter_by(tenant_id=tenant_id).where(run_tags.c.run_id.in_(run_ids))
    found: dict[str, dict[str, str]] = {run_id: {} for run_id in run_ids}
    for row in connection.execute(statement.order_by(run_tags.c.run_id, run_tags.c.key)):
        found[row.run_id][row.key] = row.value
    return found


def _read_versions(connection: Connection, tenant_id: TenantId, run_ids: Collection[str]) -> dict[str, list[str]]:
    """Run → the versions that it made, as ``name@version``, oldest first."""
    of = versions.c
    statement = sa.select(of.run_id, of.model_id, of.version).filter_by(tenant_id=tenant_id)
    found: dict[str, list[str]] = {run_id: [] for run_id in run_ids}
    for row in connection.execute(statement.where(of.run_id.in_(run_ids)).order_by(of.run_id, of.model_id, of.number)):
        found[row.run_id].append(f"{row.model_id}@{row.version}")
    return found


def _select(tenant_id: TenantId, dead_after_s: float) -> AnySelect:
    columns = [column for column in runs.c if column.name not in ("tenant_id", "status")]
    return sa.select(*columns, seen_status(dead_after_s).label("status")).where(runs.c.tenant_id == tenant_id)


def _complete(connection: Connection, tenant_id: TenantId, rows: Collection[AnyRow]) -> list[Run]:
    if not rows:
        return []
    run_ids = [row.run_id for row in rows]
    # One statement for each kind of part, for all runs of the page together.
    metrics = read_summaries(connection, tenant_id, run_ids)
    tags = read_tags(connection, tenant_id, run_ids)
    made = _read_versions(connection, tenant_id, run_ids)
    return [
        value_of(Run, row, metrics=metrics[row.run_id], tags=tags[row.run_id], versions=tuple(made[row.run_id]))
        for row in rows
    ]


def _in_range(tenant_id: TenantId, text: str) -> sa.ColumnElement[bool]:
    """The condition that the last value of a metric is within a bound such as ``validation/accuracy>=0.8``."""
    bound, line = parse_bound(text), run_metric_summaries.alias()
    within = in_range(line.c.last_value, bound.at_least, bound.at_most)
    return sa.exists().where(*of_owner(line, runs, _KEY, tenant_id), line.c.metric == bound.name, *within)
