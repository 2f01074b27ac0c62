"""Bytes and the rows that need them: one lock for each digest.

A transaction that registers bytes holds the digest's lock shared until it commits; one that removes bytes holds it
exclusively while it looks for references. So bytes are never removed between being stored and being registered.
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
from ml_core.domain.version import StoredArtifact
from ml_core.exceptions import MLFrameworkError, ModelSaveError, RegistryUnavailableError
from ml_core.ids import Digest, TenantId
from ml_core.models.store import ArtifactStore, platform_store
from ml_core.registry import journal
from ml_core.registry.records import OfTenant
from ml_core.registry.references import REFERENCES

_Row = TypeVar("_Row")

_TRIES = 3
"""Attempts. One fails only if the same bytes were removed meanwhile, or their removal outlasts the lock timeout."""

_LOCK, _LOCK_SHARED = (
    sa.select(lock(sa.func.hashtextextended(sa.bindparam("key", type_=sa.Text), 0)))
    for lock in (sa.func.pg_advisory_xact_lock, sa.func.pg_advisory_xact_lock_shared)
)
BYTES_LOCK = 0x6D6C6279
"""An advisory lock: removals of bytes share it, a backup holds it exclusively."""


class KeepsBytes(OfTenant):
    """What belongs to one tenant, and keeps bytes.

    Args:
        db: The registry; its principal is who acts.
        tenant_id: The tenant.
        store: Where the bytes are, also as an attribute; None: in the platform's store.
    """

    def __init__(self, db: DatabaseConnection, tenant_id: str, store: ArtifactStore | None = None) -> None:
        super().__init__(db, tenant_id)
        self.store = store if store is not None else platform_store(db.settings)


def lock_digest(connection: Connection, tenant_id: TenantId, digest: Digest | str, *, shared: bool) -> None:
    """Keep a digest's bytes from being removed (shared) or registered (exclusive) until the transaction ends."""
    connection.execute(_LOCK_SHARED if shared else _LOCK, {"key": f"{tenant_id!s}/{digest!s}"})


def is_needed(connection: Connection, tenant_id: TenantId, digest: Digest) -> bool:
    """Whether any row of the tenant needs the bytes."""
    of = REFERENCES.c
    return bool(connection.scalar(sa.select(sa.exists().where(of.tenant_id == tenant_id, of.digest == digest))))


def count_holders(connection: Connection, tenant_id: TenantId, digests: Sequence[Digest]) -> dict[str, int]:
    """How many rows of the tenant need each of some bytes; digests that none needs are left out."""
    of = REFERENCES.c
    needed = of.tenant_id == tenant_id, of.digest.in_(digests)
    counted = sa.select(of.digest, sa.func.count().label("holders")).where(*needed).group_by(of.digest)
    return {row.digest: row.holders for row in connection.execute(counted)}


@contextmanager
def claim_bytes(db: DatabaseConnection, tenant_id: TenantId, digest: Digest) -> Iterator[bool]:
    """Whether nothing needs these bytes. Until the block ends nothing can register them, so they may be removed.

    A running backup needs every byte: what can't be removed meanwhile is left for a later collection.
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
    derived: Sequence[Digest] = (),
) -> _Row:
    """Store bytes and commit the row that needs them: both, or neither.

    The same bytes may be removed between the two. So the transaction that writes the row takes the digest's lock and
    checks that they are there; if not, they are stored again, with no transaction open, and the transaction is
    repeated. A process that is killed at any moment leaves orphaned bytes, which the collection removes, and never a
    row without bytes.

    Args:
        db: The registry.
        tenant_id: The tenant. The caller has seen that it exists, or else the store would make a folder for it.
        store: Where the bytes go.
        put: Stores them; called again if they were removed meanwhile.
        register: Writes the row, in a transaction of ``journal.writing``.
        derived: Of further bytes that ``put`` stores and the row needs.

    Raises:
        TenantNotFoundError: The tenant was deleted; nothing is left behind.
        ModelSaveError: The store refuses, or the same bytes keep being removed; nothing is left behind.
    """
    artifact = put()
    try:
        for _ in range(_TRIES):
            try:
                with journal.writing(db, tenant_id) as connection:
                    needed = (artifact.digest, *derived)
                    for digest in needed:
                        lock_digest(connection, tenant_id, digest, shared=True)
                    if all(store.exists(tenant_id, digest) for digest in needed):
                        return register(connection, artifact)
            except RegistryUnavailableError as error:
                if not waited_for_lock(error):
                    raise
            artifact = put()
    except BaseException:
        # If the registry can't be asked whether the bytes are needed, they stay: the next collection removes them.
        with contextlib.suppress(MLFrameworkError):
            for digest in (artifact.digest, *derived):
                remove_unneeded(db, tenant_id, store, digest)
        raise
    raise ModelSaveError(
        f"The artifact {artifact.digest[:12]}… can't be registered: the same bytes are being removed.",
        remedy="Nothing was registered. The artifact store is slow: try again in a minute.",
        tenant_id=tenant_id,
    )


def waited_for_lock(error: RegistryUnavailableError) -> bool:
    """Whether the lock of another session was in the way, rather than the registry down."""
    reason = getattr(error.__cause__, "orig", None)
    return isinstance(reason, psycopg.errors.DeadlockDetected | psycopg.errors.LockNotAvailable)
