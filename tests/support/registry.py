"""A real registry for tests: one embedded Postgres per session, a fresh tenant per test, and short ways to versions."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ml_core.database import connection as connection_module
from ml_core.database.connection import DatabaseConnection
from ml_core.database.embedded import EmbeddedServer
from ml_core.domain.columns import ColumnKind
from ml_core.domain.signature import InputColumn, Output, OutputKind, Signature
from ml_core.domain.version import ModelVersion, SelfTest, StoredArtifact, VersionDraft
from ml_core.ids import Digest, ModelId, TenantId, VersionId
from ml_core.registry.tenants import TenantRepository
from ml_core.registry.versions.repository import VersionRepository
from ml_core.settings import PlatformSettings, Settings

TICKETS = ModelId("tickets")
SIGNATURE = Signature((InputColumn("text", ColumnKind.TEXT, nullable=True),), Output(OutputKind.CLASSES, ("a", "b")))
SELF_TEST = SelfTest(({"text": "hello"},), ("a",), ((0.75, 0.25),))


@contextmanager
def temporary_home() -> Iterator[Path]:
    """A home that the server's account can reach (pytest's own folders are closed to it), gone afterwards."""
    home = Path(tempfile.mkdtemp(prefix="mlcore-test-"))
    home.chmod(0o711)
    try:
        yield home
    finally:
        EmbeddedServer(home).stop()
        shutil.rmtree(home, ignore_errors=True)


def settings_for(home: Path) -> Settings:
    """Settings of an embedded platform."""
    return Settings(platform=PlatformSettings(home=home))


@pytest.fixture(scope="session")
def embedded_home() -> Iterator[Path]:
    """The home of the session's embedded server."""
    with temporary_home() as home:
        yield home


@pytest.fixture(scope="session")
def db(embedded_home: Path) -> Iterator[DatabaseConnection]:
    """The session's registry; works under the runtime role, as in production."""
    with DatabaseConnection(settings=settings_for(embedded_home)) as connection:
        yield connection


@pytest.fixture
def tenant_id(db: DatabaseConnection) -> TenantId:
    """A tenant that no other test has."""
    return new_tenant(db)


@pytest.fixture
def other_tenant_id(db: DatabaseConnection) -> TenantId:
    """Another one."""
    return new_tenant(db)


def new_tenant(db: DatabaseConnection) -> TenantId:
    """Create a tenant of a random name."""
    name = TenantId(f"t{uuid.uuid4().hex[:12]}")
    TenantRepository(db).create(name)
    return name


def wait_briefly_for_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bound the wait of tenants' transactions for a lock to 100 ms, instead of seconds that a test would spend idle."""
    statement = connection_module._TAKE_ROLE_AND_ENTER
    brief = statement.replace(f"'{connection_module._LOCK_TIMEOUT}'", "'100ms'")
    assert brief != statement
    monkeypatch.setattr(connection_module, "_TAKE_ROLE_AND_ENTER", brief)


def superuser(db: DatabaseConnection) -> psycopg.Connection[Any]:
    """A superuser's session on the embedded server, to look behind the policies. Proves nothing about them."""
    return psycopg.connect(db.urls.owner.replace("mlcore_owner@", "postgres@"), autocommit=True)


def artifact_of(text: str) -> StoredArtifact:
    """An artifact as the store would describe it."""
    return StoredArtifact(Digest(hashlib.sha256(text.encode()).hexdigest()), len(text), "skops/1")


def draft(model_id: ModelId = TICKETS, version: str | None = None, **fields: Any) -> VersionDraft:
    """A draft with a signature and a self-test."""
    given = {"model_type": "classification", "signature": SIGNATURE, "self_test": SELF_TEST, **fields}
    return VersionDraft(model_id=model_id, version=None if version is None else VersionId(version), **given)


def register(
    db: DatabaseConnection, tenant_id: TenantId, version: str | None = None, *, content: str = "", **fields: Any
) -> ModelVersion:
    """Register a version of ``tickets``; its bytes are the content, or else differ from those of any other."""
    artifact = artifact_of(content or uuid.uuid4().hex)
    return VersionRepository(db, tenant_id).register(draft(version=version, **fields), artifact, "tester")
