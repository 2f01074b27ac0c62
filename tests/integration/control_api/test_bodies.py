"""Bodies that are malformed, too large, too slow, cut off, or more than the disk holds: never a 5xx but 507."""

from __future__ import annotations

import errno
import gzip
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from ml_core.api import bodies, operation
from ml_core.api.access import FILES_AT_ONCE
from ml_core.exceptions import RequestTooLargeError, StorageFullError, UnsafeArtifactError
from ml_core.registry.authentication import Authentication
from ml_core.registry.datasets import DatasetRepository
from ml_core.registry.keys import KeyRepository
from support.waiting import wait_until

CSV = {"content-type": "text/csv"}
JSON = {"content-type": "application/json"}


@pytest.fixture
def http(address, admin_key, tenant_id):
    """Requests of the tenant's admin."""
    headers = {"authorization": f"Bearer {admin_key}"}
    root = f"{address}/api/v1/tenants/{tenant_id}"
    with httpx.Client(base_url=root, headers=headers, trust_env=False, timeout=60) as client:
        yield client


@pytest.fixture
def uploads(db) -> Path:
    """Where uploaded files are while they are worked on."""
    return db.settings.platform.home / "uploads"


def error_of(response, status):
    assert response.status_code == status, response.text
    return response.json()["error"]


def left_in(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.exists() else []


def test_json_over_the_limit_is_refused(http):
    """5 MiB; the client gets to read why."""
    body = json.dumps({"model_id": "m", "parameters": {"text": "x" * 5 * 2**20}})
    error = error_of(http.post("/runs", content=body, headers=JSON), 413)
    assert error["code"] == "too_large"
    assert error["details"]["limit"] == bodies.MAX_JSON_BYTES


def test_compressed_json_is_read(http):
    """As the prediction plane does: gzip and deflate, bounded by what it unpacks to."""
    body = json.dumps({"model_id": "m", "tags": {"packed": "yes"}}).encode()
    started = http.post("/runs", content=gzip.compress(body), headers={**JSON, "content-encoding": "gzip"})
    assert started.json()["tags"] == {"packed": "yes"}
    bomb = gzip.compress(b'{"model_id": "' + b"x" * 2**23 + b'"}')
    error_of(http.post("/runs", content=bomb, headers={**JSON, "content-encoding": "gzip"}), 413)
    for encoding, sent in (("br", body), ("gzip", body[:5])):
        refused = http.post("/runs", content=sent, headers={**JSON, "content-encoding": encoding})
        assert refused.status_code in (400, 415)
        assert refused.json()["error"]["details"]["field"] in ("content-encoding", "body")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ('{"model_id": "m", "parameters": {"a": [1, NaN]}}', "parameters.a[1]"),
        ('{"model_id": "m", "parameters": {"a": -Infinity}}', "parameters.a"),
        ('{"model_id": "m", "parameters": {"a": 1e999}}', "parameters.a"),
        ('{"model_id": "m", "parameters": {"a": 99999999999999999999}}', "parameters.a"),
        ('{"model_id": "m", "parameters": {"a": "\\u0000"}}', "parameters.a"),
        ('{"model_id": "m", "parameters": {"a": "\\ud800"}}', "parameters.a"),
        ('{"model_id": "m", "parameters": ' + '{"a": ' * 200 + "1" + "}" * 201, None),
        ('{"model_id": "m", "parameters": ' + "[" * 100_000, "body"),
        ('{"model_id": "m", "parameters": {"a": ' + "9" * 10_000 + "}}", "body"),
        ('{"model_id": 7}', "model_id"),
        ('{"model_id": "m", "kid": "train"}', "kid"),
        ('{"model_id": "\\u0000"}', None),
        ('{"model_id": "m", "tags": {"a": "\\ud800"}}', None),
        ("[1, 2]", None),
        ('"text"', None),
        ("{", "body"),
        (b"\xff\xfe{}", "body"),
        ("", "body"),
    ],
)
def test_json_that_can_not_be_used_is_refused(http, body, field):
    """With the path of the field; nothing is written."""
    error = error_of(http.post("/runs", content=body, headers=JSON), 400)
    assert error["code"] in ("invalid_request", "invalid_name")
    assert field is None or error["details"]["field"] == field
    assert http.get("/runs").json()["items"] == []


