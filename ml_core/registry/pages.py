"""Keyset pages: a list goes on after the last row that was seen, so a page costs the same however deep it is."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import orjson
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.domain.notebook import fields_of, records_html
from ml_core.exceptions import InvalidRequestError
from ml_core.registry.limits import MAX_PAGE_SIZE, check_limit

if TYPE_CHECKING:
    AnyRow = sa.Row[*tuple[Any, ...]]
    AnySelect = sa.Select[*tuple[Any, ...]]

Item = TypeVar("Item")
Other = TypeVar("Other")


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """Some items of a list, and the cursor of the next page; None at the end."""

    items: Sequence[Item]
    next_cursor: str | None = None

    def map(self, make: Callable[[Item], Other]) -> Page[Other]:
        """The same page of what ``make`` makes of each item."""
        return Page([make(item) for item in self.items], self.next_cursor)

    def _repr_html_(self) -> str:
        return records_html("More on the next page" if self.next_cursor else "", map(fields_of, self.items))


def read_page(
    connection: Connection,
    statement: AnySelect,
    order: Sequence[sa.ColumnElement[Any]],
    *,
    limit: int,
    cursor: str | None,
    descending: bool = False,
    sorting: str | None = None,
) -> Page[AnyRow]:
    """One page of the rows that a statement finds.

    Args:
        connection: In the tenant's transaction.
        statement: Without an order and a limit; it selects the columns of ``order`` under their own names.
        order: The columns that the list is sorted by, which make a row unique: texts, numbers and moments. An index
            with this order serves every page.
        limit: At most so many rows, 1 to 1000.
        cursor: ``next_cursor`` of the page before, of the same list.
        descending: Whether the order is reversed.
        sorting: The name of the order, where a list has several: a cursor of another would pass rows over.
    """
    if cursor is not None:
        kinds = [column.type.python_type for column in order]
        named = [] if sorting is None else [str]
        found = decode_cursor(cursor, *named, *(str if kind is datetime else kind for kind in kinds))
        values = found[len(named) :]
        if sorting is not None and found[0] != sorting:
            raise _foreign_cursor()
        literals = [
            sa.literal(_moment(value) if kind is datetime else value, column.type)
            for column, kind, value in zip(order, kinds, values, strict=True)
        ]
        left, right = sa.tuple_(*order), sa.tuple_(*literals)  # a comparison of rows, which an index serves
        statement = statement.where(left < right if descending else left > right)
    directed = [column.desc() if descending else column.asc() for column in order]
    # One more than asked for shows whether there is a next page.
    rows = connection.execute(statement.order_by(*directed).limit(check_limit(limit) + 1)).all()
    if len(rows) <= limit:
        return Page(rows)
    last = [getattr(rows[limit - 1], column.name) for column in order]
    seen = [value.isoformat() if isinstance(value, datetime) else value for value in last]
    return Page(rows[:limit], encode_cursor(seen if sorting is None else [sorting, *seen]))


def every(read: Callable[[int, str | None], Page[Item]], limit: int | None = None) -> Iterator[Item]:
    """All items of a list or the first ``limit``, one page at a time; ``read`` reads it with a limit and a cursor.

    Raises:
        InvalidRequestError: The limit is not a whole number of at least 1.
    """
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise InvalidRequestError(f"The limit is {limit!r}.", remedy="Give a whole number from 1 up.", field="limit")
    left, cursor = limit, None
    while True:
        page = read(MAX_PAGE_SIZE if left is None else min(left, MAX_PAGE_SIZE), cursor)
        yield from page.items
        cursor = page.next_cursor
        left = None if left is None else left - len(page.items)
        if cursor is None or left == 0:
            return


def encode_cursor(values: Sequence[Any]) -> str:
    """A cursor for the last row of a page: the values that it was sorted by, JSON-compatible."""
    return base64.urlsafe_b64encode(orjson.dumps(list(values))).decode().rstrip("=")


def decode_cursor(cursor: str, *kinds: type) -> list[Any]:
    """The values of a cursor that ``encode_cursor`` made of values of these types.

    Raises:
        InvalidRequestError: The cursor is malformed, or of another list.
    """
    try:
        values = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError):
        values = None
    if (
        not isinstance(values, list)
        or len(values) != len(kinds)
        or not all(isinstance(value, kind) for value, kind in zip(values, kinds, strict=True))
        or any(isinstance(value, bool) for value in values)  # which is an int, and nothing is sorted by
    ):
        raise _foreign_cursor()
    return values


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise _foreign_cursor() from None


def _foreign_cursor() -> InvalidRequestError:
    return InvalidRequestError(
        "The cursor is not one that this list returned.",
        remedy="Use next_cursor of the page before, unchanged, with the same sorting; or begin without a cursor.",
        field="cursor",
    )
