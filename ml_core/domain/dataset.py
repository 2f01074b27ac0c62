"""Datasets: the record of an immutable version of a table, and the profile of its columns."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ml_core.domain.columns import ColumnKind
from ml_core.domain.document import Document
from ml_core.exceptions import InvalidRequestError
from ml_core.ids import DatasetId, Digest, TenantId

_REFERENCE = re.compile(r"([^@]*)(?:@([1-9][0-9]{0,17}))?")  # 18 digits fit into a bigint


@dataclass(frozen=True, slots=True)
class ColumnProfile(Document):
    """Statistics of the values of a column.

    All counts are of the profile's rows, see ``TableProfile.sampled_rows``.

    Attributes:
        type: Its Arrow type in the stored file, such as ``int64``.
        kind: Its kind; None if it has no values.
        count: Rows with a value. A blank string is missing; in a number, boolean or datetime column so is a word such
            as ``NA``.
        infinite: Infinite numbers. They are included in ``count`` and in no other statistic.
        minimum: This and the following five describe the values of a number column, seconds since 1970-01-01 UTC of a
            datetime column, and characters of a text column; they are unset for other kinds.
        std: The population standard deviation.
        edges: Distinct quantiles at 0, 5, …, 100 %: the bins of a population stability index.
        bin_counts: Values in each bin ``[edge, next edge)``; the last bin includes its upper edge. Empty if all values
            are equal.
        values: Value → rows, most frequent first, of a category or boolean, or of a number with few distinct values.
        other: Rows whose value is not in ``values``; 0 if ``values`` is empty.
    """

    name: str
    type: str
    kind: ColumnKind | None
    count: int
    missing: int
    distinct: int
    infinite: int = 0
    minimum: float | None = None
    maximum: float | None = None
    mean: float | None = None
    std: float | None = None
    edges: tuple[float, ...] = ()
    bin_counts: tuple[int, ...] = ()
    values: tuple[tuple[str, int], ...] = ()
    other: int = 0


@dataclass(frozen=True, slots=True)
class TableProfile(Document):
    """The profile of a table.

    Attributes:
        row_count: Rows of the table.
        sampled_rows: Rows that the column profiles describe: all rows, or a reproducible random sample.
        columns: One profile per column, in the order of the table.
    """

    row_count: int
    sampled_rows: int
    columns: tuple[ColumnProfile, ...]

    @property
    def is_sample(self) -> bool:
        """Whether the column profiles describe a sample of the rows."""
        return self.sampled_rows < self.row_count

    def column(self, name: str) -> ColumnProfile | None:
        """The profile of a column; None if the table does not have it."""
        return next((column for column in self.columns if column.name == name), None)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class DatasetEntry:
    """A version of a dataset as an entry of a list.

    Attributes:
        number: The number of the version, from 1; numbers are never reused.
        digest: sha256 of the Parquet file.
        size_bytes: Size of the Parquet file.
        source: The origin: ``kind`` (``frame``, ``csv``, ``parquet``, ``sql`` or ``prediction``) and the details of
            that kind.
        created_at: When it was registered, UTC.
        created_by: Who registered it.
        archived_at: When it was archived, or None.
    """

    tenant_id: TenantId
    dataset_id: DatasetId
    number: int
    digest: Digest
    size_bytes: int
    row_count: int
    column_count: int
    source: Mapping[str, Any]
    created_at: datetime
    created_by: str
    archived_at: datetime | None = None

    def __repr__(self) -> str:
        parts = [
            f"{self.tenant_id}/{self.reference}",
            f"{self.row_count:,} row{'' if self.row_count == 1 else 's'}",
            f"{self.column_count:,} column{'' if self.column_count == 1 else 's'}",
        ]
        if self.archived_at is not None:
            parts.append("archived")
        return f"{type(self).__name__}({', '.join(parts)})"

    @property
    def reference(self) -> str:
        """The reference to this version, such as ``tickets_2026@3``."""
        return f"{self.dataset_id}@{self.number}"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class DatasetVersion(DatasetEntry):
    """A version of a dataset with all its recorded fields.

    Attributes:
        columns: ``(name, Arrow type)`` in the order of the table.
        profile: The profile of the columns.
        is_new: Whether the call that returned it created it; false if an identical table was registered before.
    """

    columns: tuple[tuple[str, str], ...]
    profile: TableProfile
    is_new: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class DatasetSummary:
    """A dataset as an entry of a list.

    Attributes:
        versions: The number of versions that are not archived.
        newest: The number of the newest of them. The fields below are those of this version.
    """

    dataset_id: DatasetId
    versions: int
    newest: int
    row_count: int
    size_bytes: int
    created_at: datetime
    created_by: str
    archived_at: datetime | None = None


def parse_reference(text: str) -> tuple[DatasetId, int | None]:
    """Parse a reference such as ``tickets_2026@3`` into the dataset and the number; None means the newest version.

    Raises:
        InvalidNameError: The name of the dataset is invalid.
        InvalidRequestError: The text after ``@`` is not a number.
    """
    match = _REFERENCE.fullmatch(text)
    if match is None:
        raise InvalidRequestError(
            f"{text[:100]!r} is not a reference to a version of a dataset.",
            remedy="Write it like tickets_2026 (the newest version) or tickets_2026@3.",
            field="dataset",
        )
    return DatasetId(match[1]), None if match[2] is None else int(match[2])
