"""Every operation of the control API against callers who may not: generated from the OpenAPI document."""

from __future__ import annotations

import re
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
from ml_core.registry.promotion.environments import EnvironmentRepository
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


def broken_requests(method: str, path: str, described: dict[str, Any]) -> Iterator[httpx.Request]:
    """Requests of an operation whose body, query or names are invalid."""
    right = request_of(method, path, described, "operations-a")
    names = re.sub(r"\{\w+\}", "%20%00", path.replace("{tenant}", "operations-a"))
    yield httpx.Request(method.upper(), f"http://platform{PREFIX}{names}")
    yield httpx.Request(method.upper(), right.url.copy_with(query=b"limit=none&from=%00&wait_s=x&tag=x"))
    for media, content in (("application/json", b"{"), ("application/json", b'{"no_such": []}'), ("text/none", b"x")):
        headers = {"content-type": media, "content-length": str(len(content)), "if-match": "x"}
        yield httpx.Request(method.upper(), right.url, headers=headers, content=content)


@pytest.mark.parametrize(("method", "path", "described"), OPERATIONS)
def test_who_asks_is_checked_before_what_is_asked(
    client: httpx.Client, keys: dict[str, str], method: str, path: str, described: dict[str, Any]
) -> None:
    """An invalid body, query or name is 401 without a key, 403 without the scope, and 404 in another's tenant."""
    lacking = keys["predict" if described["x-scope"] != "predict" else "read"]
    expected = {None: 401, lacking: 403, keys["foreign"]: 404 if "{tenant}" in path else 403}
    for key, status in expected.items():
        for request in broken_requests(method, path, described):
            answered = answer(client, request, key)
            assert answered.status_code == status, (str(request.url), request.content, answered.text)


def test_who_asks_for_a_tenant_that_can_not_be_is_checked_first(client: httpx.Client, keys: dict[str, str]) -> None:
    """A malformed name in the tenant's place: without a key 401, with one of a tenant 404."""
    for key, status in ((None, 401), ("nonsense", 401), (keys["admin"], 404)):
        request = httpx.Request("GET", f"http://platform{PREFIX}/v1/tenants/No%20tenant/models")
        assert answer(client, request, key).status_code == status


def test_a_move_of_a_protected_environment_is_refused_before_its_body(
    db: DatabaseConnection, client: httpx.Client, keys: dict[str, str]
) -> None:
    """The error names the scope that is needed there, also to a key with `promote`."""
    tenant = TenantId("operations-a")
    EnvironmentRepository(db, tenant).protect("staging")
    own = str(KeyRepository(db, tenant).create("staging", ["promote:staging"]))
    url = f"http://platform{PREFIX}/v1/tenants/{tenant}/models/x/environments/staging/promote"
    for key in (keys["predict"], keys["promote"]):
        refused = answer(client, httpx.Request("POST", url, content=b"{"), key)
        assert refused.status_code == 403
        assert refused.json()["error"]["details"]["scope"] == "promote:staging"
    assert answer(client, httpx.Request("POST", url, content=b"{"), own).status_code == 400


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
