"""Mending what ``fsck`` found, as far as nothing is lost by it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ml_core.database.connection import DatabaseConnection
from ml_core.exceptions import MLFrameworkError, ModelLoadError
from ml_core.models.store import ArtifactStore
from ml_core.models.store.base import TEMPORARY_PREFIX
from ml_core.registry.blobs import claim_bytes
from ml_core.registry.collection.findings import Finding, FindingKind
from ml_core.registry.collection.tenant_deletion import TenantDeletion


class Repairer:
    """Mends findings one at a time.

    Lost bytes are mended from another copy, which is proved first: the copy that this machine keeps of an object
    store's artifacts, or a folder that the caller names. Rows are never changed.

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
        """Mend a finding if that is possible; what went wrong is added to what was found."""
        try:
            is_repaired = self._repair(finding)
        except MLFrameworkError as error:
            return dataclasses.replace(finding, what=f"{finding.what} It could not be repaired: {error.message}")
        return dataclasses.replace(finding, is_repaired=is_repaired)

    def _repair(self, finding: Finding) -> bool:
        if finding.kind in (FindingKind.MISSING, FindingKind.CORRUPT):
            return self._mend(finding)
        if finding.kind is FindingKind.ORPHANED and finding.digest is not None:
            with claim_bytes(self._db, finding.tenant_id, finding.digest) as is_unused:
                if is_unused:
                    self._store.delete(finding.tenant_id, finding.digest)
            return True
        if finding.kind is FindingKind.STRAY and finding.stray is not None:
            if not finding.stray.name.rpartition("/")[2].startswith(TEMPORARY_PREFIX):
                return False
            self._store.delete_stray(finding.tenant_id, finding.stray)
            return True
        if finding.kind is FindingKind.DELETED_TENANT:
            TenantDeletion(self._db, self._store).delete(finding.tenant_id)
            return True
        return False

    def _mend(self, finding: Finding) -> bool:
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
