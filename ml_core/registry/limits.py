"""Limits and forms that every noun of the registry has in common, checked before the database is asked.

A value of a wrong form is an ``InvalidRequestError``; one that is too large, or too many, is a
``RequestTooLargeError``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeVar

import orjson

from ml_core.database.strict_json import is_storable, plain
from ml_core.exceptions import InvalidRequestError, RequestTooLargeError, shown

Choice = TypeVar("Choice", bound=StrEnum)
Filter = TypeVar("Filter")

MAX_PAGE_SIZE = 1000
MAX_DOCUMENT_BYTES = 64 * 2**10
"""Of a document, such as a run's parameters, as JSON. Each list reads it; larger values belong in a file of the run."""
MAX_METRICS = 1_000
"""Of a run or a version: each is a row, and a statement has at most 65,535 parameters."""
MAX_WORD = 250
"""Characters of a metric's name, or of the key of a tag. An index holds several of them."""
MAX_TAG = 8_000
"""Characters of a tag's value. An index holds the first ``MAX_WORD`` of them."""
MAX_TAGS_BYTES = 64 * 2**10
"""Of the keys and values of all tags of a run or a version. Each list reads them."""
MAX_FILTERS = 30
"""Of a search. Postgres plans tags and metrics as joins: 30 take 0.3 s, 100 take 3 s, 300 exceed its time limit."""


def check_limit(limit: int) -> int:
    """A page size.

    Raises:
        InvalidRequestError: It is not between 1 and ``MAX_PAGE_SIZE``.
    """
    if not 1 <= limit <= MAX_PAGE_SIZE:
        raise InvalidRequestError(
            f"A page has 1 to {MAX_PAGE_SIZE} items, not {limit}.", remedy="Correct the limit.", field="limit"
        )
    return limit


def check_filters(conditions: Sequence[Filter]) -> Sequence[Filter]:
    """The conditions of a search.

    Raises:
        RequestTooLargeError: They are more than ``MAX_FILTERS``.
    """
    if len(conditions) > MAX_FILTERS:
        raise RequestTooLargeError(
            f"The search has {len(conditions):,} filters; {MAX_FILTERS} are allowed.",
            remedy="Leave out tags, metrics or parameters.",
            limit=MAX_FILTERS,
            actual=len(conditions),
        )
    return conditions


def check_document(
    document: Mapping[str, Any], what: str, *, reserved_bytes: int = 0, max_bytes: int = MAX_DOCUMENT_BYTES
) -> dict[str, Any]:
    """A document in the form in which it is stored.

    Args:
        document: The document.
        what: What it is, for messages: ``parameters``.
        reserved_bytes: Space that the platform needs for what it adds later.
        max_bytes: Its limit.

    Raises:
        InvalidRequestError: A name or value has no JSON form; names it.
        RequestTooLargeError: It has more than ``max_bytes``.
    """
    stored: dict[str, Any] = plain(dict(document), what)
    size_bytes, allowed_bytes = len(orjson.dumps(stored)), max_bytes - reserved_bytes
    if size_bytes > allowed_bytes:
        raise RequestTooLargeError(
            f"The {what} have {size_bytes:,} bytes as JSON; {allowed_bytes:,} are allowed.",
            remedy="Store large values in a file of the run.",
            limit=allowed_bytes,
            actual=size_bytes,
        )
    return stored


def check_word(text: str, field: str) -> str:
    """A name of 1 to 250 printable characters, such as a metric's.

    Raises:
        InvalidRequestError: The text is not such a name.
    """
    if not isinstance(text, str) or not 1 <= len(text) <= MAX_WORD or not text.isprintable():
        raise InvalidRequestError(
            f"{shown(text, 60)} can't be the name of a {field}.",
            remedy=f"Use 1 to {MAX_WORD} printable characters.",
            field=field,
        )
    return text


def check_tags(tags: Mapping[str, str | None]) -> tuple[dict[str, str], list[str]]:
    """Tags to set, and keys to remove: those whose value is None.

    Raises:
        InvalidRequestError: A key is not a text of 1 to 250 characters, or a value is not one of at most 8,000.
    """
    for key, value in tags.items():
        is_key = isinstance(key, str) and 1 <= len(key) <= MAX_WORD and is_storable(key)
        if not is_key or not (
            value is None or (isinstance(value, str) and len(value) <= MAX_TAG and is_storable(value))
        ):
            raise InvalidRequestError(
                f"The tag {shown(key)} can't be set to {shown(value)}.",
                remedy=f"A key is a text of 1 to {MAX_WORD} characters, a value one of at most {MAX_TAG:,} characters;"
                " null removes a tag.",
                field="tags",
            )
    kept = {key: value for key, value in tags.items() if value is not None}
    return kept, [key for key, value in tags.items() if value is None]


def check_choice(kind: type[Choice], text: str, field: str) -> Choice:
    """The member of an enumeration that a text names.

    Raises:
        InvalidRequestError: There is no such member; lists those that there are.
    """
    try:
        return kind(text)
    except ValueError:
        raise InvalidRequestError(
            f"There is no {field.replace('_', ' ')} {shown(text)}.",
            remedy=f"Use one of {', '.join(kind)}.",
            field=field,
        ) from None


def check_moment(field: str, moment: datetime | None) -> datetime | None:
    """A moment in UTC.

    Raises:
        InvalidRequestError: It has no time zone, or is before the year 1 or after 9999 in UTC.
    """
    if moment is not None and moment.tzinfo is None:
        raise InvalidRequestError(
            f"Field {field!r} has no time zone.", remedy="Write it as 2026-11-24T12:00:00+00:00.", field=field
        )
    try:
        return None if moment is None else moment.astimezone(UTC)
    except OverflowError:
        raise InvalidRequestError(
            f"Field {field!r} is out of range.", remedy="Write a moment of the years 1 to 9999 in UTC.", field=field
        ) from None


def check_range(since: datetime | None, until: datetime | None) -> tuple[datetime | None, datetime | None]:
    """A range of time in UTC.

    Raises:
        InvalidRequestError: A moment has no time zone, or the range ends before it begins.
    """
    since, until = check_moment("since", since), check_moment("until", until)
    if since is not None and until is not None and since >= until:
        raise InvalidRequestError(
            f"The range of time from {since:%Y-%m-%d %H:%M:%S} to {until:%Y-%m-%d %H:%M:%S} holds no moment.",
            remedy="Give 'since' an earlier moment than 'until'.",
            field="until",
        )
    return since, until
