"""``DatasetRepository``: the datasets of one tenant."""

from __future__ import annotations

import errno
import functools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.data.frames import as_frame
from ml_core.data.reading import is_csv
from ml_core.data.sources import gathered
from ml_core.data.table_file import read_typed, write_frame
from ml_core.database.tables import dataset_versions, datasets
from ml_core.domain.dataset import ColumnProfile, DatasetEntry, DatasetSummary, DatasetVersion, parse_reference
from ml_core.domain.quality import DatasetComparison, Verdict, drifted_first
from ml_core.evaluation.drift import drift_between
from ml_core.exceptions import InvalidRequestError, ModelSaveError, StorageFullError
from ml_core.ids import DatasetId, Digest
from ml_core.registry import journal
from ml_core.registry.blobs import KeepsBytes, lock_digest, remove_unneeded
from ml_core.registry.datasets import intake, sql
from ml_core.registry.datasets.rows import ENTRY_COLUMNS, dataset_not_found, find, is_version, of, refuse_if_needed
from ml_core.registry.journal import erase
from ml_core.registry.pages import Page, read_page
from ml_core.registry.records import value_of
from ml_core.registry.tenants import TenantRepository

_MOST_OF_A_DIGEST = 100


class DatasetRepository(KeepsBytes):
    """The datasets of one tenant: immutable versions of tables.

    A table becomes a Parquet file whose bytes depend on its content alone, see ``ml_core.data.table_file``. Files of
    equal bytes are stored once in a tenant, whichever datasets they belong to. The file is made in the temporary folder
    (``TMPDIR``), which needs room for it; the rows of a query take twice that. On the embedded server the first table
    creates the tenant.
    """

    def create(self, dataset_id: str, frame: Any, *, source: Mapping[str, Any] | None = None) -> DatasetVersion:
        """Register a data frame as the next version of a dataset, unless its newest version is the same table.

        ``is_new`` of the result is false where the newest version was returned.

        Args:
            dataset_id: The dataset; made with its first version.
            frame: ``(n_rows, n_columns)``: a data frame, or what ``pandas.DataFrame`` takes. The index is left out.
            source: Where it came from, JSON-compatible.

        Raises:
            DataProcessingError: It has no row, no column, or one that a dataset can't hold; names the column.
            ModelSaveError: The disk or the store refuses; nothing is left behind.
        """
        table = as_frame(frame)
        given = {"kind": "frame", **(source or {})}
        return self.write(dataset_id, lambda path: intake.check_rows(write_frame(table, path)), given)

    def get(self, dataset_id: str, number: int | None = None) -> DatasetVersion:
        """A version by number, archived ones too; without a number the newest that is not archived.

        Args:
            dataset_id: The dataset, or one of its versions as ``tickets_2026@3``.
            number: Which version, where the name does not say it.

        Raises:
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
            columns: Only these columns, in this order.

        Raises:
            DataProcessingError: It has no such column. Further errors as for ``open``.
        """
        return read_typed(self.open(dataset_id, number), columns)

    def open(self, dataset_id: str | DatasetVersion, number: int | None = None) -> Path:
        """A local, read-only Parquet file of a version, whose digest was checked; open it at once.

        A dataset from a CSV file is stored as its cells: all columns are strings.

        Args:
            dataset_id: As for ``get``; or a version that ``get`` returned.
            number: As for ``get``.

        Raises:
            ArtifactIntegrityError: Its file is missing or was changed.
        """
        version = dataset_id if isinstance(dataset_id, DatasetVersion) else self.get(dataset_id, number)
        return self.store.fetch(self._tenant_id, version.digest, version.size_bytes)

    def from_file(
        self, dataset_id: str, path: str | Path, *, encoding: str = "utf-8", source: Mapping[str, Any] | None = None
    ) -> DatasetVersion:
        """Register the table of a CSV or Parquet file, or of several: a folder, a pattern, or an address.

        See ``ml_core.data.sources.gathered``: this process opens an address, so it must not come from a client. The
        content of a file decides what it is. An upload passes the name that its client gave:
        ``source={"file": "tickets.csv"}``. Errors as for ``from_csv``.
        """
        with gathered(path, encoding) as table:
            facts = {**table.facts, **(source or {})}
            if is_csv(table.path):
                return self.from_csv(dataset_id, table.path, encoding=encoding, source=facts)
            return self.from_parquet(dataset_id, table.path, source=facts)

    def from_csv(
        self, dataset_id: str, path: str | Path, *, encoding: str = "utf-8", source: Mapping[str, Any] | None = None
    ) -> DatasetVersion:
        """Register the table of a CSV file: its cells as they are written, recognised as ``read_table`` does.

        It is read in pieces, so that one larger than memory will do. ``source``: further facts on where it came from.

        Raises:
            DataProcessingError: The file can't be read, or is no table that a dataset can hold.
            RequestTooLargeError: The table is over a limit of the settings, such as ``MLCORE_MAX_UPLOAD_ROWS``.
            ModelSaveError: The disk or the store refuses; nothing is left behind.
        """
        file = Path(path)
        given = {"kind": "csv", "file": file.name, **(source or {})}
        write = functools.partial(intake.write_csv, file, encoding, limits=self._db.settings.api)
        return self.write(dataset_id, write, given)

    def from_parquet(
        self, dataset_id: str, path: str | Path, *, source: Mapping[str, Any] | None = None
    ) -> DatasetVersion:
        """Register the table of a Parquet file. It is written anew, so that equal content becomes equal bytes.

        A file that ``TableWriter`` wrote from CSV, such as the file of a dataset, holds cells as that one does.

        Errors as for ``from_csv``; ``RequestTooLargeError`` if the table is over a limit of the settings, such as
        ``MLCORE_MAX_UPLOAD_ROWS``.
        """
        file = Path(path)
        given = {"kind": "parquet", "file": file.name, **(source or {})}
        write = functools.partial(intake.write_parquet, file, limits=self._db.settings.api)
        return self.write(dataset_id, write, given)

    def from_sql(
        self,
        dataset_id: str,
        query: str,
        url: str,
        params: Mapping[str, Any] | None = None,
        *,
        max_rows: int | None = None,
        source: Mapping[str, Any] | None = None,
    ) -> DatasetVersion:
        """Register the rows of a query to a database of your own; they are streamed and never all in memory.

        PostgreSQL and SQLite refuse writes; for other databases, whose transaction is only rolled back, use a login
        that can't write. PostgreSQL ends a statement after ten minutes. Without an ``ORDER BY`` a database may give
        equal rows in another order, which are other bytes. Query and parameters are recorded, and the URL without its
        password.

        Args:
            dataset_id: The dataset.
            query: One ``SELECT``; ``:name`` is a parameter where ``params`` are given.
            url: A SQLAlchemy URL, such as ``postgresql://user:password@host/database`` or ``sqlite:////data/file.db``.
            params: Name → value.
            max_rows: More rows are refused; at most, and by default, ``MLCORE_MAX_UPLOAD_ROWS``.
            source: Further facts on where it came from.

        Raises:
            DataProcessingError: The database can't be reached or refuses the query, with its own words; or the rows are
                no table that a dataset can hold.
            RequestTooLargeError: The rows are over ``max_rows`` or a limit of the settings.
            ModelSaveError: The disk or the store refuses; nothing is left behind.
        """
        given = {"kind": "sql", "query": query, "url": sql.shown_url(url), **(source or {})}
        if params:
            given["params"] = {str(name): sql.recorded(value) for name, value in params.items()}
        limits = sql.limited(self._db.settings.api, max_rows)
        write = functools.partial(sql.write_query, url, query, params, limits=limits)
        return self.write(dataset_id, write, given)

    def list(
        self, *, limit: int = 100, cursor: str | None = None, name: str | None = None, include_archived: bool = False
    ) -> Page[DatasetSummary]:
        """The tenant's datasets by name, each with its newest version; if asked, archived ones too.

        With ``name`` only those whose name contains this text.
        """
        mine = sa.and_(of.tenant_id == self._tenant_id, of.dataset_id == datasets.c.dataset_id)
        shown = mine if include_archived else sa.and_(mine, of.archived_at.is_(None))
        newest = (
            sa.select(
                *(of.number.label("newest"), of.row_count, of.size_bytes, of.created_at, of.created_by, of.archived_at)
            )
            .where(shown)
            .order_by(of.number.desc())
            .limit(1)
            .lateral("newest")
        )
        count = sa.select(sa.func.count()).select_from(dataset_versions).where(shown).scalar_subquery()
        statement = (
            sa.select(datasets.c.dataset_id, count.label("versions"), newest)
            .select_from(datasets.join(newest, sa.true()))
            .where(datasets.c.tenant_id == self._tenant_id)
        )
        if name is not None:
            statement = statement.where(datasets.c.dataset_id.icontains(name, autoescape=True))
        with self._db.tenant(self._tenant_id) as connection:
            page = read_page(connection, statement, [datasets.c.dataset_id], limit=limit, cursor=cursor)
        return page.map(lambda row: value_of(DatasetSummary, row))

    def versions(
        self, dataset_id: str, *, limit: int = 100, cursor: str | None = None, include_archived: bool = False
    ) -> Page[DatasetEntry]:
        """The versions of a dataset, newest first, without their profiles; none if there is no such dataset."""
        statement = sa.select(*ENTRY_COLUMNS).filter_by(tenant_id=self._tenant_id, dataset_id=DatasetId(dataset_id))
        if not include_archived:
            statement = statement.where(of.archived_at.is_(None))
        with self._db.tenant(self._tenant_id) as connection:
            page = read_page(connection, statement, [of.number], limit=limit, cursor=cursor, descending=True)
        return page.map(lambda row: value_of(DatasetEntry, row))

    def find_by_digest(self, digest: str) -> Sequence[DatasetEntry]:
        """The versions that have these bytes, of all datasets, archived ones too, newest first; at most 100."""
        statement = (
            sa.select(*ENTRY_COLUMNS)
            .filter_by(tenant_id=self._tenant_id, digest=Digest(digest))
            .order_by(of.created_at.desc(), of.dataset_id, of.number.desc())
            .limit(_MOST_OF_A_DIGEST)
        )
        with self._db.tenant(self._tenant_id) as connection:
            return [value_of(DatasetEntry, row) for row in connection.execute(statement)]

    def compare(self, dataset_id: str, number: int | None, other: int | None) -> DatasetComparison:
        """What differs between a version and another: columns, types, and which columns drifted.

        Only the profiles are read, so the size of the tables does not matter.

        Args:
            dataset_id: The dataset.
            number: The first version; None: the newest that is not archived.
            other: The version that is compared with it; None: the newest.
        """
        first, second = self.get(dataset_id, number), self.get(dataset_id, other)
        old, new = ({each.name: each for each in of.profile.columns} for of in (first, second))
        changed = [name for name in new if name in old and _is_another(old[name], new[name])]
        found = drifted_first(drift_between(first.profile, second.profile))
        return DatasetComparison(
            first.dataset_id,
            first.number,
            second.number,
            same=first.digest == second.digest,
            added=[name for name in new if name not in old],
            removed=[name for name in old if name not in new],
            changed=changed,
            columns=found,
            verdict=Verdict.of_all({each.verdict for each in found}),
        )

    def archive(self, dataset_id: str, number: int) -> None:
        """Hide a version; archiving it again changes nothing.

        Raises:
            DatasetInUseError: A gate compares versions on it.
        """
        name = DatasetId(dataset_id)
        with journal.writing(self._db, self._tenant_id) as connection:
            self._lock(connection, name, number)
            refuse_if_needed(connection, self._tenant_id, name, number)
            archived_at = sa.func.coalesce(of.archived_at, sa.func.now())
            self._set_archived_at(connection, name, number, archived_at, "dataset.version_archived")

    def restore(self, dataset_id: str, number: int) -> None:
        """Show an archived version again; restoring one that is not archived changes nothing."""
        with journal.writing(self._db, self._tenant_id) as connection:
            self._set_archived_at(connection, DatasetId(dataset_id), number, None, "dataset.version_restored")

    def delete(self, dataset_id: str, number: int) -> None:
        """Delete a version, with its file unless another version has the same bytes. Its number is never used again.

        Raises:
            DatasetInUseError: A model version was trained on it, and no other version has the same bytes; or a gate
                compares versions on it.
            ModelSaveError: The version is deleted, but the store refuses to delete the file.
        """
        name = DatasetId(dataset_id)
        which = is_version(self._tenant_id, name, number)
        with journal.writing(self._db, self._tenant_id) as connection:
            digest = self._lock(connection, name, number)
            # Lineage finds a dataset by its digest, so any version with the same bytes will do.
            twin = sa.exists().where(of.tenant_id == self._tenant_id, of.digest == digest, sa.not_(which))
            is_last = not connection.scalar(sa.select(twin))
            refuse_if_needed(connection, self._tenant_id, name, number, digest if is_last else None)
            # Another session may have deleted it while this one waited for the lock.
            if not erase(connection, dataset_versions, dataset_id=name, number=number):
                raise dataset_not_found(connection, self._tenant_id, name, number)
            subject = {"dataset_id": name, "number": number}
            journal.record(connection, self._tenant_id, "dataset.version_deleted", subject, {"digest": digest})
        remove_unneeded(self._db, self._tenant_id, self.store, digest)

    def _lock(self, connection: Connection, dataset_id: DatasetId, number: int) -> Digest:
        """Lock the digest of a version, see ``ml_core.registry.datasets.rows``."""
        found = connection.scalar(sa.select(of.digest).where(is_version(self._tenant_id, dataset_id, number)))
        if found is None:
            raise dataset_not_found(connection, self._tenant_id, dataset_id, number)
        lock_digest(connection, self._tenant_id, found, shared=False)
        return Digest(found)

    def _set_archived_at(
        self, connection: Connection, dataset_id: DatasetId, number: int, archived_at: Any, action: str
    ) -> None:
        which = is_version(self._tenant_id, dataset_id, number)
        if not connection.execute(dataset_versions.update().where(which).values(archived_at=archived_at)).rowcount:
            raise dataset_not_found(connection, self._tenant_id, dataset_id, number)
        journal.record(connection, self._tenant_id, action, {"dataset_id": dataset_id, "number": number})

    def write(
        self,
        dataset_id: str,
        write: Callable[[Path], object],
        source: Mapping[str, Any],
        *,
        run_id: str | None = None,
        owner: str = "",
    ) -> DatasetVersion:
        """Register the file that a function writes as the next version of a dataset, as ``create`` does.

        Args:
            dataset_id: The dataset; made with its first version.
            write: Makes the file with ``TableWriter``.
            source: Where it came from, JSON-compatible.
            run_id: The run that made it, which ``source`` then names. It is a version of its own, also where its bytes
                are those of the newest.
            owner: A name for the temporary folder; what a killed process of this owner left on this machine is removed.

        Raises:
            RunStateError: The run has failed or was cancelled.
            ModelSaveError: The disk or the store refuses; nothing is left behind.
            MLFrameworkError: As ``write``.
        """
        name = DatasetId(dataset_id)
        TenantRepository(self._db).ensure(self._tenant_id)
        with self._temporary_file(owner) as path:
            write(path)
            return intake.register(self._db, self._tenant_id, self.store, name, path, source, run_id)

    @contextmanager
    def _temporary_file(self, owner: str) -> Iterator[Path]:
        """A place for the file while it is made."""
        prefix = f"mlcore-dataset-{owner}-"
        if owner:
            for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
                shutil.rmtree(left, ignore_errors=True)
        try:
            with tempfile.TemporaryDirectory(prefix=prefix) as folder:
                yield Path(folder) / "table.parquet"
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)  # pyarrow's own text names its sources
            raise (StorageFullError if error.errno == errno.ENOSPC else ModelSaveError)(
                "The dataset's file can't be made; nothing was stored.",
                internal=f"{tempfile.gettempdir()}: {reason}",
                remedy="Free disk space there, or set TMPDIR to a folder that has some.",
                tenant_id=self._tenant_id,
            ) from error


def _is_another(before: ColumnProfile, now: ColumnProfile) -> bool:
    """Whether a column has another Arrow type, or values of another kind."""
    return before.type != now.type or (None not in (before.kind, now.kind) and before.kind is not now.kind)


def _which(dataset_id: str, number: int | None) -> tuple[DatasetId, int | None]:
    """The dataset and the version's number, which a reference such as ``tickets_2026@3`` says by itself."""
    name, said = parse_reference(dataset_id) if isinstance(dataset_id, str) else (DatasetId(dataset_id), None)
    if None not in (said, number) and said != number:
        raise InvalidRequestError(
            f"{dataset_id} is not version {number}.", remedy="Say the number once.", field="number"
        )
    return name, number if said is None else said
