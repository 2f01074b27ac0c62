"""Bytes and the rows that need them: one lock a digest, and one question that covers every kind of row.

Whoever registers bytes holds the digest's lock shared until the row is committed; whoever removes bytes holds it alone
while it asks. So bytes are never removed between being stored and being registered.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables import dataset_versions, run_artifacts, versions
from ml_core.ids import Digest, TenantId

HOLDERS = (versions, dataset_versions, run_artifacts)
"""The tables whose rows need bytes, each with ``tenant_id``, ``digest`` and ``size_bytes``."""


def lock_digest(connection: Connection, tenant_id: TenantId, digest: Digest, *, shared: bool) -> None:
    """Until the transaction ends, keep a digest's bytes from being removed (shared) or registered (not shared)."""
    lock = sa.func.pg_advisory_xact_lock_shared if shared else sa.func.pg_advisory_xact_lock
    connection.execute(sa.select(lock(sa.func.hashtextextended(f"{tenant_id!s}/{digest!s}", 0))))


def is_needed(connection: Connection, tenant_id: TenantId, digest: Digest) -> bool:
    """Whether any row of the tenant needs the bytes."""
    found = (sa.exists().where(table.c.tenant_id == tenant_id, table.c.digest == digest) for table in HOLDERS)
    return bool(connection.scalar(sa.select(sa.or_(*found))))


@contextmanager
def claim_bytes(db: DatabaseConnection, tenant_id: TenantId, digest: Digest) -> Iterator[bool]:
    """Whether nothing needs these bytes, which stays so until the block ends: then they may be removed."""
    with db.tenant(tenant_id) as connection:
        lock_digest(connection, tenant_id, digest, shared=False)
        yield not is_needed(connection, tenant_id, digest)
