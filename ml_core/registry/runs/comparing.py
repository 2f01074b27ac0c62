"""Conditions and orders of ``ml_core.domain.comparison`` as SQL over runs, and pages in any of these orders."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.database.tables import run_metric_summaries, run_tags, runs
from ml_core.domain.comparison import Comparison, Field, FieldKind, Operator, Order
from ml_core.exceptions import InvalidRequestError, shown
from ml_core.ids import TenantId
from ml_core.registry.limits import check_limit
from ml_core.registry.pages import Page, decode_cursor, encode_cursor
from ml_core.registry.search import of_owner

if TYPE_CHECKING:
    from ml_core.registry.pages import AnyRow, AnySelect

_ATTRIBUTES = ("run_id", "model_id", "kind", "status", "started_at", "finished_at", "created_by", "parent_run_id")
_NEVER_NULL = ("run_id", "model_id", "kind", "status", "started_at")
_READ: dict[type, Callable[[str], Any]] = {str: str, float: float, datetime: datetime.fromisoformat}
_NAN, _MISSING = 1, 2
"""Ranks of what is sorted behind the values."""
_SQL: dict[Operator, Callable[[Any, Any], sa.ColumnElement[bool]]] = {
    Operator.EQUAL: lambda left, right: left == right,
    Operator.DIFFERENT: lambda left, right: left != right,
    Operator.LESS: lambda left, right: left < right,
    Operator.AT_MOST: lambda left, right: left <= right,
    Operator.GREATER: lambda left, right: left > right,
    Operator.AT_LEAST: lambda left, right: left >= right,
    Operator.LIKE: lambda left, right: left.like(right),
    Operator.ILIKE: lambda left, right: left.ilike(right),
    Operator.IN: lambda left, right: left.in_(right),
    Operator.NOT_IN: lambda left, right: left.not_in(right),
}


def condition(tenant_id: TenantId, of: Comparison) -> sa.ColumnElement[bool]:
    """A comparison as a condition on a row of ``runs``. A run without the field meets ``is null`` alone.

    Raises:
        InvalidRequestError: There is no such attribute.
    """
    if of.field.kind is FieldKind.TAG:
        tag = run_tags.alias()
        return _exists(tag, tenant_id, tag.c.key == of.field.name, tag.c.value, of)
    if of.field.kind is FieldKind.METRIC:
        line = run_metric_summaries.alias()
        return _exists(line, tenant_id, line.c.metric == of.field.name, line.c.last_value, of)
    return compared(_column(of.field), of)


def compared(value: sa.ColumnElement[Any], of: Comparison) -> sa.ColumnElement[bool]:
    """The condition on a value that may be null."""
    if of.operator in (Operator.IS_NULL, Operator.IS_NOT_NULL):
        return value.is_(None) if of.operator is Operator.IS_NULL else value.is_not(None)
    if isinstance(of.value, datetime):  # clients know milliseconds
        value = sa.func.date_trunc("milliseconds", value)
    return _SQL[of.operator](value, of.value)


def _exists(
    table: sa.FromClause, tenant_id: TenantId, is_named: sa.ColumnElement[bool], value: Any, of: Comparison
) -> sa.ColumnElement[bool]:
    row = [*of_owner(table, runs, ("run_id",), tenant_id), is_named]
    if of.operator is Operator.IS_NULL:
        return ~sa.exists().where(*row)
    if of.operator is Operator.IS_NOT_NULL:
        return sa.exists().where(*row)
    row.append(_SQL[of.operator](value, of.value))
    if of.field.kind is FieldKind.METRIC and of.operator in (Operator.GREATER, Operator.AT_LEAST):
        # To Postgres a NaN is greater than every number.
        row.append(value <= sa.literal(math.inf, sa.Double))
    return sa.exists().where(*row)


def _column(field: Field) -> sa.ColumnElement[Any]:
    """An attribute or a parameter; one inside an object is found by the path of its names.

    The status is the stored one: a run that is silent is running.
    """
    if field.kind is FieldKind.ATTRIBUTE and field.name not in _ATTRIBUTES:
        raise InvalidRequestError(
            f"Runs have no attribute {shown(field.name, 60)} to search by.",
            remedy=f"Use one of {', '.join(_ATTRIBUTES)}.",
            field="attribute",
        )
    if field.kind is FieldKind.ATTRIBUTE:
        return runs.c[field.name]
    inside = runs.c.parameters[tuple(field.name.split("."))].as_string()
    return sa.func.coalesce(runs.c.parameters[field.name].as_string(), inside)


@dataclass(frozen=True, slots=True)
class _Term:
    """One expression of an order, never null, and what reads its value from a cursor."""

    expression: sa.ColumnElement[Any]
    is_descending: bool
    read: Callable[[str], Any]


def read_ordered(
    connection: Connection,
    tenant_id: TenantId,
    statement: AnySelect,
    orders: Sequence[Order],
    *,
    limit: int,
    cursor: str | None,
) -> Page[AnyRow]:
    """A page of the runs that a statement finds, which goes on after the last row that was seen, whatever the order.

    Args:
        connection: In the tenant's transaction.
        tenant_id: The tenant.
        statement: Over ``runs``, without an order and a limit.
        orders: What comes first, one at least; runs that are equal in all of it are in the order of their ids.
        limit: 1 to 1,000.
        cursor: ``next_cursor`` of the page before, in the same order.
    """
    terms: list[_Term] = []
    source: sa.FromClause = runs
    for order in orders:
        source, value, kind = _sorted_by(source, order.field, tenant_id)
        is_given = order.field.kind is FieldKind.ATTRIBUTE and order.field.name in _NEVER_NULL
        given = [_Term(value, order.is_descending, _READ[kind])] if is_given else None
        terms += given or _terms(value, kind, is_descending=order.is_descending)
    # In the direction of the first, so that an index over both serves the pages.
    terms.append(_Term(runs.c.run_id, orders[0].is_descending, str))
    sorting = repr([(order.field.kind.value, order.field.name, order.is_descending) for order in orders])
    statement = statement.select_from(source).add_columns(
        *(term.expression.label(f"sorted_{place}") for place, term in enumerate(terms))
    )
    if cursor is not None:
        sent = decode_cursor(cursor, *[str] * (len(terms) + 1))
        if sent[0] != sorting:
            raise _foreign()
        statement = statement.where(_after(terms, sent[1:]))
    ordered = [term.expression.desc() if term.is_descending else term.expression.asc() for term in terms]
    rows = connection.execute(statement.order_by(*ordered).limit(check_limit(limit) + 1)).all()
    if len(rows) <= limit:
        return Page(rows)
    last = [getattr(rows[limit - 1], f"sorted_{place}") for place in range(len(terms))]
    seen = [value.isoformat() if isinstance(value, datetime) else str(value) for value in last]
    return Page(rows[:limit], encode_cursor([sorting, *seen]))


def _sorted_by(
    source: sa.FromClause, field: Field, tenant_id: TenantId
) -> tuple[sa.FromClause, sa.ColumnElement[Any], type]:
    """What a field is read from, its value, null where a run has none, and the type of the value."""
    if field.kind is FieldKind.METRIC:
        line = run_metric_summaries.alias()
        is_own = sa.and_(*of_owner(line, runs, ("run_id",), tenant_id), line.c.metric == field.name)
        return source.outerjoin(line, is_own), line.c.last_value, float
    if field.kind is FieldKind.TAG:
        tag = run_tags.alias()
        is_own = sa.and_(*of_owner(tag, runs, ("run_id",), tenant_id), tag.c.key == field.name)
        return source.outerjoin(tag, is_own), tag.c.value, str
    is_time = field.kind is FieldKind.ATTRIBUTE and field.name in ("started_at", "finished_at")
    return source, _column(field), datetime if is_time else str


def _terms(value: sa.ColumnElement[Any], kind: type, *, is_descending: bool) -> Iterator[_Term]:
    rank = sa.case((value.is_(None), _MISSING), else_=0)
    if kind is float:
        nan = sa.literal(math.nan, sa.Double)
        rank = sa.case((value.is_(None), _MISSING), (value == nan, _NAN), else_=0)
        value = sa.func.coalesce(sa.func.nullif(value, nan), sa.literal(0.0, sa.Double))
    else:
        value = sa.func.coalesce(value, sa.text("''" if kind is str else "to_timestamp(0)"))
    yield _Term(rank, False, int)
    yield _Term(value, is_descending, _READ[kind])


def _after(terms: Sequence[_Term], texts: Sequence[str]) -> sa.ColumnElement[bool]:
    """The condition that a row comes after the one with these values."""
    try:
        values = [term.read(text) for term, text in zip(terms, texts, strict=True)]
    except ValueError:
        raise _foreign() from None
    found: sa.ColumnElement[bool] = sa.false()
    for term, value in zip(reversed(terms), reversed(values), strict=True):
        is_beyond = term.expression < value if term.is_descending else term.expression > value
        found = sa.or_(is_beyond, sa.and_(term.expression == value, found))
    first, value = terms[0], values[0]
    # Follows from the rest, and is a bound that an index serves.
    return sa.and_(first.expression <= value if first.is_descending else first.expression >= value, found)


def _foreign() -> InvalidRequestError:
    return InvalidRequestError(
        "The cursor is not one that this search returned.",
        remedy="Use that of the page before, unchanged, with the same filter and order; or begin without one.",
        field="cursor",
    )
