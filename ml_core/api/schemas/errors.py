"""The one shape of errors."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from ml_core.api.schemas.base import Schema


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
