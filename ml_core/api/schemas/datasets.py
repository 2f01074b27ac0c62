"""Datasets."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from ml_core.api.schemas.base import Schema
from ml_core.api.schemas.quality import ColumnDrift
from ml_core.domain.columns import ColumnKind
from ml_core.domain.quality import Verdict


class Dataset(Schema):
    """A dataset: a name with immutable versions of a table."""

    dataset_id: str = Field(examples=["tickets_2026"])
    versions: int = Field(description="Versions that are not archived.")
    newest: int
    row_count: int = Field(description="Of the newest.")
    size_bytes: int = Field(description="Of the newest.")
    created_at: datetime
    created_by: str
    archived_at: datetime | None = None


class DatasetVersion(Schema):
    """An immutable version of a table."""

    dataset_id: str
    number: int
    reference: str = Field(description="How it is named where a dataset is asked for.", examples=["tickets_2026@3"])
    digest: str = Field(description="sha256 of its Parquet file.")
    size_bytes: int
    row_count: int
    column_count: int
    source: dict[str, Any]
    created_at: datetime
    created_by: str
    archived_at: datetime | None = None


class ColumnProfile(Schema):
    """What the values of a column look like."""

    name: str
    type: str = Field(description="The Arrow type.")
    kind: ColumnKind | None
    count: int = Field(description="Rows with a value.")
    missing: int
    distinct: int
    infinite: int = 0
    minimum: float | None = None
    maximum: float | None = None
    mean: float | None = None
    std: float | None = None
    edges: list[float] = Field(default_factory=list, description="Quantiles: the edges of bins.")
    bin_counts: list[int] = Field(default_factory=list)
    values: list[tuple[str, int]] = Field(default_factory=list, description="Value and rows, most frequent first.")
    other: int = 0


class TableProfile(Schema):
    """What the columns of a table hold."""

    row_count: int
    sampled_rows: int
    columns: list[ColumnProfile]


class DatasetDetail(DatasetVersion):
    """A version of a dataset with its columns and their profile."""

    columns: list[tuple[str, str]] = Field(description="Name and Arrow type, in the order of the table.")
    profile: TableProfile
    is_new: bool = Field(description="Whether the request made it; false where the very table was registered already.")


class DatasetComparison(Schema):
    """How a version of a dataset differs from another, the first."""

    dataset_id: str
    number1: int
    number2: int
    same: bool = Field(description="Whether they are the same table.")
    added: list[str] = Field(description="Columns that only the second has.")
    removed: list[str] = Field(description="Columns that only the first has.")
    changed: list[str] = Field(description="Columns of another Arrow type, or with values of another kind.")
    columns: list[ColumnDrift] = Field(description="Those that both have, by their profiles; drifted ones first.")
    verdict: Verdict = Field(description="`alert` if a column drifted.")
