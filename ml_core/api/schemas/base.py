"""What all schemas share, and the one shape of errors."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

Item = TypeVar("Item")


class Schema(BaseModel):
    """What the platform answers. It is read from the attributes of a value; NaN and infinities are null in JSON.

    Fields that a later release adds are ignored, so that an older client can read them.
    """

    model_config = ConfigDict(from_attributes=True, frozen=True, ser_json_inf_nan="null")


class Input(BaseModel):
    """What a caller sends. A field that is not known is refused: a typo must not be ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Page(Schema, Generic[Item]):
    """Some items of a list."""

    items: list[Item]
    next_cursor: str | None = Field(default=None, description="`cursor` of the next page; null on the last.")


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
