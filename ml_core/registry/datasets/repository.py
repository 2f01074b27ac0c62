"""``DatasetRepository``: the datasets of one tenant."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from ml_core.data.frames import as_frame
from ml_core.data.table_file import read_typed
from ml_core.database.connection import DatabaseConnection
from ml_core.domain.dataset import DatasetEntry, DatasetSummary, DatasetVersion, parse_reference
from ml_core.exceptions import InvalidRequestError, ModelSaveError
from ml_core.ids import DatasetId, Digest, TenantId
from ml_core.models.store import ArtifactStore, platform_store
from ml_core.registry import journal
from ml_core.registry.blobs import remove_unneeded
from ml_core.registry.datasets import intake, listing, removal, sql
from ml_core.registry.datasets.registration import Draft, register
from ml_core.registry.datasets.rows import dataset_not_found, find
from ml_core.registry.pages import Page
from ml_core.registry.tenants import TenantRepository


class DatasetRepository:
    """Immutable versions of tables. On the embedded server the first table creates the tenant.

    A table becomes a Parquet file whose bytes depend on its content alone, see ``ml_core.data.table_file``. Files of
    equal bytes are stored once in a tenant, whichever datasets they belong to. The file is made in the temporary folder
    (``TMPDIR``), which needs room for it; the rows of a query take twice that.

    Args:
        db: The registry.
        tenant_id: The tenant.
        store: Where the files go; None: the platform's store.
    """

    def __init__(self, db: DatabaseConnection, tenant_id: TenantId, store: ArtifactStore | None = None) -> None:
        self._db = db
        self._tenant_id = TenantId(tenant_id)
        self._store = store if store is not None else platform_store(db.settings)

    def create(self, dataset_id: str, frame: Any, *, source: Mapping[str, Any] | None = None) -> DatasetVersion:
        """Register a data frame as the next version of a dataset; the very table of its newest version is that version.

        ``is_new`` of what is returned says which it was.

        Args:
            dataset_id: The dataset; made with its first version.
            frame: ``(n_rows, n_columns)``: a data frame, or what ``pandas.DataFrame`` takes. The index is left out.
            source: Where it came from, JSON-compatible.

        Raises:
            DataProcessingError: It has no row, no column, or one that a dataset can't hold; names the column.
            ModelSaveError: The disk or the store refuses; nothing is left behind.
            InvalidNameError: The name can't be a dataset's.
        """
        table = as_frame(frame)
        given = {"kind": "frame", **(source or {})}
        return self._register(DatasetId(dataset_id), lambda path: intake.write_frame(table, path), given)

    def get(self, dataset_id: str, number: int | None = None) -> DatasetVersion:
        """A version by number, archived ones too; without a number the newest that is not archived.

        Args:
            dataset_id: The dataset, or one of its versions as ``tickets_2026@3``.
            number: Which version, where the name does not say it.

        Raises:
            DatasetNotFoundError: There is no such version.
            InvalidRequestError: The name says another number, or what follows its ``@`` is not a number.
        """
        name, number = _which(dataset_id, number)
        with self._db.tenant(self._tenant_id) as connection:
            found = find(connection, self._tenant_id, name, number)
            if found is None:
                raise dataset_not_found(connection, self._tenant_id, name, number)
        return found

    def read(self, dataset_id: str, number: int | None = None, *, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """The table of a version as a data frame ``(n_rows, n_columns)``, whose index counts from 0.

        Cells of a CSV file, which are stored as they were written, are numbers or booleans where all of their column
        are. Strings are ``str``, moments ``datetime64[us]``, dates ``datetime.date``; whole numbers with missing values
        are pandas' ``Int64`` or its like, so that none is rounded.

        Args:
            dataset_id: The dataset, or one of its versions as ``tickets_2026@3``.
            number: Which version; None: that of the name, or the newest that is not archived.
            columns: Only these, in this order.

        Raises:
            DatasetNotFoundError: There is no such version.
            ArtifactIntegrityError: Its file is missing or was changed.
            DataProcessingError: It has no such column.
        """
        return read_typed(self.open(dataset_id, number), columns)

    def open(self, dataset_id: str, number: int | None = None) -> Path:
        """The proved Parquet file of a version, for readers of your own; open it at once and don't write to it.

        A dataset from a CSV file is stored as its cells: all columns are strings.

        Raises:
            DatasetNotFoundError: There is no such version.
            ArtifactIntegrityError: Its file is missing or was changed.
        """
        version = self.get(dataset_id, number)
        return self._store.fetch(self._tenant_id, version.digest, version.size_bytes)

    def from_csv(
        self, dataset_id: str, path: str | Path, *, encoding: str = "utf-8", source: Mapping[str, Any] | None = None
    ) -> DatasetVersion:
        """Register the table of a CSV file: its cells as they are written, recognised as ``read_table`` does.

        It is read in pieces, so that one larger than memory will do.

        Args:
            dataset_id: The dataset.
            path: A file that ends in ``.csv``, ``.csv.gz``, ``.tsv`` or ``.tsv.gz``.
            encoding: Of the file.
            source: Further facts on where it came from.

        Raises:
            DataProcessingError: The file can't be read, or is no table that a dataset can hold.
            ModelSaveError: The disk or the store refuses; nothing is left behind.
        """
        file = Path(path)
        given = {"kind": "csv", "file": file.name, **(source or {})}
        return self._register(DatasetId(dataset_id), lambda target: intake.write_csv(file, encoding, target), given)

    def from_parquet(
        self, dataset_id: str, path: str | Path, *, source: Mapping[str, Any] | None = None
    ) -> DatasetVersion:
        """Register the table of a Parquet file. It is written anew, so that equal content becomes equal bytes.

        Raises:
            DataProcessingError: It is no Parquet file, has no row, or a column that a dataset can't hold.
            ModelSaveError: The disk or the store refuses; nothing is left behind.
        """
        file = Path(path)
        given = {"kind": "parquet", "file": file.name, **(source or {})}
        return self._register(DatasetId(dataset_id), lambda target: intake.write_parquet(file, target), given)

    def from_sql(
        self,
        dataset_id: str,
        query: str,
        url: str,
        params: Mapping[str, Any] | None = None,
        *,
        source: Mapping[str, Any] | None = None,
    ) -> DatasetVersion:
        """Register the rows of a query to a database of your own; they are streamed and never all in memory.

        PostgreSQL and SQLite refuse writes; for other databases use a login that can't. Without an ``ORDER
        BY`` a database may give equal rows in another order, which are other bytes. Query and parameters are recorded,
        and the URL without its password.

        Args:
            dataset_id: The dataset.
            query: One ``SELECT``; ``:name`` is a parameter where ``params`` are given.
            url: A SQLAlchemy URL, such as ``postgresql://user:password@host/database`` or ``sqlite:////data/file.db``.
            params: Name → value.
            source: Further facts on where it came from.

        Raises:
            DataProcessingError: The database can't be reached or refuses the query, with its own words; or the rows are
                no table that a dataset can hold.
            ModelSaveError: The disk or the store refuses; nothing is left behind.
        """
        given = {"kind": "sql", "query": query, "url": sql.shown_url(url), **(source or {})}
        if params:
            given["params"] = {str(name): sql.recorded(value) for name, value in params.items()}
        return self._register(DatasetId(dataset_id), lambda path: sql.write_query(url, query, params, path), given)

    def list(
        self, *, limit: int = 100, cursor: str | None = None, include_archived: bool = False
    ) -> Page[DatasetSummary]:
        """The tenant's datasets by name, each with its newest version.

        Args:
            limit: Datasets on a page, 1 to 1,000.
            cursor: ``next_cursor`` of the page before.
            include_archived: Datasets and versions that are archived too.
        """
        with self._db.tenant(self._tenant_id) as connection:
            return listing.datasets_page(connection, self._tenant_id, limit, cursor, include_archived=include_archived)

    def versions(
        self, dataset_id: str, *, limit: int = 100, cursor: str | None = None, include_archived: bool = False
    ) -> Page[DatasetEntry]:
        """The versions of a dataset, newest first, without their profiles; none if there is no such dataset."""
        name = DatasetId(dataset_id)
        with self._db.tenant(self._tenant_id) as connection:
            return listing.versions_page(
                connection, self._tenant_id, name, limit, cursor, include_archived=include_archived
            )

    def find_by_digest(self, digest: str) -> Sequence[DatasetEntry]:
        """The versions that have these bytes, of all datasets, archived ones too, newest first; at most 100."""
        with self._db.tenant(self._tenant_id) as connection:
            return listing.of_digest(connection, self._tenant_id, Digest(digest))

    def archive(self, dataset_id: str, number: int) -> None:
        """Hide a version; archiving it again changes nothing.

        Raises:
            DatasetNotFoundError: There is no such version.
            DatasetInUseError: A gate compares versions on it.
        """
        self._set_archived(dataset_id, number, archived=True)

    def restore(self, dataset_id: str, number: int) -> None:
        """Show an archived version again; restoring one that is not archived changes nothing.

        Raises:
            DatasetNotFoundError: There is no such version.
        """
        self._set_archived(dataset_id, number, archived=False)

    def delete(self, dataset_id: str, number: int) -> None:
        """Delete a version for good, with its file unless another version has the same bytes. Its number stays used.

        Raises:
            DatasetNotFoundError: There is no such version.
            DatasetInUseError: A model version was trained on it, and no other version has the same bytes; or a gate
                compares versions on it.
            ModelSaveError: The version is deleted, but the store refuses to delete the file.
        """
        name = DatasetId(dataset_id)
        with journal.writing(self._db, self._tenant_id) as connection:
            digest = removal.delete(connection, self._tenant_id, name, number)
        remove_unneeded(self._db, self._tenant_id, self._store, digest)

    def _set_archived(self, dataset_id: str, number: int, *, archived: bool) -> None:
        name = DatasetId(dataset_id)
        with journal.writing(self._db, self._tenant_id) as connection:
            removal.set_archived(connection, self._tenant_id, name, number, archived=archived)

    def _register(
        self, dataset_id: DatasetId, write: Callable[[Path], None], source: Mapping[str, Any]
    ) -> DatasetVersion:
        """Write a file, then store, profile and register it."""
        TenantRepository(self._db).ensure(self._tenant_id)
        with self._temporary_file() as path:
            write(path)
            return register(self._db, self._tenant_id, self._store, dataset_id, Draft.of(path, source))

    @contextmanager
    def _temporary_file(self) -> Iterator[Path]:
        """A place for the file while it is made."""
        try:
            with tempfile.TemporaryDirectory(prefix="mlcore-dataset-") as folder:
                yield Path(folder) / "table.parquet"
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)  # pyarrow's own text names its sources
            raise ModelSaveError(
                f"The dataset's file can't be made in {tempfile.gettempdir()}: {reason}.",
                remedy="Nothing was stored. Free disk space there, or set TMPDIR to a folder that has some.",
                tenant_id=self._tenant_id,
            ) from error


def _which(dataset_id: str, number: int | None) -> tuple[DatasetId, int | None]:
    """The dataset and the version's number, which a reference such as ``tickets_2026@3`` says by itself."""
    name, said = parse_reference(dataset_id) if isinstance(dataset_id, str) else (DatasetId(dataset_id), None)
    if None not in (said, number) and said != number:
        raise InvalidRequestError(
            f"{dataset_id} is not version {number}.", remedy="Say the number once.", field="number"
        )
    return name, number if said is None else said
