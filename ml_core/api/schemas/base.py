"""What all schemas share."""

from __future__ import annotations

from typing import Generic, TypeVar

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
