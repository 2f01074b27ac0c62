"""Rows of the dataset tables as values, the conditions that select them, and the errors for those that do not exist."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.database.tables import dataset_versions
from ml_core.domain.dataset import DatasetEntry, DatasetVersion, TableProfile
from ml_core.exceptions import DatasetNotFoundError
from ml_core.ids import DatasetId, Digest, TenantId
from ml_core.registry.missing import did_you_mean

if TYPE_CHECKING:
    from ml_core.registry.versions.rows import AnyRow

_COMPARED = 1_000
"""Names that a typo is compared with at most, as in ``ml_core.registry.missing``."""

of = dataset_versions.c

ENTRY_COLUMNS = (
    of.tenant_id,
    of.dataset_id,
    of.number,
    of.digest,
    of.size_bytes,
    of.row_count,
    sa.func.jsonb_array_length(of.columns).label("column_count"),
    of.source,
    of.created_at,
    of.created_by,
    of.archived_at,
)
VERSION_COLUMNS = (*ENTRY_COLUMNS, of.columns, of.profile)


def entry_from(row: AnyRow) -> DatasetEntry:
    """A version as a list shows it, from a row of ``ENTRY_COLUMNS``."""
    return DatasetEntry(
        tenant_id=TenantId(row.tenant_id),
        dataset_id=DatasetId(row.dataset_id),
        number=row.number,
        digest=Digest(row.digest),
        size_bytes=row.size_bytes,
        row_count=row.row_count,
        column_count=row.column_count,
        source=row.source,
        created_at=row.created_at,
        created_by=row.created_by,
        archived_at=row.archived_at,
    )


def version_from(row: AnyRow) -> DatasetVersion:
    """A version with its schema and profile, from a row of ``VERSION_COLUMNS``."""
    entry = entry_from(row)
    return DatasetVersion(
        **{name: getattr(entry, name) for name in DatasetEntry.__slots__},
        columns=tuple((column["name"], column["type"]) for column in row.columns),
        profile=TableProfile.from_json(row.profile),
    )


def is_version(tenant_id: TenantId, dataset_id: DatasetId, number: int | None = None) -> sa.ColumnElement[bool]:
    """The condition that a row is a version of the dataset: the one of a number, or any that is not archived."""
    which = of.archived_at.is_(None) if number is None else of.number == number
    return sa.and_(of.tenant_id == tenant_id, of.dataset_id == dataset_id, which)


def find(
    connection: Connection, tenant_id: TenantId, dataset_id: DatasetId, number: int | None
) -> DatasetVersion | None:
    """A version by number, archived ones too; without a number the newest that is not archived."""
    statement = sa.select(*VERSION_COLUMNS).where(is_version(tenant_id, dataset_id, number))
    row = connection.execute(statement.order_by(of.number.desc()).limit(1)).one_or_none()
    return None if row is None else version_from(row)


def dataset_not_found(
    connection: Connection, tenant_id: TenantId, dataset_id: DatasetId, number: int | None
) -> DatasetNotFoundError:
    """The one wording of "there is no such dataset", or version of it; names the nearest that there is."""
    newest = connection.scalar(
        sa.select(sa.func.max(of.number)).where(of.tenant_id == tenant_id, of.dataset_id == dataset_id)
    )
    if newest is None:
        shown = sa.select(of.dataset_id).where(of.tenant_id == tenant_id, of.archived_at.is_(None)).distinct()
        known = connection.scalars(shown.order_by(of.dataset_id).limit(_COMPARED)).all()
        message = f"The dataset {dataset_id!s} does not exist."
        remedy = f"{did_you_mean(dataset_id, known)}List them: mlcore datasets list --tenant {tenant_id!s}"
    elif number is None:
        message = f"All versions of the dataset {dataset_id!s} are archived."
        remedy = f"Restore one: mlcore datasets restore {dataset_id!s}@{newest} --tenant {tenant_id!s}"
    else:
        message = f"The dataset {dataset_id!s} has no version {number}."
        remedy = f"List them: mlcore datasets versions {dataset_id!s} --tenant {tenant_id!s}"
    return DatasetNotFoundError(message, remedy=remedy, tenant_id=tenant_id, dataset_id=str(dataset_id), number=number)
