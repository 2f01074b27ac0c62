"""Every operation of the control API against callers who may not: generated from the OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from ml_core.api.access import Services
from ml_core.api.app import PREFIX, create_app
from ml_core.client.inprocess import InProcessTransport
from ml_core.database.connection import DatabaseConnection
from ml_core.domain.api_key import Scope
from ml_core.ids import TenantId
from ml_core.registry.keys import KeyRepository
from ml_core.registry.tenants import TenantRepository
from support.operations import DOCUMENT, operations, request_of

_OPEN = {"platform.alive"}
"""Operations without a key."""
_NEEDS_PLATFORM = {
    *("tenants.create", "tenants.list", "tenants.set_quota", "tenants.delete", "events.listen_to_all"),
    *(f"platform.{name}" for name in ("health", "jobs", "traffic", "alerts")),
    *(f"job_batches.{verb}" for verb in ("submit", "list", "get", "cancel", "retry")),
    *(f"placements.{verb}" for verb in ("list", "get", "set", "shared_cell", "set_shared_cell")),
    *("platform_keys.create", "platform_keys.list", "platform_keys.revoke"),
}
"""Operations over all tenants: a tenant's key, whatever its scopes, may not."""


OPERATIONS = [
    pytest.param(method, path, described, id=described["operationId"])
    for method, path, described in operations()
    if described["operationId"] not in _OPEN
]


def test_only_these_operations_take_no_key() -> None:
    """Whoever adds another says so here."""
    without = {
        described["operationId"]
        for methods in DOCUMENT["paths"].values()
        for described in methods.values()
        if not described.get("security")
    }
    assert without == _OPEN


@pytest.fixture(scope="module")
def client(db: DatabaseConnection) -> Iterator[httpx.Client]:
    """A client of the control API as it is served: without an operator."""
    with httpx.Client(transport=InProcessTransport(create_app(Services(db)), PREFIX), trust_env=False) as http:
        yield http


@pytest.fixture(scope="module")
def keys(db: DatabaseConnection) -> dict[str, str]:
    """Keys of two tenants: of one for each scope, of the other an admin's."""
    made = {}
    for name in ("operations-a", "operations-b"):
        TenantRepository(db).ensure(TenantId(name))
    for scope in Scope:
        made[scope.value] = str(KeyRepository(db, TenantId("operations-a")).create(scope.value, [scope]))
    made["foreign"] = str(KeyRepository(db, TenantId("operations-b")).create("other", [Scope.ADMIN]))
    return made


def answer(client: httpx.Client, request: httpx.Request, key: str | None) -> httpx.Response:
    """The answer to a request with a key."""
    if key is not None:
        request.headers["authorization"] = f"Bearer {key}"
    return client.send(request)


@pytest.mark.parametrize(("method", "path", "described"), OPERATIONS)
def test_nobody_gets_in_without_a_key(client: httpx.Client, method: str, path: str, described: dict[str, Any]) -> None:
    """No key, a malformed one and one that nobody was given are alike: 401."""
    for key in (None, "nonsense", f"mlk_{'0' * 16}_{'s' * 32}"):
        answered = answer(client, request_of(method, path, described, "operations-a"), key)
        assert answered.status_code == 401, answered.text
        assert answered.json()["error"]["code"] == "unauthenticated"


@pytest.mark.parametrize(("method", "path", "described"), OPERATIONS)
def test_another_tenants_key_finds_nothing(
    client: httpx.Client, keys: dict[str, str], method: str, path: str, described: dict[str, Any]
) -> None:
    """An admin of another tenant is answered as for a tenant that does not exist; over all tenants: 403."""
    answered = answer(client, request_of(method, path, described, "operations-a"), keys["foreign"])
    if "{tenant}" in path:
        nowhere = answer(client, request_of(method, path, described, "operations-none"), keys["foreign"])
        assert (answered.status_code, nowhere.status_code) == (404, 404), answered.text
        said, expected = answered.json()["error"], nowhere.json()["error"]
        assert said["message"].replace("operations-a", "operations-none") == expected["message"]
    else:
        assert answered.status_code in (401, 403), answered.text


@pytest.mark.parametrize(("method", "path", "described"), OPERATIONS)
def test_a_key_without_the_scope_is_refused(
    client: httpx.Client, keys: dict[str, str], method: str, path: str, described: dict[str, Any]
) -> None:
    """Of all scopes, those that are neither the operation's nor admin get 403, and the error names the scope."""
    wanted = described["x-scope"]
    for scope in Scope:
        if scope.value in (wanted, "admin"):
            continue
        answered = answer(client, request_of(method, path, described, "operations-a"), keys[scope.value])
        expected = (401, 403) if "{tenant}" not in path else (403,)
        assert answered.status_code in expected, (scope, answered.text)
        if answered.status_code == 403 and "{tenant}" in path:
            assert answered.json()["error"]["details"]["scope"].startswith(wanted)


@pytest.mark.parametrize(("method", "path", "described"), OPERATIONS)
def test_a_tenants_admin_does_nothing_over_all_tenants(
    client: httpx.Client, keys: dict[str, str], method: str, path: str, described: dict[str, Any]
) -> None:
    """Scopes of a tenant's key are of this tenant: the platform's own operations take a platform's key."""
    is_over_all = described["operationId"] in _NEEDS_PLATFORM
    if "{tenant}" not in path:
        assert is_over_all
    if is_over_all:
        answered = answer(client, request_of(method, path, described, "operations-a"), keys["admin"])
        assert answered.status_code in (401, 403), answered.text
