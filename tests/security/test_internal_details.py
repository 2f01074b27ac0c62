"""What only the operator may see: every operation, with each kind of fault in what the platform runs on.

A tenant's answer names no path, host, bucket or address of the platform. The operator has it in the log, and in the
answer to a key of the platform.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from ml_core.api.access import Services
from ml_core.api.app import PREFIX, create_app
from ml_core.client.inprocess import InProcessTransport
from ml_core.database.connection import DatabaseConnection
from ml_core.domain.api_key import Scope
from ml_core.ids import TenantId
from ml_core.models.formats import skops_format
from ml_core.registry.keys import KeyRepository
from ml_core.registry.platform_keys import PlatformKeyRepository
from ml_core.registry.runs import RunRepository
from ml_core.settings import Settings
from support.fitted import linear
from support.operations import operations, request_of

BUCKET = {
    "MLCORE_ARTIFACTS_URL": "s3://hidden-bucket/prefix",
    "MLCORE_ARTIFACTS_ENDPOINT": "http://127.0.0.1:9",
    "MLCORE_ARTIFACTS_TIMEOUT_S": "0.2",
    "AWS_EC2_METADATA_DISABLED": "true",
}
Send = Callable[..., httpx.Response]


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A home whose path no answer to a tenant may have in it."""
    with tempfile.TemporaryDirectory(prefix="hidden-home-") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def settings(db: DatabaseConnection, home: Path) -> dict[str, str]:
    return {**db.environment, "MLCORE_HOME": str(home), "MLCORE_DATABASE_CONNECT_TIMEOUT_S": "1"}


@contextmanager
def sending(environment: dict[str, str]) -> Iterator[Send]:
    """Sends requests to a control API with these settings."""
    with (
        DatabaseConnection(settings=Settings.from_environment(environment)) as own,
        httpx.Client(transport=InProcessTransport(create_app(Services(own)), PREFIX), timeout=60) as client,
    ):

        def send(request: httpx.Request, key: str) -> httpx.Response:
            request.headers["authorization"] = f"Bearer {key}"
            return client.send(request)

        yield send


@pytest.fixture
def keys(db: DatabaseConnection, tenant_id: TenantId) -> dict[str, str]:
    """An admin of the tenant, and an operator of the platform."""
    admin = KeyRepository(db, tenant_id).create("admin", [Scope.ADMIN])
    return {"tenant": str(admin), "platform": str(PlatformKeyRepository(db).create("operator", ["admin"]))}


@pytest.fixture
def names(settings: dict[str, str], keys: dict[str, str], tenant_id: TenantId) -> dict[str, Any]:
    """What there is to name in a path: a dataset, a model's version that is served, a run and its file."""
    found: dict[str, Any] = {
        "tenant": str(tenant_id),
        "dataset": "d",
        "model": "m",
        "version": "1",
        "number": 1,
        "name": "f",
        "target": "b",
    }
    content = skops_format.dump(linear().pipeline)
    with sending(settings) as send:

        def create(operation: str, **extra: Any) -> Any:
            method, path, described = next(each for each in operations() if each[2]["operationId"] == operation)
            answer = send(request_of(method, path, described, **{**found, **extra}), keys["tenant"])
            assert answer.status_code < 300, answer.text
            return answer.json()

        create("datasets.create", content=b"a,b\n" + b"1,x\n2,y\n" * 20)
        create("versions.register", content=content)
        create("environments.promote", environment="production")
        found["run"] = create("runs.start", model_id="m")["run_id"]
        create("runs.log_file", content=b"x")
    return {**found, "environment": "production"}


@contextmanager
def damaged(home: Path, change: Callable[[Path], None]) -> Iterator[None]:
    """The home, changed until the block ends."""
    copy = home.with_name(f"{home.name}-copy")
    shutil.copytree(home, copy)
    try:
        change(home)
        yield
    finally:
        shutil.rmtree(home)
        copy.rename(home)


def replace_by_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("")


