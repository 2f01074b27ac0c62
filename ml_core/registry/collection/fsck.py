"""The check that rows and bytes agree, in both directions, and the repair of what does not.

A tenant is checked at a time, and never held whole in memory. Others may write meanwhile: bytes are stored before their
row is committed, so young bytes without a row are ignored, and a suspicion is checked again before it is reported.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables import versions
from ml_core.exceptions import Action, ArtifactIntegrityError, MLFrameworkError, ModelLoadError
from ml_core.ids import Digest, TenantId
from ml_core.models.store import ArtifactStore, StoredBlob, Stray
from ml_core.registry.blobs import claim_bytes, remove_unneeded
from ml_core.registry.collection.invariants import RULES
from ml_core.registry.collection.planner import batches, is_temporary
from ml_core.registry.collection.tenant_deletion import TenantDeletion
from ml_core.registry.references import REFERENCES, SERVED, SHOWN, digests_after
from ml_core.registry.tenants import TenantRepository, tenant_ids

PAGE = 500
"""Digests read in one query."""

_REPAIR = Action.of("fsck", repair=True)


class FindingKind(StrEnum):
    """What is wrong.

    ``missing``, ``corrupt``: a row whose bytes are missing or differ. ``orphaned``: bytes without a row. ``stray``: a
    file that is not an artifact. ``unknown_tenant``: bytes of a tenant that the registry never had. ``deleted_tenant``:
    rows or bytes that a deletion left. ``inconsistent``: rows that contradict each other.
    """

    MISSING = "missing"
    CORRUPT = "corrupt"
    ORPHANED = "orphaned"
    STRAY = "stray"
    UNKNOWN_TENANT = "unknown_tenant"
    DELETED_TENANT = "deleted_tenant"
    INCONSISTENT = "inconsistent"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong, and what to do.

    Attributes:
        tenant_id: The tenant.
        kind: What is wrong.
        subject: A digest, a file, or a name such as ``tickets:production``.
        what: What was found, in one sentence.
        remedy: What to do, in one sentence.
        action: The operation that does it, if there is one.
        needed_by: What needs the bytes, such as ``version:tickets@1``; at most ten.
        size_bytes: Of the bytes in question.
        digest: Of the artifact, for one.
        stray: The file, for a file that is not an artifact.
        is_repaired: Whether it was repaired.
    """

    tenant_id: TenantId
    kind: FindingKind
    subject: str
    what: str
    remedy: str
    action: Action | None = None
    needed_by: tuple[str, ...] = ()
    size_bytes: int = 0
    digest: Digest | None = None
    stray: Stray | None = None
    is_repaired: bool = False

    def describe(self) -> dict[str, Any]:
        """As data for a table or JSON."""
        names = ("tenant_id", "kind", "subject", "what", "needed_by", "size_bytes", "remedy")
        action = None if self.action is None else self.action.to_json()
        return {**{name: getattr(self, name) for name in names}, "action": action, "repaired": self.is_repaired}


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

    def check(
        self, tenant_id: TenantId, on_progress: Callable[[float], object] = lambda _share: None
    ) -> Iterator[Finding]:
        """What is wrong with a tenant.

        Args:
            tenant_id: The tenant.
            on_progress: Called with the share of the tenant that was checked, from 0 to 1.

        Raises:
            ModelLoadError: The artifact store can't be reached: that is not a finding.
        """
        self.checked.tenants += 1
        yield from self._violations(tenant_id)
        yield from self._rows(tenant_id, on_progress)
        yield from self._blobs(tenant_id)
        yield from self._strays(tenant_id)
        on_progress(1.0)

    def check_folders(self) -> Iterator[Finding]:
        """Folders in the store of tenants that the registry does not know, or that were deleted."""
        tenants, deletion = TenantRepository(self._db), TenantDeletion(self._db, self._store)
        for tenant_id in self._store.tenants():
            if tenants.exists(tenant_id):
                continue
            sizes = [blob.size_bytes for blob in self._store.list(tenant_id)]
            sizes += [stray.size_bytes for stray in self._store.strays(tenant_id)]
            if not sizes:  # a refused upload leaves an empty folder
                continue
            size_bytes = sum(sizes)
            tenant = tenants.find(tenant_id)
            if tenant is not None and tenant.is_deleted:
                yield _left_behind(tenant_id, "has files in the artifact store", size_bytes)
            elif tenant is None:  # nor was it created meanwhile
                yield Finding(
                    tenant_id,
                    FindingKind.UNKNOWN_TENANT,
                    tenant_id,
                    f"The artifact store has files of {tenant_id}, which the registry does not know.",
                    "Check that this store belongs to this registry. The platform does not remove them: if they are "
                    "not needed, remove the folder by hand.",
                    size_bytes=size_bytes,
                )
        for deleted in tenant_ids(self._db, deleted=True):
            if deletion.has_rows(deleted):
                yield _left_behind(deleted, "has rows", 0)
            if deletion.has_checkpoints(deleted):
                yield _left_behind(deleted, "has checkpoints on this machine", 0)

    def _violations(self, tenant_id: TenantId) -> Iterator[Finding]:
        """Rows that contradict each other."""
        for rule in RULES:
            with self._db.tenant(tenant_id) as connection:
                found = connection.execute(sa.text(rule.statement), {"tenant": tenant_id}).all()
            for row in found:
                what = f"{row.subject} {row.what}."
                yield Finding(tenant_id, FindingKind.INCONSISTENT, row.subject, what, rule.remedy)

    def _rows(self, tenant_id: TenantId, on_progress: Callable[[float], object]) -> Iterator[Finding]:
        """Rows whose bytes are missing or others, in the order of digests, which are spread evenly."""
        last = ""
        while page := self._needed_after(tenant_id, last):
            for digest, size_bytes in page:
                on_progress(int(digest[:8], 16) / 2**32)
                self.checked.needed += 1
                self.checked.needed_bytes += size_bytes
                if self._fault(tenant_id, digest, size_bytes, is_quick=self._is_quick) is not None:
                    yield from self._confirm(tenant_id, digest, size_bytes, is_quick=self._is_quick)
            last = page[-1][0]

    def _needed_after(self, tenant_id: TenantId, last: str) -> Sequence[tuple[Digest, int]]:
        with self._db.tenant(tenant_id) as connection:
            return digests_after(connection, tenant_id, last, PAGE)

    def _fault(
        self, tenant_id: TenantId, digest: Digest, size_bytes: int, *, is_quick: bool
    ) -> tuple[FindingKind, str] | None:
        if not self._store.exists(tenant_id, digest):
            return FindingKind.MISSING, f"The artifact is missing ({self._store.location(tenant_id, digest)})."
        if is_quick:
            return None
        try:
            self._store.verify(tenant_id, digest, size_bytes)
        except ArtifactIntegrityError as error:
            return FindingKind.CORRUPT, error.cause
        return None

    def _confirm(self, tenant_id: TenantId, digest: Digest, size_bytes: int, *, is_quick: bool) -> Iterator[Finding]:
        """The finding about bytes that a row needs, if the row is still there and the bytes are still wrong."""
        with self._db.tenant(tenant_id) as connection:
            needed_by, served_by = _holders(connection, tenant_id, digest)
        fault = self._fault(tenant_id, digest, size_bytes, is_quick=is_quick)
        if needed_by and fault is not None:
            kind, what = fault
            remedy = _remedy(needed_by, served_by)
            yield Finding(tenant_id, kind, digest, what, remedy, _REPAIR, needed_by, size_bytes, digest)

    def _blobs(self, tenant_id: TenantId) -> Iterator[Finding]:
        """Bytes that no row needs, by one walk over the store; in a quick check, also bytes of another size."""
        oldest = datetime.now(UTC) - self._grace
        for blobs in batches(self._store.list(tenant_id), PAGE):
            self.checked.stored += len(blobs)
            with self._db.tenant(tenant_id) as connection:
                sizes = _sizes(connection, tenant_id, [blob.digest for blob in blobs])
            for blob in blobs:
                size_bytes = sizes.get(blob.digest)
                if size_bytes is None and blob.modified_at <= oldest:
                    yield from self._confirm_orphan(tenant_id, blob)
                elif self._is_quick and size_bytes is not None and size_bytes != blob.size_bytes:
                    # Bytes of another size are read whole before they are called corrupt.
                    yield from self._confirm(tenant_id, blob.digest, size_bytes, is_quick=False)

    def _confirm_orphan(self, tenant_id: TenantId, blob: StoredBlob) -> Iterator[Finding]:
        with claim_bytes(self._db, tenant_id, blob.digest) as is_unused:
            is_orphan = is_unused and self._store.exists(tenant_id, blob.digest)
        if is_orphan:
            what = f"No row needs these bytes ({self._store.location(tenant_id, blob.digest)})."
            kind, remedy = FindingKind.ORPHANED, "Repair removes them, and so does the next collection."
            yield Finding(tenant_id, kind, blob.digest, what, remedy, _REPAIR, (), blob.size_bytes, blob.digest)

    def _strays(self, tenant_id: TenantId) -> Iterator[Finding]:
        oldest = datetime.now(UTC) - self._grace
        for stray in self._store.strays(tenant_id):
            if stray.modified_at > oldest:
                continue
            action = _REPAIR if is_temporary(stray) else None
            if action is not None:
                what = f"{stray.name} was left half-written by a process that ended."
                remedy = "Repair removes it, and so does the next collection."
            else:
                what = f"{stray.name} is not an artifact."
                remedy = "The platform does not remove it: if it is not yours, remove it by hand."
            kind, size_bytes = FindingKind.STRAY, stray.size_bytes
            yield Finding(tenant_id, kind, stray.name, what, remedy, action, size_bytes=size_bytes, stray=stray)


