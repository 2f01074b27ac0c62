"""Requests with an ``Idempotency-Key``, as a client repeats them over HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import httpx
import pytest

from ml_core.api import operation
from ml_core.api.access import Services
from ml_core.api.app import create_app
from ml_core.api.routes import runs as routes
from ml_core.database.connection import DatabaseConnection
from ml_core.domain.api_key import Scope
from ml_core.domain.job import JobQuota
from ml_core.ids import TenantId
from ml_core.registry import idempotency
from ml_core.registry.jobs import JobQueue
from ml_core.registry.keys import KeyRepository
from support.http_server import mounted, served
from support.registry import superuser
from support.waiting import wait_until

_CSV = {"content-type": "text/csv"}


@pytest.fixture(scope="module")
def port(db: DatabaseConnection) -> Iterator[int]:
    with served(mounted(create_app(Services(db)))) as number:
        yield number


@pytest.fixture
def tenant(db: DatabaseConnection, tenant_id: TenantId, port: int) -> Iterator[httpx.Client]:
    """A client that acts as an admin of a tenant."""
    key = str(KeyRepository(db, tenant_id).create("admin", [Scope.ADMIN]))
    base = f"http://127.0.0.1:{port}/api/v1/tenants/{tenant_id}"
    with httpx.Client(base_url=base, headers={"authorization": f"Bearer {key}"}, trust_env=False) as client:
        yield client


def send(client: httpx.Client, method: str, path: str, key: str = "k", **request) -> httpx.Response:
    headers = {"idempotency-key": key, **request.pop("headers", {})}
    return client.request(method, path, headers=headers, **request)


def is_repeated(response: httpx.Response) -> bool:
    return "idempotency-replayed" in response.headers


def test_a_write_is_executed_once(tenant: httpx.Client) -> None:
    """The repeated request gets the first one's answer; another request with the key is refused."""
    first, again = (send(tenant, "POST", "/runs", json={"model_id": "m"}) for _ in range(2))
    assert (first.status_code, again.status_code, again.json()) == (201, 201, first.json())
    assert (is_repeated(first), is_repeated(again)) == (False, True)
    assert len(tenant.get("/runs").json()["items"]) == 1
    for other in ({"json": {"model_id": "n"}}, {"json": {"model_id": "m"}, "params": {"x": 1}}):
        assert send(tenant, "POST", "/runs", **other).status_code == 409


def test_a_key_is_not_stored(db: DatabaseConnection, tenant: httpx.Client, tenant_id: TenantId) -> None:
    """Nobody who reads the registry finds a key in it, and it is shown once."""
    created = send(tenant, "POST", "/keys", json={"name": "n", "scopes": ["read"]})
    assert created.status_code == 201
    with superuser(db) as session:
        kept = session.execute(
            "SELECT response FROM mlcore.idempotency_keys WHERE tenant_id = %s", (str(tenant_id),)
        ).fetchall()
    secret = created.json()["key"].split("_", 2)[2]
    assert secret.encode() not in kept[0][0]
    again = send(tenant, "POST", "/keys", json={"name": "n", "scopes": ["read"]})
    assert (again.status_code, again.json()["error"]["code"]) == (409, "idempotency_conflict")
    assert secret not in again.text
    assert created.json()["key_id"] in again.json()["error"]["message"]
    arguments = {"tenant": str(tenant_id), "key_id": created.json()["key_id"]}
    assert again.json()["error"]["action"] == {"operation": "keys.revoke", "arguments": arguments}
    assert len(tenant.get("/keys").json()["items"]) == 2, "the admin's own, and one"


@pytest.mark.parametrize("is_chunked", [False, True])
def test_an_upload_is_known_by_its_bytes(tenant: httpx.Client, is_chunked: bool) -> None:
    """Another file of the same length is another request, and is not answered as if it were there."""

    def upload(content: bytes) -> httpx.Response:
        body = iter([content]) if is_chunked else content
        return send(tenant, "POST", "/datasets/d/versions", content=body, headers=_CSV)

    first, again, other = upload(b"a,b\n1,2\n"), upload(b"a,b\n1,2\n"), upload(b"a,b\n3,4\n")
    assert (first.status_code, again.status_code, again.json()) == (201, 201, first.json())
    assert is_repeated(again)
    assert "body-sha256" not in again.headers
    assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_conflict")
    assert len(tenant.get("/datasets/d/versions").json()["items"]) == 1


def test_an_upload_that_was_refused_is_read_again(tenant: httpx.Client) -> None:
    """Nothing was changed, so nothing is kept of it."""
    refused = send(tenant, "POST", "/datasets/d/versions", content=b"", headers=_CSV)
    assert refused.status_code == 422
    assert send(tenant, "POST", "/datasets/d/versions", content=b"a\n1\n", headers=_CSV).status_code == 201