def change_bytes(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            path.write_bytes(b"\0" * path.stat().st_size)


FAULTS: dict[str, Callable[[Path], None]] = {
    "the store is no folder": lambda home: replace_by_file(home / "artifacts"),
    "artifacts are missing": lambda home: shutil.rmtree(home / "artifacts"),
    "artifacts were changed": lambda home: change_bytes(home / "artifacts"),
    "uploads have no folder": lambda home: replace_by_file(home / "uploads"),
}


def answers(send: Send, key: str, names: dict[str, Any]) -> Iterator[tuple[str, httpx.Response]]:
    """The answer of each operation; deletions come last, so that the others find what they name."""
    for method, path, described in sorted(operations(), key=lambda each: each[0] == "delete"):
        operation = described["operationId"]
        if operation in ("tenants.delete", "keys.revoke", "platform_keys.revoke"):
            continue
        if operation.startswith("events."):  # a stream has no end; its errors are those of authentication
            continue
        content = b"a,b\n1,x\n" if operation.startswith("datasets") else skops_format.dump(linear().pipeline) + b"\0"
        yield operation, send(request_of(method, path, described, content=content, **names), key)


def check(
    send: Send, keys: dict[str, str], names: dict[str, Any], hidden: tuple[str, ...], log: pytest.LogCaptureFixture
) -> set[str]:
    """Hold the answers of all operations against what is hidden; the operations that failed for it."""
    log.set_level(logging.WARNING)
    failed = set()
    for operation, answer in answers(send, keys["tenant"], names):
        shown = f"{answer.headers} {answer.text}"
        assert not [each for each in hidden if each in shown], (operation, answer.text)
        if answer.status_code >= 500:
            failed.add(operation)
            assert answer.json()["error"]["request_id"] in log.text, (operation, answer.text)
    return failed


@pytest.mark.parametrize("fault", FAULTS)
def test_no_answer_to_a_tenant_names_a_place_of_the_store(
    settings: dict[str, str],
    keys: dict[str, str],
    names: dict[str, Any],
    home: Path,
    caplog: pytest.LogCaptureFixture,
    fault: str,
) -> None:
    """Nor the temporary folder; and the log has it, under the request's id."""
    with sending(settings) as send, damaged(home, FAULTS[fault]):
        assert check(send, keys, names, (str(home), "hidden-home"), caplog)
        assert str(home) in caplog.text


def test_no_answer_to_a_tenant_names_the_temporary_folder(
    settings: dict[str, str],
    keys: dict[str, str],
    names: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Where the files of tables and forms are made."""
    monkeypatch.setattr(tempfile, "tempdir", "/hidden-home/nowhere")
    with sending(settings) as send:
        assert "datasets.create" in check(send, keys, names, ("/hidden-home",), caplog)
    assert "/hidden-home/nowhere" in caplog.text


def test_no_answer_to_a_tenant_names_the_bucket(
    settings: dict[str, str],
    keys: dict[str, str],
    names: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nor the address of its server."""
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with sending({**settings, **BUCKET}) as send:
        assert check(send, keys, names, ("hidden-bucket", "127.0.0.1:9", "s3://"), caplog)
    assert "hidden-bucket" in caplog.text


def test_no_answer_to_a_tenant_names_the_database(
    settings: dict[str, str], keys: dict[str, str], names: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """While it can't be reached."""
    url = "postgresql://hidden-user@127.0.0.1:9/hidden-database"
    away = {**settings, "MLCORE_DATABASE_URL": url, "MLCORE_DATABASE_INGEST_URL": url}
    with sending(away) as send:
        assert check(send, keys, names, ("hidden", "127.0.0.1", ":9"), caplog)
    assert "hidden-database" in caplog.text


def test_the_operator_sees_it(
    settings: dict[str, str], keys: dict[str, str], names: dict[str, Any], home: Path
) -> None:
    """With a key of the platform, over HTTP."""
    with sending(settings) as send, damaged(home, FAULTS["artifacts are missing"]):
        found = [answer.text for _, answer in answers(send, keys["platform"], names) if answer.status_code >= 500]
    assert any(str(home) in text for text in found)


def test_a_failed_run_names_no_place(
    db: DatabaseConnection, tenant_id: TenantId, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its error stays; the log has the whole."""
    runs = RunRepository(db, tenant_id)
    for error in (
        OSError(28, "No space left on device", str(home)),
        ValueError(f"can't open {home}/x"),
        KeyError("_x"),
    ):
        with pytest.raises(type(error)), runs.record("m") as run_id:
            raise error
        kept = runs.get(run_id).error
        assert kept is not None
        assert kept.startswith(f"{type(error).__name__}. Report the id")
        assert str(home) not in kept
    assert str(home) in caplog.text
