"""``/healthz`` and ``platform.health``: what is well, and what the API still does where something is not."""

from __future__ import annotations

import dataclasses
import uuid

import httpx
import pytest

from ml_core.api.access import Services
from ml_core.api.app import create_app
from ml_core.client import MLClient
from ml_core.client.inprocess import InProcessTransport
from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables import SCHEMA_REVISION
from ml_core.domain.api_key import Scope
from ml_core.domain.replica_report import LoadState, PendingVersion, ReplicaReport
from ml_core.exceptions import PermissionDeniedError
from ml_core.registry.keys import KeyRepository
from ml_core.registry.platform_keys import PlatformKeyRepository
from ml_core.registry.replicas import ReplicaReports
from ml_core.settings import DatabaseSettings, Settings
from support.http_server import mounted, served


def client_of(db, **options):
    transport = InProcessTransport(create_app(Services(db, db.principal)), "/api")
    return MLClient("http://in-process", transport=transport, **options)


@pytest.fixture
def operator(db):
    """A client that acts as an operator."""
    with client_of(db) as client:
        yield client


def test_replicas_are_shown_with_what_they_could_not_load(db, operator):
    """From their own reports; one that failed makes the platform degraded."""
    pending = (PendingVersion("acme", "m", "production", "1", LoadState.FAILED, None, "artifact_corrupt", "gone"),)
    report = ReplicaReport(0, uuid.uuid4(), True, pointers=3, resident=2, failed=1, pending=pending)
    reports = ReplicaReports(db, "a-replica")
    reports.write(report, ttl_s=60)
    try:
        health = operator.platform.health()
    finally:
        reports.remove()
    assert health.status == "degraded"
    assert health.schema_revision == health.wanted_schema_revision == SCHEMA_REVISION
    (cell,) = health.cells
    (replica,) = [each for each in cell.replicas if each.replica_id == "a-replica"]
    assert (replica.pointers, replica.resident, replica.failed) == (3, 2, 1)


def test_reads_are_answered_while_the_store_is_away(db, operator, tenant_id, tmp_path):
    """The registry has all that a list shows; the health names what is wrong."""
    platform = dataclasses.replace(db.settings.platform, home=tmp_path)
    settings = dataclasses.replace(db.settings, platform=platform)
    db.settings, before = settings, db.settings
    try:
        health = operator.platform.health()
        assert not health.is_store_reachable
        assert str(platform.artifact_root) in health.store_problem
        platform.artifact_root.mkdir()
        assert operator.platform.health().is_store_reachable
    finally:
        db.settings = before
    with client_of(db, tenant_id=tenant_id) as client:
        assert list(client.models.list()) == []


def test_a_tenants_key_does_not_see_the_platform(db, tenant_id):
    """Not even one with every scope: replicas serve other tenants, too."""
    key = str(KeyRepository(db, tenant_id).create("admin", [Scope.ADMIN]))
    with client_of(db, api_key=key) as client, pytest.raises(PermissionDeniedError):
        client.platform.health()


def test_a_platform_key_sees_it(db):
    """With the scope ``read`` already."""
    key = str(PlatformKeyRepository(db).create("monitoring", [Scope.READ]))
    with client_of(db, api_key=key) as client:
        assert [cell.name for cell in client.platform.health().cells] == ["shared"]


def test_without_the_registry_it_says_so():
    """503 with a pause, in the one shape and without the password; it is alive all the same."""
    settings = Settings(database=DatabaseSettings(url="postgresql://somebody:secret@127.0.0.1:1/mlcore"))
    headers = {"authorization": f"Bearer mlk_{'0' * 16}_{'a' * 32}"}
    with DatabaseConnection(settings=settings) as db, served(mounted(create_app(Services(db)))) as port:
        url = f"http://127.0.0.1:{port}/api"
        refused = httpx.get(f"{url}/v1/tenants/acme/models", headers=headers, trust_env=False)
        alive = httpx.get(f"{url}/healthz", trust_env=False)
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "1"
    assert refused.json()["error"]["code"] == "registry_unavailable"
    assert "secret" not in refused.text
    assert refused.json()["error"]["request_id"] == refused.headers["x-request-id"]
    assert (alive.status_code, alive.json()) == (200, {"status": "ok"})
