"""Bytes and the rows that need them: one lock a digest, and one question that covers every kind of row.

Whoever registers bytes holds the digest's lock shared until the row is committed; whoever removes bytes holds it alone
while it asks. So bytes are never removed between being stored and being registered.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import psycopg
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables import dataset_versions, run_artifacts, versions
from ml_core.domain.version import StoredArtifact
from ml_core.exceptions import MLFrameworkError, ModelSaveError, RegistryUnavailableError
from ml_core.ids import Digest, TenantId
from ml_core.models.store import ArtifactStore
from ml_core.registry import journal
from ml_core.registry.tenants import TenantRepository

_Row = TypeVar("_Row")

_TRIES = 3
"""Each is in vain only if somebody removed the very same bytes meanwhile, or was still at it after the lock timeout."""

HOLDERS = (versions, dataset_versions, run_artifacts)
"""The tables whose rows need bytes, each with ``tenant_id``, ``digest`` and ``size_bytes``."""


BYTES_LOCK = 0x6D6C6279
"""An advisory lock: shared by whoever removes bytes, held alone by a backup."""


def lock_digest(connection: Connection, tenant_id: TenantId, digest: Digest | str, *, shared: bool) -> None:
    """Until the transaction ends, keep a digest's bytes from being removed (shared) or registered (not shared)."""
    lock = sa.func.pg_advisory_xact_lock_shared if shared else sa.func.pg_advisory_xact_lock
    connection.execute(sa.select(lock(sa.func.hashtextextended(f"{tenant_id!s}/{digest!s}", 0))))


def is_needed(connection: Connection, tenant_id: TenantId, digest: Digest) -> bool:
    """Whether any row of the tenant needs the bytes."""
    found = (sa.exists().where(table.c.tenant_id == tenant_id, table.c.digest == digest) for table in HOLDERS)
    return bool(connection.scalar(sa.select(sa.or_(*found))))


def count_holders(connection: Connection, tenant_id: TenantId, digests: Sequence[Digest]) -> dict[str, int]:
    """How many rows of the tenant need each of some bytes; digests that none needs are left out."""
    found = sa.union_all(
        *(
            sa.select(table.c.digest).where(table.c.tenant_id == tenant_id, table.c.digest.in_(digests))
            for table in HOLDERS
        )
    ).subquery()
    counted = sa.select(found.c.digest, sa.func.count().label("holders")).group_by(found.c.digest)
    return {row.digest: row.holders for row in connection.execute(counted)}


@contextmanager
def claim_bytes(db: DatabaseConnection, tenant_id: TenantId, digest: Digest) -> Iterator[bool]:
    """Whether nothing needs these bytes, which stays so until the block ends: then they may be removed.

    While a backup runs it needs every byte; what is not removed now is taken by a later collection.
    """
    with db.tenant(tenant_id) as connection:
        lock_digest(connection, tenant_id, digest, shared=False)
        is_free = connection.scalar(sa.select(sa.func.pg_try_advisory_xact_lock_shared(BYTES_LOCK)))
        yield bool(is_free) and not is_needed(connection, tenant_id, digest)


def remove_unneeded(db: DatabaseConnection, tenant_id: TenantId, store: ArtifactStore, digest: Digest) -> None:
    """Remove bytes, unless something needs them.

    Raises:
        ModelSaveError: The store refuses.
    """
    with claim_bytes(db, tenant_id, digest) as is_unused:
        if is_unused:
            store.delete(tenant_id, digest)


def store_and_register(
    db: DatabaseConnection,
    tenant_id: TenantId,
    store: ArtifactStore,
    put: Callable[[], StoredArtifact],
    register: Callable[[Connection, StoredArtifact], _Row],
) -> _Row:
    """Store bytes and commit the row that needs them: both, or neither.

    Somebody may remove the very same bytes between the two. So the transaction of the row, under the lock that keeps
    them from being removed, looks for them before it goes on; if they are gone they are stored again, with no
    transaction open, and it begins anew. A process that is killed at any moment leaves bytes that no row needs, which
    ``mlcore gc`` removes, and never a row without bytes.

    Args:
        db: The registry.
        tenant_id: The tenant.
        store: Where the bytes go.
        put: Stores them; asked again if they were removed meanwhile.
        register: Writes the row, in a transaction of the tenant.

    Raises:
        TenantNotFoundError: There is no such tenant; nothing was stored.
        ModelSaveError: The store refuses, or somebody else keeps removing the same bytes; nothing is left behind.
    """
    TenantRepository(db).require(tenant_id)  # or else the store would make a folder for it
    artifact = put()
    try:
        for _ in range(_TRIES):
            try:
                with journal.writing(db, tenant_id) as connection:
                    lock_digest(connection, tenant_id, artifact.digest, shared=True)
                    if store.exists(tenant_id, artifact.digest):
                        return register(connection, artifact)
            except RegistryUnavailableError as error:
                if not _waited_for_lock(error):
                    raise
            artifact = put()
    except BaseException:
        # If the registry can't say whether the bytes are needed, they stay: they harm nobody.
        with contextlib.suppress(MLFrameworkError):
            remove_unneeded(db, tenant_id, store, artifact.digest)
        raise
    raise ModelSaveError(
        f"The artifact {artifact.digest[:12]}… can't be registered: the very same bytes are being removed.",
        remedy="Nothing was registered. The artifact store is slow: try again in a minute.",
        tenant_id=tenant_id,
    )


def _waited_for_lock(error: RegistryUnavailableError) -> bool:
    return isinstance(getattr(error.__cause__, "orig", None), psycopg.errors.LockNotAvailable)
