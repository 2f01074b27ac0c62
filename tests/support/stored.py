"""Versions with real bytes in a real store, for tests of deletion."""

from __future__ import annotations

import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.version import ModelVersion
from ml_core.ids import TenantId
from ml_core.models.store import LocalStore
from ml_core.registry.collection.planner import Policy
from ml_core.registry.versions.repository import VersionRepository
from support.registry import draft, superuser
from support.waiting import wait_until

DEADLINE_S = 20

AT_ONCE = Policy(retention=timedelta(0), grace=timedelta(0))
"""Collects what was archived a moment ago, and bytes of any age."""


def publish(
    db: DatabaseConnection, tenant_id: TenantId, store: LocalStore, content: str = "", **fields: Any
) -> ModelVersion:
    """A version of ``tickets`` whose bytes are in the store."""
    data = (content or uuid.uuid4().hex).encode()
    return VersionRepository(db, tenant_id, store).publish(draft(**fields), data, "skops/1", actor="tester")


def stored(store: LocalStore) -> set[str]:
    """The names of all files in a store."""
    return {path.name for path in Path(store.root).rglob("*") if path.is_file()}


def wait_for_a_waiting_session(db: DatabaseConnection) -> None:
    """Until some session of the server waits for a lock."""
    with superuser(db) as session:
        wait_until(
            lambda: session.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone() is not None, DEADLINE_S
        )
