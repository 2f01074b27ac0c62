"""Keyset pages: a list goes on after the last row that was seen, so a page costs the same however deep it is."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import orjson
import sqlalchemy as sa

from ml_core.exceptions import InvalidRequestError

Item = TypeVar("Item")

MAX_PAGE_SIZE = 1000


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """Some items of a list, and the cursor of the next page; None at the end."""

    items: Sequence[Item]
    next_cursor: str | None = None


def encode_cursor(values: Sequence[Any]) -> str:
    """A cursor for the last row of a page: the values that it was sorted by, JSON-compatible."""
    return base64.urlsafe_b64encode(orjson.dumps(list(values))).decode().rstrip("=")


def decode_cursor(cursor: str, *kinds: type | tuple[type, ...]) -> list[Any]:
    """The values of a cursor.

    Args:
        cursor: As ``encode_cursor`` made it.
        *kinds: The types of the values that the list is sorted by.

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
        raise InvalidRequestError(
            "The cursor is not one that this list returned.",
            remedy="Take next_cursor of the page before, unchanged, with the same sorting; or begin without one.",
            field="cursor",
        )
    return values


def check_limit(limit: int) -> int:
    """A page size that may be asked for.

    Raises:
        InvalidRequestError: It is not between 1 and ``MAX_PAGE_SIZE``.
    """
    if not 1 <= limit <= MAX_PAGE_SIZE:
        raise InvalidRequestError(
            f"A page has 1 to {MAX_PAGE_SIZE} items, not {limit}.", remedy="Correct the limit.", field="limit"
        )
    return limit


def after(
    columns: Sequence[sa.ColumnElement[Any]], values: Sequence[Any], *, descending: bool
) -> sa.ColumnElement[bool]:
    """The condition that a row comes later in the order of the columns: a row comparison, which an index serves."""
    left, right = sa.tuple_(*columns), sa.tuple_(*values)
    return left < right if descending else left > right
