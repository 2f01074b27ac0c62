"""The audit: the ordered feed of what changed."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from ml_core.api.schemas.base import Schema


class Change(Schema):
    """One change of the registry."""

    audit_id: int
    at: datetime
    principal: str
    request_id: str | None
    action: str
    subject: dict[str, Any]
    details: dict[str, Any]
    cursor: str = Field(description="Send it as `after` for what follows this change.")
