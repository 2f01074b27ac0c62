"""Requests generated from the OpenAPI document: no answer is a 5xx, and each is one that the document describes."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import BaseSchema
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from ml_core.api.access import Services
from ml_core.api.app import PREFIX, create_app
from ml_core.database.connection import DatabaseConnection
from ml_core.domain.api_key import Scope
from ml_core.registry.keys import KeyRepository
from ml_core.registry.tenants import TenantRepository
from support.http_server import mounted
from support.operations import DOCUMENT

TENANT = "conformance"
_CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
# Its requests are made when the test runs: every worker collects it. A stream has no end; ``test_events.py`` reads it.
schema = schemathesis.pytest.from_fixture("described").exclude(operation_id="events.listen")


@schemathesis.serializer("text/csv", "application/vnd.apache.parquet", "application/octet-stream")
def as_bytes(_context: Any, value: Any) -> bytes:
    """Whatever was generated, as the bytes of a file."""
    return value if isinstance(value, bytes) else str(value).encode()


def map_path_parameters(_context: Any, parameters: dict[str, Any] | None) -> dict[str, Any] | None:
    """The tenant is one that there is: a request for another ends before the operation."""
    return parameters and {**parameters, "tenant": TENANT} if parameters and "tenant" in parameters else parameters


@pytest.fixture
def described(request: pytest.FixtureRequest) -> BaseSchema:
    """The document."""
    request.node._nodeid = request.node.nodeid  # Schemathesis 4.32 asks for it, pytest 9.2 has another
    found = schemathesis.openapi.from_dict(DOCUMENT | {"servers": [{"url": PREFIX}]})
    found.hook(map_path_parameters)
    return found


@pytest.fixture(scope="module")
def app(db: DatabaseConnection) -> Any:
    """The control API of a registry with the tenant."""
    return mounted(create_app(Services(db)))


@pytest.fixture(scope="module")
def key(db: DatabaseConnection) -> str:
    """A key of the tenant that may do everything in it."""
    TenantRepository(db).ensure(TENANT)
    return str(KeyRepository(db, TENANT).create("conformance", [Scope.ADMIN]))


@pytest.mark.timeout(900)  # some thousand requests
@schema.parametrize()
@settings(max_examples=5, suppress_health_check=list(HealthCheck), database=None, derandomize=True)
def test_answers_are_as_described(case: schemathesis.Case, app: Any, key: str) -> None:
    """With a key that may do everything in its tenant."""
    response = case.call(app=app, base_url=f"http://platform{PREFIX}", headers={"authorization": f"Bearer {key}"})
    case.validate_response(response, checks=_CHECKS)
