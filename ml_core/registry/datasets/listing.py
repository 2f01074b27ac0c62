"""Lists of datasets and of their versions, as keyset pages."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.database.tables import dataset_versions, datasets
from ml_core.domain.dataset import DatasetEntry, DatasetSummary
from ml_core.ids import DatasetId, Digest, TenantId
from ml_core.registry.datasets.rows import ENTRY_COLUMNS, entry_from, of
from ml_core.registry.pages import Page, after, check_limit, decode_cursor, encode_cursor

_MOST_OF_A_DIGEST = 100


def datasets_page(
    connection: Connection, tenant_id: TenantId, limit: int, cursor: str | None, *, include_archived: bool
) -> Page[DatasetSummary]:
    """The tenant's datasets by name; those without a version to show are left out.

    Raises:
        InvalidRequestError: The limit or the cursor can't be used.
    """
    mine = sa.and_(of.tenant_id == tenant_id, of.dataset_id == datasets.c.dataset_id)
    shown = mine if include_archived else sa.and_(mine, of.archived_at.is_(None))
    newest = (
        sa.select(of.number, of.row_count, of.size_bytes, of.created_at, of.created_by, of.archived_at)
        .where(shown)
        .order_by(of.number.desc())
        .limit(1)
        .lateral("newest")
    )
    count = sa.select(sa.func.count()).select_from(dataset_versions).where(shown).scalar_subquery()
    statement = (
        sa.select(datasets.c.dataset_id, count.label("versions"), newest)
        .select_from(datasets.join(newest, sa.true()))
        .where(datasets.c.tenant_id == tenant_id)
        .order_by(datasets.c.dataset_id)
        .limit(check_limit(limit) + 1)
    )
    if cursor is not None:
        statement = statement.where(after([datasets.c.dataset_id], decode_cursor(cursor, str), descending=False))
    found = [
        DatasetSummary(
            DatasetId(row.dataset_id),
            row.versions,
            row.number,
            row.row_count,
            row.size_bytes,
            row.created_at,
            row.created_by,
            row.archived_at,
        )
        for row in connection.execute(statement)
    ]
    return Page(found[:limit], encode_cursor([found[limit - 1].dataset_id]) if len(found) > limit else None)


def versions_page(
    connection: Connection,
    tenant_id: TenantId,
    dataset_id: DatasetId,
    limit: int,
    cursor: str | None,
    *,
    include_archived: bool,
) -> Page[DatasetEntry]:
    """The versions of a dataset, newest first; none if there is no such dataset.

    Raises:
        InvalidRequestError: The limit or the cursor can't be used.
    """
    statement = (
        sa.select(*ENTRY_COLUMNS)
        .where(of.tenant_id == tenant_id, of.dataset_id == dataset_id)
        .order_by(of.number.desc())
        .limit(check_limit(limit) + 1)
    )
    if not include_archived:
        statement = statement.where(of.archived_at.is_(None))
    if cursor is not None:
        statement = statement.where(after([of.number], decode_cursor(cursor, int), descending=True))
    found = [entry_from(row) for row in connection.execute(statement)]
    return Page(found[:limit], encode_cursor([found[limit - 1].number]) if len(found) > limit else None)


def of_digest(connection: Connection, tenant_id: TenantId, digest: Digest) -> Sequence[DatasetEntry]:
    """The versions that have these bytes, of all datasets, newest first; at most 100."""
    statement = (
        sa.select(*ENTRY_COLUMNS)
        .where(of.tenant_id == tenant_id, of.digest == digest)
        .order_by(of.created_at.desc(), of.dataset_id, of.number.desc())
        .limit(_MOST_OF_A_DIGEST)
    )
    return [entry_from(row) for row in connection.execute(statement)]