class Repairer:
    """Repairs findings one at a time.

    Lost bytes are copied from another place and verified first: the cache that this machine keeps of an object store's
    artifacts, or a folder that the caller names. Rows are never changed.

    Args:
        db: The registry.
        store: The platform's artifact store.
        sources: Further stores to take sound copies from.
    """

    def __init__(self, db: DatabaseConnection, store: ArtifactStore, sources: Sequence[ArtifactStore] = ()) -> None:
        self._db = db
        self._store = store
        self._sources = (store, *sources)

    def repair(self, finding: Finding) -> Finding:
        """Repair a finding if that is possible; an error is added to what was found."""
        try:
            is_repaired = self._repair(finding)
        except MLFrameworkError as error:
            return dataclasses.replace(finding, what=f"{finding.what} It could not be repaired: {error.cause}")
        return dataclasses.replace(finding, is_repaired=is_repaired)

    def _repair(self, finding: Finding) -> bool:
        if finding.kind in (FindingKind.MISSING, FindingKind.CORRUPT):
            return self._restore(finding)
        if finding.kind is FindingKind.ORPHANED and finding.digest is not None:
            remove_unneeded(self._db, finding.tenant_id, self._store, finding.digest)
            return True
        if finding.kind is FindingKind.STRAY and finding.stray is not None:
            if not is_temporary(finding.stray):
                return False
            self._store.delete_stray(finding.tenant_id, finding.stray)
            return True
        if finding.kind is FindingKind.DELETED_TENANT:
            TenantDeletion(self._db, self._store).delete(finding.tenant_id)
            return True
        return False

    def _restore(self, finding: Finding) -> bool:
        """Store the artifact again from the first source that has a sound copy."""
        if finding.digest is None:
            return False
        for source in self._sources:
            try:
                path = source.fetch(finding.tenant_id, finding.digest, finding.size_bytes)
            except ModelLoadError:  # it has none, or one that is damaged as well
                continue
            self._store.put_file(finding.tenant_id, path, "")
            self._store.verify(finding.tenant_id, finding.digest, finding.size_bytes)
            return True
        return False


