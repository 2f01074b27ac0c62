"""Experiments: the runs of one model under a name of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from ml_core.ids import ModelId


@dataclass(frozen=True, slots=True)
class Experiment:
    """The runs of a model under a name. Times are UTC.

    Attributes:
        model_id: The model that the runs are for; it need not exist.
        name: The model's own, until another is set.
        tags: Key → value.
        created_at: Of runs that nobody named, when the first one started.
        updated_at: When it was last changed, or a run of it started.
        archived_at: When it was archived, or None.
    """

    model_id: ModelId
    name: str
    tags: Mapping[str, str]
    created_at: datetime
    updated_at: datetime
    archived_at: datetime | None
