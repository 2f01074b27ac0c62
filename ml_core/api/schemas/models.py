"""Models."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from ml_core.api.schemas.base import Schema


class Model(Schema):
    """A model of a tenant: a name with immutable versions."""

    model_id: str = Field(examples=["tickets"])
    model_type: str = Field(examples=["classification"])
    versions: int = Field(description="Versions that are not archived.")
    newest_version: str | None = Field(description="The newest of them.", examples=["3"])
    created_at: datetime
    archived_at: datetime | None = Field(default=None, description="When the model was archived.")
