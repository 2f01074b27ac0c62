"""Deleting a tenant: every row and every byte is removed and counted in a report. Only its name stays reserved.

First the tenant is closed: its row is marked as deleted. That transaction waits for every write in progress, and later
writes are refused. Its keys are revoked, and about a second later replicas serve nothing of it. Then its rows are
removed, in batches, and then its bytes. Each step can be repeated: a deletion that was killed is finished by running it
again, or by the next collection.

The report names what can't be reached: backups, folders that a caller named as ``storage_path``, and copies in the
caches of other machines, which are evicted as those need room.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import sqlalchemy as sa

from ml_core.database import security
from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables import SCHEMA, api_keys, tenants
from ml_core.domain.api_key import Scope
from ml_core.exceptions import ModelSaveError, PlatformError, RegistryUnavailableError
from ml_core.ids import TenantId
from ml_core.models.store import ArtifactStore, Removed
from ml_core.models.store.files import remove_tree
from ml_core.registry.blobs import waited_for_lock
from ml_core.registry.journal import advance_feed
from ml_core.registry.missing import tenant_not_found
from ml_core.registry.predictions.ingest import wait_for_writers
from ml_core.registry.references import refuse_if_referenced

_ROWS_AT_ONCE = 10_000
"""Rows removed by one transaction: well below a second."""
_TRIES = 5
"""A row that is written while its table is emptied makes a batch fail; the next one takes it along."""

NOT_REACHED = (
    "backups of the database and of the artifact store",
    "folders that a caller named as storage_path",
    "copies in the caches of other machines, until those need the room, and checkpoints there",
    "what other programs read of the audit",
)
"""What a deletion can't remove."""


@dataclass(frozen=True, slots=True)
class TenantDeletionReport:
    """What was removed.

    Attributes:
        tenant_id: The tenant.
        deleted_at: When it was closed, UTC; of a deletion that is finished later, the first time.
        deleted_by: Who closed it.
        rows: Table → rows that this run removed.
        artifacts: Files and bytes that went from the artifact store.
        checkpoints: Files and bytes that went from the folder of checkpoints.
        not_reached: What may still hold something of the tenant.
    """

    tenant_id: TenantId
    deleted_at: datetime
    deleted_by: str
    rows: Mapping[str, int]
    artifacts: Removed
    checkpoints: Removed
    not_reached: tuple[str, ...] = NOT_REACHED


