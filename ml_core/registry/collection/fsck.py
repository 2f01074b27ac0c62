"""The proof that rows and bytes agree, in both directions, for a tenant at a time and without ever holding all of it.

Others may write meanwhile. Bytes are stored before their row is committed, so bytes that nothing refers to are left
alone while they are young; and whatever looks wrong is looked at once more before it is reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.database.connection import DatabaseConnection
from ml_core.exceptions import ArtifactIntegrityError
from ml_core.ids import Digest, TenantId
from ml_core.models.store import ArtifactStore, StoredBlob
from ml_core.models.store.base import TEMPORARY_PREFIX
from ml_core.registry.blobs import HOLDERS, claim_bytes
from ml_core.registry.collection.findings import Finding, FindingKind
from ml_core.registry.collection.holders import holders_of
from ml_core.registry.collection.invariants import violations
from ml_core.registry.collection.tenant_deletion import TenantDeletion
from ml_core.registry.tenants import TenantRepository, tenant_ids

PAGE = 500
"""Digests read in one query."""


@dataclass(slots=True)
class Checked:
    """What was looked at: artifacts that rows need, with their bytes, and files in the store."""

    tenants: int = 0
    needed: int = 0
    needed_bytes: int = 0
    stored: int = 0


class Checker:
    """Checks tenants. It changes nothing.

    Args:
        db: The registry.
        store: The platform's artifact store.
        grace: How long bytes without a row, and files that are no artifacts, are left alone.
        is_quick: Compare sizes only, instead of reading every byte.
    """

    def __init__(
        self, db: DatabaseConnection, store: ArtifactStore, grace: timedelta, *, is_quick: bool = False
    ) -> None:
        self._db = db
        self._store = store
        self._grace = grace
        self._is_quick = is_quick
        self.checked = Checked()

    def check(self, tenant_id: TenantId) -> Iterator[Finding]:
        """What is wrong with a tenant.

        Raises:
            ModelLoadError: The artifact store can't be reached: that is not a finding.
            RegistryUnavailableError: Postgres can't be reached.
        """
        self.checked.tenants += 1
        yield from violations(self._db, tenant_id)
        yield from self._rows(tenant_id)
        yield from self._blobs(tenant_id)
        yield from self._strays(tenant_id)

    def check_folders(self) -> Iterator[Finding]:
        """Folders in the store of tenants that the registry does not have, or has no more."""
        tenants, deletion = TenantRepository(self._db), TenantDeletion(self._db, self._store)
        for tenant_id in self._store.tenants():
            if tenants.exists(tenant_id):
                continue
            sizes = [blob.size_bytes for blob in self._store.list(tenant_id)]
            sizes += [stray.size_bytes for stray in self._store.strays(tenant_id)]
            if not sizes:  # an upload that was refused leaves an empty folder, which harms nobody
                continue
            size_bytes = sum(sizes)
            if tenants.is_deleted(tenant_id):
                yield _left_behind(tenant_id, "has files in the artifact store", size_bytes)
            elif not tenants.exists(tenant_id):  # nor was it created since the line above
                yield Finding(
                    tenant_id,
                    FindingKind.UNKNOWN_TENANT,
                    tenant_id,
                    f"The artifact store has files of {tenant_id}, which the registry does not know.",
                    "Check that this store belongs to this registry. Nothing here removes them: if they are not "
                    "needed, remove the folder by hand.",
                    size_bytes=size_bytes,
                )
        for deleted in tenant_ids(self._db, deleted=True):
            if deletion.has_rows(deleted):
                yield _left_behind(deleted, "has rows", 0)
            if deletion.has_checkpoints(deleted):
                yield _left_behind(deleted, "has checkpoints on this machine", 0)

    def _rows(self, tenant_id: TenantId) -> Iterator[Finding]:
        """Rows whose bytes are missing or others."""
        last = ""
        while page := self._needed_after(tenant_id, last):
            for digest, size_bytes in page:
                self.checked.needed += 1
                self.checked.needed_bytes += size_bytes
                if self._fault(tenant_id, digest, size_bytes) is not None:
                    yield from self._confirm(tenant_id, digest, size_bytes)
            last = page[-1][0]

    def _needed_after(self, tenant_id: TenantId, last: str) -> Sequence[tuple[Digest, int]]:
        """The next digests that rows need, with their sizes, in their order."""
        branches = (
            sa.select(table.c.digest, table.c.size_bytes)
            .distinct()
            .where(table.c.tenant_id == tenant_id, table.c.digest > last)
            .order_by(table.c.digest)
            .limit(PAGE)
            .subquery()
            for table in HOLDERS
        )
        found = sa.union(*(sa.select(branch) for branch in branches)).subquery()
        statement = sa.select(found.c.digest, found.c.size_bytes).order_by(found.c.digest).limit(PAGE)
        with self._db.tenant(tenant_id) as connection:
            return [(Digest(row.digest), row.size_bytes) for row in connection.execute(statement)]

    def _fault(self, tenant_id: TenantId, digest: Digest, size_bytes: int) -> tuple[FindingKind, str] | None:
        if not self._store.exists(tenant_id, digest):
            return FindingKind.MISSING, f"The artifact is missing ({self._store.location(tenant_id, digest)})."
        if self._is_quick:
            return None
        try:
            self._store.verify(tenant_id, digest, size_bytes)
        except ArtifactIntegrityError as error:
            return FindingKind.CORRUPT, error.message
        return None

    def _confirm(self, tenant_id: TenantId, digest: Digest, size_bytes: int) -> Iterator[Finding]:
        """The finding about bytes that a row needs, if the row is still there and the bytes are still wrong."""
        with self._db.tenant(tenant_id) as connection:
            holders = holders_of(connection, tenant_id, digest)
        fault = self._fault(tenant_id, digest, size_bytes)
        if holders.names and fault is not None:
            kind, what = fault
            yield Finding(tenant_id, kind, digest, what, holders.remedy, holders.names, size_bytes, digest)

    def _blobs(self, tenant_id: TenantId) -> Iterator[Finding]:
        """Bytes that no row needs, by one walk over the store; in a quick check, also bytes of another size."""
        oldest = datetime.now(UTC) - self._grace
        for blobs in _batches(self._store.list(tenant_id)):
            self.checked.stored += len(blobs)
            with self._db.tenant(tenant_id) as connection:
                sizes = _sizes(connection, tenant_id, [blob.digest for blob in blobs])
            for blob in blobs:
                size_bytes = sizes.get(blob.digest)
                if size_bytes is None and blob.modified_at <= oldest:
                    yield from self._confirm_orphan(tenant_id, blob)
                elif self._is_quick and size_bytes is not None and size_bytes != blob.size_bytes:
                    yield from self._confirm_size(tenant_id, blob, size_bytes)

    def _confirm_orphan(self, tenant_id: TenantId, blob: StoredBlob) -> Iterator[Finding]:
        with claim_bytes(self._db, tenant_id, blob.digest) as is_unused:
            is_orphan = is_unused and self._store.exists(tenant_id, blob.digest)
        if is_orphan:
            what = f"No row needs these bytes ({self._store.location(tenant_id, blob.digest)})."
            remedy = "Remove them: mlcore fsck --repair, or mlcore gc."
            kind = FindingKind.ORPHANED
            yield Finding(tenant_id, kind, blob.digest, what, remedy, (), blob.size_bytes, blob.digest)

    def _confirm_size(self, tenant_id: TenantId, blob: StoredBlob, size_bytes: int) -> Iterator[Finding]:
        """Bytes of another size are read whole before they are called corrupt."""
        try:
            self._store.verify(tenant_id, blob.digest, size_bytes)
        except ArtifactIntegrityError as error:
            with self._db.tenant(tenant_id) as connection:
                holders = holders_of(connection, tenant_id, blob.digest)
            if holders.names and self._store.exists(tenant_id, blob.digest):
                kind, subject = FindingKind.CORRUPT, blob.digest
                yield Finding(
                    tenant_id, kind, subject, error.message, holders.remedy, holders.names, size_bytes, subject
                )

    def _strays(self, tenant_id: TenantId) -> Iterator[Finding]:
        oldest = datetime.now(UTC) - self._grace
        for stray in self._store.strays(tenant_id):
            if stray.modified_at > oldest:
                continue
            if stray.name.rpartition("/")[2].startswith(TEMPORARY_PREFIX):
                what = f"{stray.name} was left half-written by a process that ended."
                remedy = "Remove it: mlcore fsck --repair, or mlcore gc."
            else:
                what = f"{stray.name} is not an artifact."
                remedy = "Nothing here removes it: if it is not yours, remove it by hand."
            yield Finding(
                tenant_id, FindingKind.STRAY, stray.name, what, remedy, size_bytes=stray.size_bytes, stray=stray
            )


def _left_behind(tenant_id: TenantId, what: str, size_bytes: int) -> Finding:
    return Finding(
        tenant_id,
        FindingKind.DELETED_TENANT,
        tenant_id,
        f"The deleted tenant {tenant_id} still {what}.",
        "Finish the deletion: mlcore fsck --repair, or mlcore gc.",
        size_bytes=size_bytes,
    )


def _sizes(connection: Connection, tenant_id: TenantId, digests: Sequence[Digest]) -> dict[str, int]:
    """The recorded size of each of some digests that a row needs."""
    found = sa.union(
        *(
            sa.select(table.c.digest, table.c.size_bytes).where(
                table.c.tenant_id == tenant_id, table.c.digest.in_(digests)
            )
            for table in HOLDERS
        )
    )
    return {row.digest: row.size_bytes for row in connection.execute(found)}


def _batches(items: Iterable[Any]) -> Iterator[list[Any]]:
    iterator = iter(items)
    while batch := list(islice(iterator, PAGE)):
        yield batch
