"""The control API over HTTP, as the ingress has it."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from fastapi import FastAPI

from ml_core.api.access import Services
from ml_core.api.app import create_app
from ml_core.client import MLClient
from ml_core.domain.api_key import Scope
from ml_core.registry.keys import KeyRepository
from support.http_server import mounted, served
from support.job_queue import running_queue


@pytest.fixture
def control(db) -> Iterator[httpx.Client]:
    """A client of it, at ``/api``; without a key it acts as an operator."""
    app = create_app(Services(db, db.principal))
    with (
        served(mounted(app)) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as client,
    ):
        yield client


@pytest.fixture
def admin_key(db, tenant_id) -> str:
    """A key of the tenant with every scope."""
    return str(KeyRepository(db, tenant_id).create("admin", [Scope.ADMIN]))


@pytest.fixture
def app(db) -> FastAPI:
    """A control API that wants a key."""
    return create_app(Services(db))


@pytest.fixture
def address(app) -> Iterator[str]:
    """Where it is served."""
    with served(mounted(app)) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def client(address, admin_key, tenant_id) -> Iterator[MLClient]:
    """A client of the tenant over HTTP, with the key."""
    with MLClient(address, api_key=admin_key, tenant_id=tenant_id, timeout_s=30) as asks:
        yield asks


@pytest.fixture
def dispatched(db) -> Iterator[None]:
    """A dispatcher runs."""
    with running_queue(db):
        yield
