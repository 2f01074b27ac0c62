"""Datasets: what is recorded of an immutable version of a table, and the profile of its columns."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ml_core.domain.columns import ColumnKind
from ml_core.exceptions import InvalidRequestError
from ml_core.ids import DatasetId, Digest, TenantId

_REFERENCE = re.compile(r"([^@]*)(?:@([1-9][0-9]{0,17}))?")


@dataclass(frozen=True, slots=True)
class ColumnProfile:
    """What the values of a column look like, for people and for the comparison with later data.

    All counts are of the profile's rows, see ``TableProfile.sampled_rows``.

    Attributes:
        name: The column.
        type: Its Arrow type in the stored file, such as ``int64``.
        kind: What it holds; None without a value.
        count: Rows with a value. A blank string does not count; nor does, in a number, boolean or datetime, a word such
            as ``NA``.
        missing: Rows without one.
        distinct: Different values.
        infinite: Infinite numbers; counted here and in ``count`` only.
        minimum: Smallest of the numbers that the next five describe. These are the values of a number, seconds since
            1970-01-01 UTC of a datetime, characters of a text; a category or boolean has none.
        maximum: Largest of them.
        mean: Their mean.
        std: Their standard deviation, with the number of values as divisor.
        edges: Their quantiles at 0, 5, …, 100 %, each value once: the bins of a population stability index.
        bin_counts: Values in each bin: from an edge up to below the next one, the last edge included. One fewer than
            edges; none where all values are equal.
        values: Value → rows, most frequent first: of a category or boolean, and of a number with few different values.
        other: Rows whose value ``values`` does not list; 0 where it is empty.
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

    def to_json(self) -> dict[str, Any]:
        """A JSON-compatible description; ``from_json`` reads it back."""
        document = {name: getattr(self, name) for name in self.__slots__}
        return {**document, "kind": None if self.kind is None else self.kind.value, "values": list(self.values)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ColumnProfile:
        """The profile that ``to_json`` described; what a newer release adds is passed over."""
        known = {name: data[name] for name in cls.__slots__ if name in data}
        known["kind"] = None if data["kind"] is None else ColumnKind(data["kind"])
        for name in ("edges", "bin_counts"):
            known[name] = tuple(data[name])
        known["values"] = tuple((value, count) for value, count in data["values"])
        return cls(**known)


@dataclass(frozen=True, slots=True)
class TableProfile:
    """The profile of a table.

    Attributes:
        row_count: Rows of the table.
        sampled_rows: Rows that the columns' profiles describe: all of them, or a random sample that is the same
            whenever the table is profiled.
        columns: One a column, in their order.
    """

    row_count: int
    sampled_rows: int
    columns: tuple[ColumnProfile, ...]

    @property
    def is_sample(self) -> bool:
        """Whether the columns' profiles describe a part of the rows."""
        return self.sampled_rows < self.row_count

    def column(self, name: str) -> ColumnProfile | None:
        """The profile of a column, None if there is no such column."""
        return next((column for column in self.columns if column.name == name), None)

    def to_json(self) -> dict[str, Any]:
        """A JSON-compatible description; ``from_json`` reads it back."""
        return {
            "row_count": self.row_count,
            "sampled_rows": self.sampled_rows,
            "columns": [column.to_json() for column in self.columns],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TableProfile:
        """The profile that ``to_json`` described."""
        columns = tuple(ColumnProfile.from_json(column) for column in data["columns"])
        return cls(data["row_count"], data["sampled_rows"], columns)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class DatasetEntry:
    """A version of a dataset as a list shows it. Printed, it is one short line.

    Attributes:
        tenant_id: The tenant that owns it.
        dataset_id: The dataset that it is a version of.
        number: Which version, from 1; a number is never used again.
        digest: The sha256 of its Parquet file.
        size_bytes: Of the file.
        row_count: Rows of the table.
        column_count: Columns of the table.
        source: Where it came from: ``kind`` (``frame``, ``csv``, ``parquet`` or ``sql``) and what belongs to it.
        created_at: When it was registered, UTC.
        created_by: Who registered it.
        archived_at: When it was hidden, or None.
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
        """How it is named where a dataset is asked for: ``tickets_2026@3``."""
        return f"{self.dataset_id}@{self.number}"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class DatasetVersion(DatasetEntry):
    """A version of a dataset with everything that the registry knows of it.

    Attributes:
        columns: ``(name, Arrow type)`` in the order of the table.
        profile: What the columns hold.
        is_new: Whether the call that returned it made it: false where the very table was registered already, or where
            it was only read.
    """

    columns: tuple[tuple[str, str], ...]
    profile: TableProfile
    is_new: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class DatasetSummary:
    """A dataset as a list shows it.

    Attributes:
        dataset_id: Its name.
        versions: How many versions it has that are not archived.
        newest: The newest of them.
        row_count: Rows of the newest.
        size_bytes: Bytes of the newest.
        created_at: When the newest was registered, UTC.
        created_by: Who registered the newest.
        archived_at: When the newest was hidden, or None.
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
    """The dataset and the version's number of ``tickets_2026@3``; without a number, None: the newest.

    Raises:
        InvalidNameError: The name can't be a dataset's.
        InvalidRequestError: What follows the ``@`` is not a number.
    """
    match = _REFERENCE.fullmatch(text)
    if match is None:
        raise InvalidRequestError(
            f"{text[:100]!r} does not name a version of a dataset.",
            remedy="Write it like tickets_2026 (the newest version) or tickets_2026@3.",
            field="dataset",
        )
    return DatasetId(match[1]), None if match[2] is None else int(match[2])