def test_the_last_of_two_equal_keys_counts(http):
    """As in every JSON parser; it is no failure."""
    started = http.post("/runs", content='{"model_id": "a", "model_id": "b"}', headers=JSON)
    assert started.json()["model_id"] == "b"


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "", "multipart/form-data"])
def test_a_body_of_another_type_is_refused(http, kind):
    """Each operation says which it takes."""
    for path, content in (
        ("/runs", b'{"model_id": "m"}'),
        ("/datasets/d/versions", b"a\n1\n"),
        ("/models/m/versions", b"x"),
    ):
        error = error_of(http.post(path, content=content, headers={"content-type": kind}), 400)
        assert error["details"]["field"] in ("content-type", "body")
        assert error["message"]


def test_methods_and_paths_that_are_none(http, address):
    """HEAD and OPTIONS are no operations; an encoded slash and letters of other scripts are no names."""
    for method in ("HEAD", "OPTIONS", "TRACE", "DELETE"):
        assert http.request(method, "/models").status_code == 405
    assert "/api/docs" in error_of(http.get("/modles"), 404)["message"]
    for name in ("a%2Fb", "..%2f..", "%00", "%ff", "modèle", "模型", "a" * 5000):
        for response in (http.get(f"/models/{name}/versions"), http.post(f"/models/{name}/archive")):
            assert 400 <= response.status_code < 500, (name, response.text)
            assert response.json()["error"]["request_id"]
    assert httpx.get(f"{address}/api/v1/tenants/%2e%2e/models", trust_env=False).status_code == 401


def test_a_body_that_does_not_come_is_waited_for_only_so_long(http, address, admin_key, tenant_id, monkeypatch):
    """408, and others are served meanwhile."""
    monkeypatch.setattr(bodies, "_BODY_WITHIN_S", 0.3)
    monkeypatch.setattr(bodies, "_PART_WITHIN_S", 0.3)
    for path, kind in (("runs", "application/json"), ("datasets/d/versions", "text/csv")):
        with raw(address, admin_key, f"/api/v1/tenants/{tenant_id}/{path}", kind, 100) as connection:
            connection.sendall(b"{")
            assert http.get("/models").status_code == 200
            assert b" 408 " in connection.recv(100)
    assert http.get("/datasets").json()["items"] == []


def test_an_upload_that_drips_is_ended(http, app, address, admin_key, tenant_id, uploads, monkeypatch):
    """A byte now and then is not enough: 408 says what is, and the place for a request is free again."""
    monkeypatch.setattr(bodies, "_PART_WITHIN_S", 1.0)
    monkeypatch.setattr(bodies, "_PART_BYTES", 100)
    path, answer = f"/api/v1/tenants/{tenant_id}/datasets/d/versions", b""
    with raw(address, admin_key, path, "text/csv", 10_000) as connection:
        connection.sendall(b"a,b\n" * 50)  # two parts at once earn no time for later
        connection.settimeout(0.1)
        for _ in range(100):
            connection.sendall(b"1")
            try:
                answer = connection.recv(2000)
                break
            except TimeoutError:
                continue
    assert b" 408 " in answer
    assert b"The next 100 bytes of the body did not arrive within 1 s. Send it over a faster connection" in answer
    assert left_in(uploads) == []
    assert http.get("/datasets").json()["items"] == []


def test_a_slow_server_is_not_the_clients_fault(http, uploads, monkeypatch):
    """Only time in which the server waits for the client counts."""
    monkeypatch.setattr(bodies, "_PART_WITHIN_S", 0.5)
    monkeypatch.setattr(bodies, "_PART_BYTES", 10**6)
    write, is_written = bodies.run_in_threadpool, threading.Event()

    async def slowly(function, *args):
        if getattr(function, "__name__", "") == "write":
            await write(is_written.wait, 0.2)
        return await write(function, *args)

    monkeypatch.setattr(bodies, "run_in_threadpool", slowly)
    rows = (b"1,2\n" * 100 for _ in range(5))
    content = (piece for part in ([b"a,b\n"], rows) for piece in part)
    assert http.post("/datasets/d/versions", content=content, headers=CSV).status_code == 201
    assert left_in(uploads) == []


def raw(address, key, path, kind, length):
    """A connection on which a request has begun."""
    url = httpx.URL(address)
    connection = socket.create_connection((url.host, url.port), timeout=10)
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-type: {kind}\r\n"
    connection.sendall(f"{head}content-length: {length}\r\n\r\n".encode())
    return connection


def test_an_upload_that_is_cut_off_leaves_nothing(http, address, admin_key, tenant_id, uploads):
    """No dataset, and no file."""
    with raw(address, admin_key, f"/api/v1/tenants/{tenant_id}/datasets/d/versions", "text/csv", 1000) as connection:
        connection.sendall(b"a,b\n1,2\n")
        wait_until(lambda: left_in(uploads))
    wait_until(lambda: not left_in(uploads))
    assert http.get("/datasets").json()["items"] == []


