"""One process of the control API does only so much at a time, and answers in time whatever happens."""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import anyio.to_thread
import httpx
import pytest
from fastapi import Request

from ml_core.api import bounds
from ml_core.api.access import Services
from ml_core.api.app import create_app
from support.http_server import mounted, served
from support.waiting import wait_until


class Slow:
    """What the routes of these tests wait for, and what became of them."""

    def __init__(self):
        self.release = threading.Event()
        self.began = self.ended = 0
        self.was_cancelled = threading.Event()


@pytest.fixture
def slow():
    state = Slow()
    yield state
    state.release.set()


@pytest.fixture
def url(db, slow, monkeypatch):
    """The address of an application with routes that take as long as the test wants."""
    monkeypatch.setattr(bounds, "MAX_IN_FLIGHT", 20)
    app = create_app(Services(db))

    @app.get("/v1/tenants/{tenant}/slow")
    def in_thread(tenant: str) -> str:
        slow.began += 1
        slow.release.wait(20)
        slow.ended += 1
        return tenant

    @app.get("/waits")
    async def waits() -> None:
        try:
            await anyio.sleep(20)
        finally:
            slow.was_cancelled.set()

    @app.get("/fails")
    def fails() -> None:
        raise RuntimeError("what the client must not see")

    @app.post("/upload")
    async def upload(request: Request) -> int:
        anyio.to_thread.current_default_thread_limiter().total_tokens = 2
        return sum([len(piece) async for piece in request.stream()])

    with served(mounted(app)) as port:
        yield f"http://127.0.0.1:{port}/api"


def get(address, **headers):
    return httpx.get(address, headers={name.replace("_", "-"): value for name, value in headers.items()}, timeout=30)


def error_of(response):
    """The error, after a look at the shape."""
    error = response.json()["error"]
    assert set(error) == {"code", "message", "details", "request_id"}
    assert response.headers["x-request-id"] == error["request_id"]
    return error


def test_one_tenant_takes_half_of_it_at_most(url, slow):
    """What is over its share is refused at once; other tenants, and the liveness, are answered."""
    with ThreadPoolExecutor(30) as pool:
        answers = [pool.submit(get, f"{url}/v1/tenants/acme/slow") for _ in range(14)]
        wait_until(lambda: sum(each.done() for each in answers) == 4)
        refused = [each.result() for each in answers if each.done()]
        assert get(f"{url}/healthz").status_code == 200
        slow.release.set()
        assert get(f"{url}/v1/tenants/globex/slow").status_code == 200
        statuses = Counter(each.result().status_code for each in answers)
    assert statuses == {200: 10, 429: 4}
    assert {each.headers["retry-after"] for each in refused} == {"1"}
    assert error_of(refused[0])["code"] == "queue_full"
    assert get(f"{url}/v1/tenants/acme/slow").status_code == 200, "what is over makes room"


def test_a_deadline_is_kept_while_threads_are_taken(url, slow):
    """What waits for a thread is dropped; what has begun goes on to its end."""
    httpx.post(f"{url}/upload")  # two threads from here on
    with ThreadPoolExecutor(10) as pool:
        begun = [pool.submit(get, f"{url}/v1/tenants/acme/slow") for _ in range(2)]
        wait_until(lambda: slow.began == 2)
        started = time.monotonic()
        late = get(f"{url}/v1/tenants/acme/slow", x_request_timeout_ms="300")
        assert time.monotonic() - started < 2
        slow.release.set()
        assert [each.result().status_code for each in begun] == [200, 200]
    assert late.status_code == 504
    assert error_of(late)["code"] == "deadline_exceeded"
    assert slow.ended == slow.began == 2


def test_asynchronous_work_ends_at_the_deadline(url, slow):
    """It is cancelled."""
    assert get(f"{url}/waits", x_request_timeout_ms="200").status_code == 504
    assert slow.was_cancelled.wait(5)


def test_a_body_takes_as_long_as_it_does(url):
    """The deadline is counted from its last byte."""

    def pieces():
        for _ in range(5):
            time.sleep(0.1)
            yield b"x" * 1000

    answer = httpx.post(f"{url}/upload", content=pieces(), headers={"x-request-timeout-ms": "200"})
    assert (answer.status_code, answer.json()) == (200, 5000)


@pytest.mark.parametrize("value", ["0", "-1", "soon", "1.5", "9" * 13])
def test_a_deadline_is_a_number(url, value):
    """Of milliseconds."""
    refused = get(f"{url}/healthz", x_request_timeout_ms=value)
    assert refused.status_code == 400
    assert error_of(refused)["details"]["field"] == "x-request-timeout-ms"


def test_two_keys_are_refused(url):
    """Nobody can tell which is meant."""
    headers = [("authorization", "Bearer a"), ("authorization", "Bearer b")]
    refused = httpx.get(f"{url}/v1/tenants/acme/models", headers=headers)
    assert refused.status_code == 400
    assert error_of(refused)["details"]["field"] == "authorization"


def test_a_failure_keeps_its_text(url, caplog):
    """It is logged with the request's id; the client reads that id."""
    failed = get(f"{url}/fails", x_request_id="mine-1")
    assert failed.status_code == 500
    assert error_of(failed) == {**error_of(failed), "code": "internal", "request_id": "mine-1"}
    assert "must not see" not in failed.text
    assert "mine-1" in caplog.text
