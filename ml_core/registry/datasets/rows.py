"""Rows of the dataset tables as values, the conditions that select them, and the errors about them.

A version that a gate compares model versions on can't be archived or deleted: the gate would refuse every promotion.
Whoever sets a gate holds the lock of the version's digest meanwhile, see ``ml_core.registry.blobs.lock_digest``, and so
does whoever archives or deletes the version, so neither overlooks the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.database.tables import dataset_versions
from ml_core.domain.dataset import DatasetVersion, TableProfile
from ml_core.exceptions import Action, DatasetInUseError, DatasetNotFoundError, did_you_mean
from ml_core.ids import DatasetId, Digest, TenantId
from ml_core.registry.records import value_of
from ml_core.registry.references import dataset_references

if TYPE_CHECKING:
    from ml_core.registry.pages import AnyRow

_COMPARED = 1_000
"""Names that a typo is compared with at most, as in ``ml_core.registry.missing``."""
_MOST_NAMED = 20
"""Gates or model versions that an error names."""

of = dataset_versions.c

ENTRY_COLUMNS = (
    *(of[name] for name in ("tenant_id", "dataset_id", "number", "digest", "size_bytes", "row_count", "source")),
    *(of[name] for name in ("created_at", "created_by", "archived_at")),
    sa.func.jsonb_array_length(of.columns).label("column_count"),
)
VERSION_COLUMNS = (*ENTRY_COLUMNS, of.columns, of.profile)


def version_from(row: AnyRow) -> DatasetVersion:
    """A version with its schema and profile, from a row of ``VERSION_COLUMNS``."""
    columns = tuple((column["name"], column["type"]) for column in row.columns)
    return value_of(DatasetVersion, row, columns=columns, profile=TableProfile.from_json(row.profile))


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
        remedy = f"{did_you_mean(dataset_id, known)}List the tenant's datasets."
        action = Action.of("datasets.list", tenant=str(tenant_id))
    elif number is None:
        message = f"All versions of the dataset {dataset_id!s} are archived."
        remedy = "Restore one."
        action = Action.of("datasets.restore", tenant=str(tenant_id), dataset=str(dataset_id), number=newest)
    else:
        message = f"The dataset {dataset_id!s} has no version {number}."
        remedy = "List its versions."
        action = Action.of("datasets.versions", tenant=str(tenant_id), dataset=str(dataset_id))
    return DatasetNotFoundError(
        message, remedy=remedy, action=action, tenant_id=tenant_id, dataset_id=str(dataset_id), number=number
    )


def refuse_if_needed(
    connection: Connection, tenant_id: TenantId, dataset_id: DatasetId, number: int, digest: Digest | None = None
) -> None:
    """Refuse to archive or delete a version that something needs; the caller holds its digest's lock.

    With the digest of its file, model versions that were trained on it keep it too.

    Raises:
        DatasetInUseError: Names the gates or jobs, and its action removes the first; or names the model versions.
    """
    found = dataset_references(connection, tenant_id, [] if digest is None else [digest], [dataset_id])
    used_by = found.get((dataset_id, number), []) or found.get(str(digest), [])
    if not used_by:
        return
    used_by, action = used_by[:_MOST_NAMED], None
    if used_by[0].startswith("gate:"):
        names = [one.split(":", 3)[1:] for one in used_by]  # model, environment and gate
        named = ", ".join(f"{gate} of {model} in {environment}" for model, environment, gate in names)
        message = f"{dataset_id!s}@{number} is needed by the {'gate' if len(names) == 1 else 'gates'} {named}."
        remedy = "Set the gate on another version, or remove it."
        model, environment, gate = names[0]
        action = Action.of("gates.remove", name=gate, tenant=str(tenant_id), model=model, environment=environment)
    elif used_by[0].startswith("job:"):
        waiting = [one.removeprefix("job:") for one in used_by]
        noun = "job" if len(waiting) == 1 else "jobs"
        message = f"{dataset_id!s}@{number} is needed by the {noun} {', '.join(waiting)}."
        remedy = "Wait until it has ended, or cancel it."
        action = Action.of("jobs.cancel", tenant=str(tenant_id), job=waiting[0])
    else:
        used_by = [one.removeprefix("version:") for one in used_by]
        message = f"The model versions {', '.join(used_by)} were trained on {dataset_id!s}@{number}."
        remedy = "Archive it, or delete those versions first."
    raise DatasetInUseError(
        message,
        remedy=remedy,
        action=action,
        tenant_id=tenant_id,
        dataset_id=str(dataset_id),
        number=number,
        used_by=used_by,
    )