@pytest.mark.parametrize("is_declared", [True, False])
def test_an_upload_over_the_limit_is_refused(http, db, uploads, monkeypatch, is_declared):
    """Before its first byte where it says its size; else at the limit."""
    object.__setattr__(db.settings.api, "max_upload_bytes", 2**20)
    try:
        for path, headers in (("/datasets/d/versions", CSV), ("/models/m/versions", form_headers())):
            content = b"x" * 2 * 2**20 if is_declared else (b"x" * 2**16 for _ in range(32))
            if path.startswith("/models"):
                content = form(b"x" * 2 * 2**20) if is_declared else iter([form(b"x" * 2 * 2**20)])
            error = error_of(http.post(path, content=content, headers=headers), 413)
            assert error["details"]["limit"] == 2**20
    finally:
        object.__setattr__(db.settings.api, "max_upload_bytes", 64 * 2**30)
    assert left_in(uploads) == []


def form_headers():
    return {"content-type": "multipart/form-data; boundary=b"}


def form(artifact):
    head = b'--b\r\ncontent-disposition: form-data; name="artifact"; filename="a"\r\n\r\n'
    return head + artifact + b"\r\n--b--\r\n"


def test_a_full_disk_keeps_nothing(http, uploads, monkeypatch):
    """Known before or found while it is written: 507, and the file is gone."""
    usage = shutil.disk_usage(uploads.parent)
    with monkeypatch.context() as patch:
        patch.setattr(bodies.shutil, "disk_usage", lambda _: usage._replace(free=3))
        error = error_of(http.post("/datasets/d/versions", content=b"a\n1\n2\n", headers=CSV), 507)
    assert error["code"] == "storage_full"
    open_file = os.fdopen

    def full(descriptor, *args):
        file = open_file(descriptor, *args)

        class Full:
            def __enter__(self):
                return self

            def __exit__(self, *_):
                file.close()

            def fileno(self):
                return file.fileno()

            def write(self, _):
                raise OSError(errno.ENOSPC, "No space left on device")

        return Full()

    with monkeypatch.context() as patch:
        patch.setattr(bodies.os, "fdopen", full)
        error_of(http.post("/datasets/d/versions", content=b"a\n1\n", headers=CSV), 507)
    assert left_in(uploads) == []
    assert http.get("/datasets").json()["items"] == []


def test_a_full_disk_is_its_own_error_at_the_client(client, uploads, tmp_path, monkeypatch):
    """So that a program can wait for room."""
    uploads.mkdir(exist_ok=True)
    usage = shutil.disk_usage(uploads)
    monkeypatch.setattr(bodies.shutil, "disk_usage", lambda _: usage._replace(free=3))
    (tmp_path / "d.csv").write_text("a\n1\n2\n")
    with pytest.raises(StorageFullError):
        client.datasets.create("d", tmp_path / "d.csv")