class TenantDeletion:
    """Deletes tenants.

    Args:
        db: The registry.
        store: The platform's artifact store.
    """

    def __init__(self, db: DatabaseConnection, store: ArtifactStore) -> None:
        self._db = db
        self._store = store

    def delete(self, tenant_id: str) -> TenantDeletionReport:
        """Delete a tenant with everything, or finish its deletion. Requires the scope ``admin``.

        Raises:
            TenantNotFoundError: There never was such a tenant.
            VersionInUseError: One of its versions is held; nothing was removed.
            PermissionDeniedError: The principal lacks the scope.
            ModelSaveError: The store refuses; the tenant is closed, and deleting it again continues from there.
            RegistryUnavailableError: Postgres can't be reached; likewise.
            PlatformError: Rows can't be removed because others refer to them; likewise.
        """
        name = TenantId(tenant_id)
        self._db.principal.require(Scope.ADMIN)
        deleted_at, deleted_by = self._close(name)
        self._stop_serving(name)
        with self._db.tenant(name) as connection:
            wait_for_writers(connection)  # replicas write predictions without a journal
        return TenantDeletionReport(
            name,
            deleted_at,
            deleted_by,
            self._remove_rows(name),
            self._store.delete_tenant(name),
            _remove_folder(self._checkpoints(name), name),
        )

    def has_checkpoints(self, tenant_id: TenantId) -> bool:
        """Whether this machine has a folder of checkpoints of the tenant: a training may have continued for a while."""
        return self._checkpoints(tenant_id).exists()

    def _checkpoints(self, tenant_id: TenantId) -> Path:
        return self._db.settings.platform.home / "checkpoints" / tenant_id

    def has_rows(self, tenant_id: TenantId) -> bool:
        """Whether any row of a tenant is left besides its own."""
        tables = [sa.table(name, sa.column("tenant_id"), schema=SCHEMA) for name in security.tenant_tables()]
        rows = [sa.exists().where(table.c.tenant_id == tenant_id) for table in tables if table.name != tenants.name]
        with self._db.tenant(tenant_id) as connection:
            return bool(connection.scalar(sa.select(sa.or_(*rows))))

    def _close(self, tenant_id: TenantId) -> tuple[datetime, str]:
        """Mark the tenant as deleted. From here on none of its writes is committed."""
        mine = tenants.c.tenant_id == tenant_id
        with self._db.tenant(tenant_id) as connection:
            if connection.scalar(sa.select(tenants.c.tenant_id).where(mine).with_for_update()) is None:
                raise tenant_not_found(tenant_id)
            refuse_if_referenced(connection, tenant_id, roles=["hold"])
            connection.execute(sa.select(sa.func.mlcore.close_tenant()))
            row = connection.execute(sa.select(tenants.c.deleted_at, tenants.c.deleted_by).where(mine)).one()
        return row.deleted_at, row.deleted_by

    def _stop_serving(self, tenant_id: TenantId) -> None:
        """Revoke its keys and stamp it with the feed. A transaction of its own: the feed's clock is locked late."""
        with self._db.tenant(tenant_id) as connection:
            generation = connection.scalar(sa.select(advance_feed()))
            connection.execute(
                api_keys.update()
                .where(api_keys.c.tenant_id == tenant_id, api_keys.c.revoked_at.is_(None))
                .values(revoked_at=sa.func.now(), feed_generation=generation)
            )
            stamped = tenants.update().where(tenants.c.tenant_id == tenant_id)
            connection.execute(stamped.values(feed_generation=generation))

    def _remove_rows(self, tenant_id: TenantId) -> dict[str, int]:
        removed: Counter[str] = Counter()
        while batch := self._remove_batch(tenant_id):
            for table, count in batch:
                removed[table] += count
        return dict(sorted(removed.items()))

    def _remove_batch(self, tenant_id: TenantId) -> Sequence[tuple[str, int]]:
        """Table → rows removed; empty once no row is left. Writes in progress are waited for."""
        statement = sa.text("SELECT removed_from, row_count FROM mlcore.remove_tenant_rows(:limit)")
        for attempt in range(1, _TRIES + 1):
            try:
                with self._db.tenant(tenant_id) as connection:
                    return [tuple(row) for row in connection.execute(statement, {"limit": _ROWS_AT_ONCE})]
            except RegistryUnavailableError as error:
                if attempt == _TRIES or not waited_for_lock(error):
                    raise
            except sa.exc.IntegrityError as error:
                if attempt == _TRIES:
                    raise _not_removed(tenant_id, error) from error
        raise AssertionError("unreachable")


def _not_removed(tenant_id: TenantId, error: sa.exc.IntegrityError) -> PlatformError:
    return PlatformError(
        f"Rows of the tenant {tenant_id!s} can't be removed: {str(error.orig).strip().splitlines()[0]}",
        remedy="The tenant is closed. Delete it again: what is left is removed. If that fails too, remove the rows "
        "that the message names by hand.",
    )


def _remove_folder(folder: Path, tenant_id: TenantId) -> Removed:
    try:
        return remove_tree(folder)
    except OSError as error:
        raise ModelSaveError(
            f"The folder {folder} can't be removed: {error.strerror or error}.",
            remedy="End what writes into it and correct its permissions, then delete the tenant again: what is left "
            "is removed.",
            tenant_id=tenant_id,
        ) from error
