"""The control API over HTTP, as the ingress has it."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from ml_core.api.access import Services
from ml_core.api.app import create_app
from support.http_server import mounted, served


@pytest.fixture
def control(db) -> Iterator[httpx.Client]:
    """A client of it, at ``/api``; without a key it acts as an operator."""
    app = create_app(Services(db, db.principal))
    with (
        served(mounted(app)) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as client,
    ):
        yield client
