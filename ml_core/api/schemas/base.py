"""What all schemas share, and the one shape of errors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from ml_core.domain.notebook import fields_of, record_html, records_html
from ml_core.exceptions import InvalidRequestError

Item = TypeVar("Item")


class Schema(BaseModel):
    """What the platform answers. It is read from the attributes of a value; NaN and infinities are null in JSON.

    Fields that a later release adds are ignored, so that an older client can read them.
    """

    model_config = ConfigDict(from_attributes=True, frozen=True, ser_json_inf_nan="null")

    def _repr_html_(self) -> str:
        return record_html(type(self).__name__, fields_of(self))


class Input(BaseModel):
    """What a caller sends. A field that is not known is refused: a typo must not be ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def invalid_fields(findings: Iterable[Mapping[str, Any]]) -> InvalidRequestError:
    """Pydantic's findings as one error: the first in words, all of them in the details.

    Args:
        findings: As ``errors()`` of pydantic lists them; each ``loc`` begins with ``body``, ``query`` and so on.
    """
    found = [{"field": _path(each["loc"]), "message": each["msg"]} for each in findings]
    first = found[0]
    return InvalidRequestError(
        f"Field {first['field']!r}: {first['message']}.",
        remedy="The operation's description at /api/docs has its fields.",
        field=first["field"],
        details={"fields": found} if len(found) > 1 else None,
    )


def _path(location: tuple[Any, ...]) -> str:
    """``metrics[0].name`` of ``("body", "metrics", 0, "name")``."""
    place, *parts = location
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return re.sub(r"^\.", "", text) or str(place)


class Page(Schema, Generic[Item]):
    """Some items of a list."""

    items: list[Item]
    next_cursor: str | None = Field(default=None, description="`cursor` of the next page; null on the last.")

    def _repr_html_(self) -> str:
        return records_html("More on the next page" if self.next_cursor else "", map(fields_of, self.items))


class ErrorAction(Schema):
    """An operation that mends what the error reports."""

    operation: str = Field(description="An operation id of this document.", examples=["keys.create"])
    arguments: dict[str, Any] = Field(description="Its parameters; the caller supplies those that are missing.")


class Error(Schema):
    """What went wrong, and what to do."""

    code: str = Field(examples=["not_found"])
    message: str = Field(examples=["There is no tenant acme. Create it."])
    details: dict[str, Any]
    action: ErrorAction | None = None
    request_id: str


class ErrorAnswer(Schema):
    """The body of every answer that is not a success."""

    error: Error
