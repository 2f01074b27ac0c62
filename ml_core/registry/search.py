"""What searches over versions and runs share: tags and metrics as rows, and the conditions that find their owner."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import Connection

from ml_core.exceptions import RequestTooLargeError
from ml_core.ids import TenantId
from ml_core.registry.journal import erase
from ml_core.registry.limits import MAX_TAGS_BYTES, MAX_WORD, check_tags


def write_tags(
    connection: Connection,
    table: sa.Table,
    tenant_id: TenantId,
    owner: Mapping[str, str],
    tags: Mapping[str, str | None],
) -> None:
    """Set tags of what the owner's columns name, and remove those whose value is None, in the tenant's transaction.

    Raises:
        InvalidRequestError: A key is not a text of 1 to 250 characters, or a value is not one of at most 8,000.
        RequestTooLargeError: All tags together would be more than 64 KiB.
    """
    kept, removed = check_tags(tags)
    if removed:
        erase(connection, table, **owner, key=removed)
    if kept:
        rows = [{"tenant_id": tenant_id, **owner, "key": key, "value": value} for key, value in kept.items()]
        statement = insert(table).values(rows)
        connection.execute(
            statement.on_conflict_do_update(constraint=table.primary_key, set_={"value": statement.excluded.value})
        )
        size = sa.func.sum(sa.func.octet_length(table.c.key) + sa.func.octet_length(table.c.value))
        total = connection.scalar(sa.select(size).filter_by(tenant_id=tenant_id, **owner))
        if total is not None and total > MAX_TAGS_BYTES:
            raise RequestTooLargeError(
                f"The tags would have {total:,} bytes together; {MAX_TAGS_BYTES:,} are allowed.",
                remedy="Remove tags, or store large values in a file of the run.",
                limit=MAX_TAGS_BYTES,
                actual=int(total),
            )


def tagged(
    table: sa.Table, owner: sa.Table, key: Sequence[str], tenant_id: TenantId, tags: Mapping[str, str]
) -> Iterator[sa.ColumnElement[bool]]:
    """The conditions that a version or run has each of some tags; by ``key`` its table is joined with that of tags."""
    for name, value in tags.items():
        tag = table.alias()
        indexed = sa.func.left(tag.c.value, sa.text(str(MAX_WORD))) == value[:MAX_WORD]
        is_equal = [indexed] if len(value) < MAX_WORD else [indexed, tag.c.value == value]
        yield sa.exists().where(*of_owner(tag, owner, key, tenant_id), tag.c.key == name, *is_equal)


def of_owner(
    table: sa.FromClause, owner: sa.Table, key: Sequence[str], tenant_id: TenantId
) -> list[sa.ColumnElement[bool]]:
    """The conditions that a row belongs to the owner that a query looks at."""
    return [table.c.tenant_id == tenant_id, *(table.c[name] == owner.c[name] for name in key)]


def in_range(
    value: sa.ColumnElement[float], at_least: float | None, at_most: float | None
) -> Iterator[sa.ColumnElement[bool]]:
    """The conditions that a metric lies between two bounds, both included; None: no bound."""
    if at_least is not None:
        # To Postgres a NaN is greater than every number; it is in no range.
        yield value >= at_least
        yield value <= sa.text("'Infinity'::float8")
    if at_most is not None:
        yield value <= at_most
