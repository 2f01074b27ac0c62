"""Tables from outside as versions of a dataset: written as its file, then stored, profiled and registered.

Bytes and row are both there, or neither, see ``blobs.store_and_register``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import Connection

from ml_core.data.csv_file import CsvFile
from ml_core.data.profile import profile_file
from ml_core.data.reading import parquet_pieces, reading
from ml_core.data.table_file import (
    FORMAT,
    GROUP_BYTES,
    TableWriter,
    columns_of,
    group_rows,
    holds_cells,
    too_long_rows,
)
from ml_core.data.tables import stored_schema, to_stored
from ml_core.database.connection import DatabaseConnection, acting
from ml_core.database.tables import dataset_versions, datasets
from ml_core.domain.dataset import DatasetVersion
from ml_core.domain.version import StoredArtifact
from ml_core.exceptions import DataProcessingError, RequestTooLargeError
from ml_core.ids import DatasetId, TenantId
from ml_core.models.store import ArtifactStore
from ml_core.registry import journal
from ml_core.registry.blobs import store_and_register
from ml_core.registry.datasets.rows import dataset_not_found, find
from ml_core.registry.runs.lifecycle import refuse_given_up
from ml_core.settings import ApiSettings


def write_csv(file: Path, encoding: str, path: Path, limits: ApiSettings) -> None:
    """Write the cells of a CSV file, of one larger than memory too.

    Raises:
        DataProcessingError: The file can't be read, or holds no table; ``stage`` is ``read``.
        RequestTooLargeError: The table is over a limit.
    """
    pieces = bounded(_csv_pieces(file, encoding), limits)
    first = next(pieces)
    with TableWriter(path, stored_schema(first.schema), cells=True) as writer:
        for piece in chain([first], pieces):
            writer.write(piece)


def _csv_pieces(file: Path, encoding: str) -> Iterator[pa.Table]:
    with reading(file, encoding):
        yield from CsvFile.recognise(file, encoding).pieces()


def write_parquet(file: Path, path: Path, limits: ApiSettings) -> None:
    """Write the table of a Parquet file anew, a row group at a time, so that equal content becomes equal bytes.

    Raises:
        DataProcessingError: It is no Parquet file, has no row, or a column that a dataset can't hold.
        RequestTooLargeError: The table is over a limit; of its numbers of rows and columns before anything is decoded.
    """
    pieces = bounded(_parquet_pieces(file, limits), limits)
    schema = next(pieces).schema
    with reading(file, "utf-8"):
        # A tenant may write the mark: it changes only how the strings are read.
        cells = holds_cells(file) and all(map(pa.types.is_string, schema.types))
    with TableWriter(path, schema, cells=cells) as writer:
        for piece in pieces:
            writer.write(_without_blanks(piece) if cells else piece)
    check_rows(writer.rows)


def _without_blanks(cells: pa.Table) -> pa.Table:
    """Cells as ``CsvFile`` reads them, null where they are empty."""
    arrays = [pc.if_else(pc.equal(column, ""), None, column) for column in cells.columns]
    return pa.table(arrays, schema=cells.schema)


def _parquet_pieces(file: Path, limits: ApiSettings) -> Iterator[pa.Table]:
    """The stored form of a Parquet file in pieces; the first has no row, only the schema."""
    with reading(file, "utf-8"):
        footer = pq.read_metadata(file)
        rows = group_rows(footer.num_columns)
        pieces = parquet_pieces(file, rows)
        schema = stored_schema(next(pieces).schema)
        _check_size(footer.num_rows, len(schema), 0, limits)
        for group in map(footer.row_group, range(footer.num_row_groups)):
            # A row may have any number of columns that unpack to a gigabyte each, and is decoded as a whole.
            if group.total_byte_size > GROUP_BYTES * max(1, math.ceil(group.num_rows / rows)):
                raise too_long_rows(min(rows, group.num_rows))
        yield schema.empty_table()
        for piece in pieces:
            yield to_stored(piece, schema)


def bounded(pieces: Iterator[pa.Table], limits: ApiSettings) -> Iterator[pa.Table]:
    """The pieces of a table, as long as it is within the limits.

    Raises:
        RequestTooLargeError: The table is over one.
    """
    rows = size_bytes = 0
    for piece in pieces:
        rows, size_bytes = rows + piece.num_rows, size_bytes + piece.nbytes
        _check_size(rows, piece.num_columns, size_bytes, limits)
        yield piece


def _check_size(rows: int, columns: int, size_bytes: int, limits: ApiSettings) -> None:
    """Refuse a table over a limit; of a CSV file the rows read so far.

    Raises:
        RequestTooLargeError: The table is over it.
    """
    for what, actual, limit in (
        ("rows", rows, limits.max_upload_rows),
        ("cells", rows * columns, limits.max_upload_cells),
        ("bytes, decoded", size_bytes, limits.max_upload_bytes),
    ):
        if actual > limit:
            raise RequestTooLargeError(
                f"The table has {actual:,} {what}; at most {limit:,} are accepted.",
                remedy="Store a sample of the rows, such as a query with LIMIT gives, or leave columns out.",
                limit=limit,
                actual=actual,
            )


def check_rows(rows: int) -> None:
    """Refuse a table without rows.

    Raises:
        DataProcessingError: It has none.
    """
    if not rows:
        raise DataProcessingError("The table has no row.", remedy="Add rows.", stage="store")


def register(
    db: DatabaseConnection,
    tenant_id: TenantId,
    store: ArtifactStore,
    dataset_id: DatasetId,
    path: Path,
    source: Mapping[str, Any],
    run_id: str | None = None,
) -> DatasetVersion:
    """Store a file that ``TableWriter`` wrote, with its profile, as the next version of a dataset.

    If the newest version has the same bytes, and no run made these, that version is returned.

    Raises:
        RunStateError: The run that made it has failed or was cancelled.
        ModelSaveError: The store refuses; nothing is left behind.
    """
    profile = profile_file(path)
    recorded = {
        "row_count": profile.row_count,
        "columns": [{"name": name, "type": kind} for name, kind in columns_of(path)],
        "profile": profile.to_json(),
        "source": {**source, **({} if run_id is None else {"run_id": run_id})},
    }
    return store_and_register(
        db,
        tenant_id,
        store,
        lambda: store.put_file(tenant_id, path, FORMAT),
        lambda connection, artifact: _insert(connection, tenant_id, dataset_id, artifact, recorded, run_id),
    )


def _insert(
    connection: Connection,
    tenant_id: TenantId,
    dataset_id: DatasetId,
    artifact: StoredArtifact,
    recorded: Mapping[str, Any],
    run_id: str | None,
) -> DatasetVersion:
    if run_id is not None:
        refuse_given_up(connection, tenant_id, run_id)
    number = _lock_dataset(connection, tenant_id, dataset_id)
    newest = find(connection, tenant_id, dataset_id, None)
    if run_id is None and newest is not None and newest.digest == artifact.digest:
        return newest
    subject = {"dataset_id": dataset_id, "number": number}
    stored = {"digest": artifact.digest, "size_bytes": artifact.size_bytes, "created_by": acting(connection).name}
    connection.execute(dataset_versions.insert().values(tenant_id=tenant_id, **subject, **stored, **recorded))
    journal.record(connection, tenant_id, "dataset.version_created", subject, {"digest": artifact.digest})
    version = find(connection, tenant_id, dataset_id, number)
    if version is None:
        raise dataset_not_found(connection, tenant_id, dataset_id, number)
    return replace(version, is_new=True)


def _lock_dataset(connection: Connection, tenant_id: TenantId, dataset_id: DatasetId) -> int:
    """The next number of the dataset, whose row is created on first use and locked until the transaction ends."""
    key = {"tenant_id": tenant_id, "dataset_id": dataset_id}
    made = insert(datasets).values(**key, created_by=acting(connection).name).on_conflict_do_nothing()
    if connection.scalar(made.returning(datasets.c.dataset_id)) is not None:
        journal.record(connection, tenant_id, "dataset.created", {"dataset_id": dataset_id})
    locked = sa.select(datasets.c.next_number).filter_by(**key).with_for_update()
    return int(connection.execute(locked).scalar_one())
