"""Values that no program sends by itself: refused in the one shape, without a word about the server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ml_core.api.access import Services
from ml_core.api.app import create_app
from ml_core.database.connection import DatabaseConnection
from ml_core.domain.api_key import Scope
from ml_core.ids import TenantId
from ml_core.registry.jobs import JobRepository
from ml_core.registry.keys import KeyRepository
from ml_core.registry.runs import RunRepository
from support.filled import fill
from support.http_server import mounted, served
from support.operations import operations, request_of
from support.registry import TICKETS, new_tenant

_EDGE_OF_TIME = "0001-01-01T00:00:00+14:00"
_MOVE = "/models/m/environments/production/rollback"


@pytest.fixture(scope="module")
def tenant(db: DatabaseConnection) -> Iterator[httpx.Client]:
    """A client that acts as an admin of a tenant."""
    name = new_tenant(db)
    key = str(KeyRepository(db, name).create("admin", [Scope.ADMIN]))
    with (
        served(mounted(create_app(Services(db)))) as port,
        httpx.Client(
            base_url=f"http://127.0.0.1:{port}/api/v1/tenants/{name}",
            headers={"authorization": f"Bearer {key}"},
            trust_env=False,
        ) as client,
    ):
        yield client


def check_refused(response: httpx.Response, *statuses: int) -> str:
    """The message, after a look at status and shape."""
    error = response.json()["error"]
    assert response.status_code in statuses, response.text
    assert error["request_id"] == response.headers["x-request-id"]
    return str(error["message"])


@pytest.mark.parametrize("value", [b"\xb2", b'"\xb2"', b"9" * 30, b"9" * 5000, b"-1", b'W/"x"', b"*"])
def test_if_match_names_a_generation(tenant: httpx.Client, value: bytes) -> None:
    """Digits of other scripts, and more of them than a generation has, do not."""
    key = tenant.headers["authorization"].encode()
    headers = [(b"authorization", key), (b"if-match", value)]
    assert "If-Match" in check_refused(tenant.post(_MOVE, json={}, headers=headers), 400)


@pytest.mark.parametrize("generation", [2**63, 10**30, -(10**30)])
def test_a_generation_of_any_size_is_answered(tenant: httpx.Client, generation: int) -> None:
    """JSON has integers of any length; the answer repeats this one."""
    message = check_refused(tenant.post(_MOVE, json={"expected_generation": generation}), 409)
    assert str(generation) in message


def test_half_a_surrogate_pair_is_no_name(tenant: httpx.Client) -> None:
    """It can be written in JSON, and not in UTF-8."""
    refused = tenant.post("/runs", content=b'{"model_id": "\\ud800"}', headers={"content-type": "application/json"})
    assert "is not a valid model name" in check_refused(refused, 400)


@pytest.mark.parametrize("path", ["/runs", "/predictions", "/audit"])
@pytest.mark.parametrize("field", ["since", "until"])
def test_a_moment_is_within_the_calendar(tenant: httpx.Client, path: str, field: str) -> None:
    """In UTC this one is of the year before the first."""
    assert "out of range" in check_refused(tenant.get(path, params={field: _EDGE_OF_TIME}), 400)


def test_a_label_is_of_a_moment_within_the_calendar(tenant: httpx.Client) -> None:
    """As a filter is."""
    label = {"model_id": "m", "label": "a", "at": _EDGE_OF_TIME}
    check_refused(tenant.post("/predictions/r1/labels", json=label), 400, 404)


@pytest.mark.parametrize("encoding", ["\0", "utf-8\0", "../x", "é"])
def test_an_encoding_is_a_name(tenant: httpx.Client, encoding: str) -> None:
    """Before the file is read."""
    refused = tenant.post(
        "/datasets/d/versions", params={"encoding": encoding}, content=b"a\n1\n", headers={"content-type": "text/csv"}
    )
    assert "encoding" in check_refused(refused, 400)


@pytest.mark.parametrize(
    ("kind", "content", "encoding"),
    [
        ("text/csv", b"a\n\xff\n", "utf-8"),
        ("text/csv", b"a\n1\n", "utf-16"),
        ("text/csv", b"", "utf-8"),
        ("text/csv", b"\x1f\x8bnot gzip", "utf-8"),
        ("application/vnd.apache.parquet", b"PAR1not parquet", "utf-8"),
        ("application/vnd.apache.parquet", b"", "utf-8"),
    ],
)
def test_a_message_names_no_file_of_the_server(
    tenant: httpx.Client, embedded_home: Path, kind: str, content: bytes, encoding: str
) -> None:
    """What was uploaded is the file."""
    refused = tenant.post(
        "/datasets/d/versions", params={"encoding": encoding}, content=content, headers={"content-type": kind}
    )
    assert check_refused(refused, 422).startswith(("The file is", "upload."))
    for part in (str(embedded_home), "uploads", "/tmp"):
        assert part not in refused.text


def test_the_name_of_a_file_of_the_server_is_not_recorded(tenant: httpx.Client) -> None:
    """A client says where an upload came from, or nobody."""
    made = tenant.post("/datasets/d/versions", content=b"a\n1\n", headers={"content-type": "text/csv"})
    assert made.json()["source"] == {"kind": "csv", "file": "upload.csv"}


@pytest.mark.parametrize("content", [b"x", b"PK\x03\x04broken", b"\x80\x04pickle"])
def test_an_artifact_that_is_none_is_the_callers_mistake(tenant: httpx.Client, content: bytes) -> None:
    """It would be refused again, so nobody is asked to try it again."""
    refused = tenant.post("/models/m/versions", files={"artifact": ("m.skops", content)})
    assert check_refused(refused, 422)
    assert "retry-after" not in refused.headers


def _numbers() -> Iterator[Any]:
    """Each operation with each integer of its path or query. A stream has no end; ``test_events.py`` reads it."""
    for method, path, described in operations():
        if path.endswith("/events"):
            continue
        for parameter in described.get("parameters", ()):
            kinds = parameter["schema"].get("anyOf", [parameter["schema"]])
            if parameter["in"] in ("path", "query") and any(kind.get("type") == "integer" for kind in kinds):
                yield pytest.param(
                    method, path, described, parameter, id=f"{described['operationId']}-{parameter['name']}"
                )


@pytest.fixture(scope="module")
def named(db: DatabaseConnection, tenant: httpx.Client) -> dict[str, str]:
    """A tenant with a row of everything, so that an operation gets past the names to the number."""
    tenant_id = TenantId(tenant.base_url.path.strip("/").rpartition("/")[2])
    fill(db, tenant_id)
    run = RunRepository(db, tenant_id).search().items[0].run_id
    job = JobRepository(db, tenant_id).list().items[0].job_id
    return {"tenant": tenant_id, "model": TICKETS, "run": run, "job": job, "dataset": "d", "metric": "loss"}


@pytest.mark.parametrize(("method", "path", "described", "parameter"), list(_numbers()))
def test_a_number_of_any_size_is_the_callers(
    tenant: httpx.Client, named: dict[str, str], method: str, path: str, described: Any, parameter: Any
) -> None:
    """However many bytes the registry has for it: the answer is an empty page, or says what is wrong."""
    for value in (2**31 - 1, 2**31, 2**63 - 1, 2**63, 10**30):
        number = {parameter["name"]: value}
        request = request_of(method, path, described, **(named | number))
        query = {**request.url.params} | (number if parameter["in"] == "query" else {})
        answered = tenant.request(method, tenant.base_url.copy_with(path=request.url.path), params=query)
        assert answered.status_code < 500, answered.text