def test_a_full_queue_is_no_answer(db: DatabaseConnection, tenant: httpx.Client, tenant_id: TenantId) -> None:
    """A 429 asks for the same request once more: the next one is executed."""
    tenant.post("/datasets/d/versions", content=b"a,b\n1,x\n2,y\n", headers=_CSV)
    job = {"kind": "train", "model_id": "m", "training": {"dataset": "d", "target": "b"}}
    JobQueue(db).set_quota(tenant_id, JobQuota(max_queued=0))
    for _ in range(2):
        full = send(tenant, "POST", "/jobs", json=job)
        assert (full.status_code, full.headers["retry-after"], is_repeated(full)) == (429, "60", False)
    JobQueue(db).set_quota(tenant_id, JobQuota())
    queued = send(tenant, "POST", "/jobs", json=job)
    assert (queued.status_code, is_repeated(queued)) == (201, False)
    tenant.post(f"/jobs/{queued.json()['job_id']}/cancel")


def test_two_keys_are_refused(tenant: httpx.Client) -> None:
    """Of two idempotency keys nobody can tell which is meant."""
    headers = [("idempotency-key", "a"), ("idempotency-key", "b")]
    refused = tenant.post("/runs", json={"model_id": "m"}, headers=headers)
    assert (refused.status_code, refused.json()["error"]["details"]["field"]) == (400, "idempotency-key")


def test_another_expected_generation_is_another_request(tenant: httpx.Client) -> None:
    """Also where a header says it."""
    path = "/models/m/environments/production/rollback"
    assert send(tenant, "POST", path, json={}, headers={"if-match": '"1"'}).status_code == 409
    other = send(tenant, "POST", path, json={}, headers={"if-match": '"2"'})
    assert other.json()["error"]["code"] == "idempotency_conflict"


def test_what_outlived_its_deadline_is_not_executed_again(tenant: httpx.Client, monkeypatch) -> None:
    """The thread went on to its end, so its answer is kept: the repeated request gets it."""
    goes_on = threading.Event()
    start = routes.RunRepository.start

    def slow(*args, **fields):
        goes_on.wait(20)
        return start(*args, **fields)

    monkeypatch.setattr(routes.RunRepository, "start", slow)
    threading.Timer(0.6, goes_on.set).start()
    late = send(tenant, "POST", "/runs", json={"model_id": "m"}, headers={"x-request-timeout-ms": "300"})
    again = send(tenant, "POST", "/runs", json={"model_id": "m"})
    assert (late.status_code, again.status_code, is_repeated(again)) == (201, 201, True)
    assert again.json() == late.json()
    assert len(tenant.get("/runs").json()["items"]) == 1


def test_a_request_that_takes_long_is_not_taken_over(
    db: DatabaseConnection, tenant: httpx.Client, tenant_id: TenantId, monkeypatch
) -> None:
    """It runs for many times as long as a dead one is waited for, and the repeated request is not executed."""
    monkeypatch.setattr(operation, "BEAT_EVERY_S", 0.1)
    monkeypatch.setattr(idempotency, "TAKE_OVER_AFTER", timedelta(seconds=1))
    goes_on, start, calls = threading.Event(), routes.RunRepository.start, []

    def slow(*args, **fields):
        calls.append(args)
        goes_on.wait(30)
        return start(*args, **fields)

    monkeypatch.setattr(routes.RunRepository, "start", slow)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(send, tenant, "POST", "/runs", json={"model_id": "m"})
        wait_until(lambda: calls)
        with superuser(db) as session:
            age = "SELECT now() - created_at FROM mlcore.idempotency_keys WHERE tenant_id = %s"
            while session.execute(age, (str(tenant_id),)).fetchone()[0] < timedelta(seconds=3):
                again = send(tenant, "POST", "/runs", json={"model_id": "m"})
                assert "still running" in again.json()["error"]["message"]
        goes_on.set()
        assert first.result().status_code == 201
    assert len(calls) == 1


def test_a_request_whose_process_died_is_taken_over(
    db: DatabaseConnection, tenant: httpx.Client, tenant_id: TenantId
) -> None:
    """A minute after its last sign of life the repeated request is executed, and its answer is kept."""
    died = "UPDATE mlcore.idempotency_keys SET status = NULL, response = NULL, alive_at = alive_at - %s::interval"
    send(tenant, "POST", "/runs", json={"model_id": "m"})
    with superuser(db) as session:
        session.execute(f"{died} WHERE tenant_id = %s", ("40 seconds", str(tenant_id)))
    running = send(tenant, "POST", "/runs", json={"model_id": "m"})
    assert (running.status_code, "still running" in running.json()["error"]["message"]) == (409, True)
    with superuser(db) as session:
        session.execute(f"{died} WHERE tenant_id = %s", ("30 seconds", str(tenant_id)))
    taken_over, again = (send(tenant, "POST", "/runs", json={"model_id": "m"}) for _ in range(2))
    assert (taken_over.status_code, is_repeated(taken_over)) == (201, False)
    assert (again.json(), is_repeated(again)) == (taken_over.json(), True)
    assert len(tenant.get("/runs").json()["items"]) == 2