def test_what_a_killed_process_left_is_removed(http, uploads):
    """With the next upload; not the file of another process that still works on it."""
    uploads.mkdir(exist_ok=True)
    abandoned, held, young = uploads / "tmpabandoned.csv", uploads / "tmpheld.csv", uploads / "tmpyoung.csv"
    for path in (abandoned, held, young):
        path.write_text("a\n1\n")
    hour_ago = time.time() - 3600
    for path in (abandoned, held):
        os.utime(path, (hour_ago, hour_ago))
    hold = (
        "import fcntl, sys; f = open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); sys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    try:
        with subprocess.Popen([sys.executable, "-c", hold, held], **pipes) as holder:
            holder.stdout.readline()
            assert http.post("/datasets/d/versions", content=b"a\n1\n", headers=CSV).status_code == 201
            assert sorted(left_in(uploads)) == [held, young]
    finally:
        for path in left_in(uploads):
            path.unlink()


def test_a_form_that_is_none_is_refused(http):
    """Each with what is wrong with it."""
    for content, headers in (
        (b"", {"content-type": "multipart/form-data"}),
        (b"garbage", form_headers()),
        (form(b"x")[:-4], form_headers()),
        (b'--b\r\ncontent-disposition: form-data; name="version"\r\n\r\n{}\r\n--b--\r\n', form_headers()),
        (form(b"x").replace(b"--b--\r\n", b"") + form(b"y"), form_headers()),
    ):
        assert error_of(http.post("/models/m/versions", content=content, headers=headers), 400)["details"]["field"]


def test_an_artifact_may_be_larger_than_json(client, tmp_path):
    """It has the bound of an upload: 8 MiB arrive, and are judged by what they hold."""
    path = tmp_path / "model.skops"
    path.write_bytes(b"x" * 8 * 2**20)
    with pytest.raises(UnsafeArtifactError):
        client.versions.register("m", path)


def test_an_artifact_over_the_limit_is_refused(client, db, tmp_path):
    """By its class."""
    path = tmp_path / "model.skops"
    path.write_bytes(b"x" * 2**21)
    object.__setattr__(db.settings.api, "max_upload_bytes", 2**20)
    try:
        with pytest.raises(RequestTooLargeError):
            client.versions.register("m", path)
    finally:
        object.__setattr__(db.settings.api, "max_upload_bytes", 64 * 2**30)


_FORM = (
    b'--b\r\ncontent-disposition: form-data; name="artifact"; filename="m.skops"\r\n\r\n',
    b"x\r\n--b--\r\n",
)
_JSON = "application/json"


@pytest.mark.parametrize(
    ("path", "content_type", "body"),
    [
        pytest.param("/datasets/late/versions", "text/csv", (b"a\n", b"1\n"), id="file"),
        pytest.param("/models/late/versions", "multipart/form-data; boundary=b", _FORM, id="form"),
        pytest.param("/runs", _JSON, (b'{"model_id":', b'"late"}'), id="json"),
        pytest.param("/keys", _JSON, (b'{"name":"late",', b'"scopes":["admin"]}'), id="key"),
    ],
)
def test_a_key_that_is_revoked_while_a_body_arrives_changes_nothing(
    http, db, tenant_id, uploads, monkeypatch, path, content_type, body
):
    """A file may take hours, and JSON half a minute. A key that is to make another is looked at again in any case."""
    keys = KeyRepository(db, tenant_id)
    key = keys.create("program", ["admin"])
    authenticated, authenticate = threading.Event(), Authentication.authenticate

    def spied(*args):
        found = authenticate(*args)
        authenticated.set()
        return found

    monkeypatch.setattr(Authentication, "authenticate", spied)
    if path != "/keys":
        monkeypatch.setattr(operation, "REMEMBERED_S", 0.0)
    before = [each.key_id for each in keys.list().items]

    def pieces():
        yield body[0]
        assert authenticated.wait(10)
        keys.revoke(key.key_id)
        yield body[1]

    headers = {"authorization": f"Bearer {key}", "content-type": content_type}
    error = error_of(http.post(path, content=pieces(), headers=headers), 401)
    assert error["code"] == "unauthenticated"
    assert http.get("/datasets").json()["items"] == http.get("/runs").json()["items"] == []
    assert [each.key_id for each in keys.list().items] == before
    assert left_in(uploads) == []


def test_ranges_of_a_download(http):
    """A range that the file has is answered as RFC 9110 says, any other in the one shape of errors."""
    assert http.post("/datasets/d/versions", content=b"a\n1\n", headers=CSV).status_code == 201
    path = "/datasets/d/versions/1/content"
    whole = http.get(path).content
    part = http.get(path, headers={"range": "bytes=0-3"})
    assert (part.status_code, part.content) == (206, whole[:4])
    for unreadable in ("x", "bytes=5-1", "rows=1-2"):
        error = error_of(http.get(path, headers={"range": unreadable}), 400)
        assert error["details"]["field"] == "range"
    beyond = http.get(path, headers={"range": "bytes=99999-"})
    error_of(beyond, 416)
    assert beyond.headers["content-range"] == f"bytes */{len(whole)}"


def test_files_that_take_long_leave_threads_to_others(http, uploads, monkeypatch):
    """A few hundred kilobytes of Parquet hold a hundred million rows: of such files only some are worked on at once."""
    goes_on, began = threading.Event(), []
    from_file = DatasetRepository.from_file

    def slow(*args, **fields):
        began.append(1)
        goes_on.wait(30)
        return from_file(*args, **fields)

    monkeypatch.setattr(DatasetRepository, "from_file", slow)
    count = FILES_AT_ONCE + 44  # more than there are threads
    with ThreadPoolExecutor(count) as pool:
        paths = [f"/datasets/d{n}/versions" for n in range(count)]
        answers = [pool.submit(httpx.Client.post, http, path, content=b"a\n1\n", headers=CSV) for path in paths]
        try:
            wait_until(lambda: sum(path.stat().st_size > 0 for path in left_in(uploads)) == count)
            assert http.get("/models", timeout=10).status_code == 200
            assert len(began) == FILES_AT_ONCE
        finally:
            goes_on.set()
        assert {answer.result().status_code for answer in answers} == {201}