def _left_behind(tenant_id: TenantId, what: str, size_bytes: int) -> Finding:
    return Finding(
        tenant_id,
        FindingKind.DELETED_TENANT,
        tenant_id,
        f"The deleted tenant {tenant_id} still {what}.",
        "Repair finishes the deletion, and so does the next collection.",
        _REPAIR,
        size_bytes=size_bytes,
    )


def _sizes(connection: Connection, tenant_id: TenantId, digests: Sequence[Digest]) -> dict[str, int]:
    """The recorded size of each of some digests that a row needs."""
    of = REFERENCES.c
    found = sa.select(of.digest, of.size_bytes).where(of.tenant_id == tenant_id, of.digest.in_(digests)).distinct()
    return {row.digest: row.size_bytes for row in connection.execute(found)}


def _holders(connection: Connection, tenant_id: TenantId, digest: Digest) -> tuple[tuple[str, ...], list[str]]:
    """What needs some bytes, such as ``version:tickets@1``, and ``model:environment`` that serves one of them."""
    of, served = REFERENCES.c, REFERENCES.alias("served").c
    needing = sa.select(of.role, of.holder).where(of.tenant_id == tenant_id, of.digest == digest).limit(SHOWN)
    name = versions.c.model_id + ":" + served.holder
    serving = (
        sa.select(name)
        .where(
            versions.c.tenant_id == tenant_id,
            sa.or_(versions.c.digest == digest, versions.c.compiled_digest == digest),
            served.tenant_id == tenant_id,
            served.role.in_(SERVED),
            served.model_id == versions.c.model_id,
            served.version == versions.c.version,
        )
        .distinct()
        .limit(SHOWN)
    )
    names = tuple(f"{row.role}:{row.holder}" for row in connection.execute(needing))
    return names, sorted(connection.scalars(serving))


def _remedy(needed_by: Sequence[str], served_by: Sequence[str]) -> str:
    """What a person can do about lost bytes."""
    kinds = {name.partition(":")[0] for name in needed_by}
    again = "log the same file again"
    if kinds == {"version"}:
        again = "register the same file again"
    elif "dataset" in kinds:
        again = "register the same table again"
    remedy = f"Repair it from a folder with copies, such as a backup or a storage_path; or {again}."
    return f"{remedy} Or serve another version in {', '.join(served_by)}." if served_by else remedy
