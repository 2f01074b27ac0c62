"""API keys."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from ml_core.api.schemas.base import Input, Schema

_SCOPES = Field(
    description="`predict`, `read`, `label`, `train`, `promote`, `approve`, `admin`, or `promote:<environment>`.",
    examples=[["predict"]],
)


class Key(Schema):
    """A key as it is listed; the secret is not kept."""

    key_id: str
    name: str
    scopes: list[str] = _SCOPES
    created_at: datetime
    revoked_at: datetime | None = None


class NewKey(Input):
    """A key to create."""

    name: str = Field(default="unnamed", description="What it is for; shown in lists.")
    scopes: list[str] = _SCOPES


class NewPlatformKey(Input):
    """A key of the platform to create."""

    name: str = Field(default="unnamed", description="What it is for; shown in lists.")
    scopes: list[str] = Field(
        description="`admin`, which may change everything, or `read`, which may change nothing.", examples=[["read"]]
    )


class CreatedKey(Schema):
    """A new key. The whole key is shown this once."""

    key_id: str
    key: str = Field(examples=["mlk_0123456789abcdef_…"])
    name: str
    scopes: list[str]
