"""Streams of events: what they tell, to whom, from when on, and when they end."""

from __future__ import annotations

import threading
import time
import uuid
import zlib
from contextlib import ExitStack

import anyio
import httpx
import pytest
from cryptography.fernet import Fernet

from ml_core.api import events as streams
from ml_core.api.access import Services
from ml_core.api.app import create_app
from ml_core.database.connection import DatabaseConnection
from ml_core.domain.api_key import ApiKey, Scope
from ml_core.domain.replica_report import ReplicaReport
from ml_core.exceptions import RegistryUnavailableError
from ml_core.inference.edge.session import COOKIE
from ml_core.models.store import platform_store
from ml_core.registry.collection.tenant_deletion import TenantDeletion
from ml_core.registry.jobs import JobRepository
from ml_core.registry.keys import KeyRepository
from ml_core.registry.platform_keys import PlatformKeyRepository
from ml_core.registry.replicas import ReplicaReports
from ml_core.registry.sessions import SESSION_S
from ml_core.registry.tenants import TenantRepository
from ml_core.settings import DatabaseSettings, Settings
from support.events import listening
from support.http_server import mounted, served
from support.waiting import wait_until


@pytest.fixture
def url(address, tenant_id) -> str:
    """The stream of the tenant."""
    return f"{address}/api/v1/tenants/{tenant_id}/events"


@pytest.fixture
def bearer(db, tenant_id) -> dict[str, str]:
    """A key that may read."""
    return bearer_of(KeyRepository(db, tenant_id).create("listener", [Scope.READ]))


def bearer_of(key: ApiKey) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def change(db, tenant_id):
    KeyRepository(db, tenant_id).create("k", [Scope.READ])


def test_a_change_is_told_as_it_happens(db, url, bearer, tenant_id):
    """The first event says that it listens; each has an id; between them are comments."""
    with listening(url, **bearer) as heard:
        wait_until(lambda: heard.is_open)
        assert (heard.status, heard.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        assert heard.headers["cache-control"] == "no-store"
        began = time.monotonic()
        change(db, tenant_id)
        wait_until(lambda: "audit" in heard.topics)
        took_s = time.monotonic() - began
        JobRepository(db, tenant_id).submit("train", {})
        wait_until(lambda: "jobs" in heard.topics)
        wait_until(lambda: ": keep-alive" in heard.body)
        first, *later = heard.events
    assert first["event"] == "listening"
    assert {each["event"] for each in later} == {"changed"}
    assert [int(each["id"]) for each in heard.events] == sorted(int(each["id"]) for each in heard.events)
    assert took_s < streams.KEEP_ALIVE_S, "it did not wait for the next comment"


def test_another_tenants_changes_are_not_told(db, url, bearer, tenant_id, other_tenant_id):
    """Not even that there are any."""
    with listening(url, **bearer) as heard:
        wait_until(lambda: heard.is_open)
        change(db, other_tenant_id)
        JobRepository(db, other_tenant_id).submit("train", {})
        change(db, tenant_id)
        wait_until(lambda: heard.topics)
        assert heard.topics == {"audit"}
        assert len(heard.events) == 2


def test_the_platform_hears_of_all_tenants_and_of_its_replicas(db, address, tenant_id):
    """With a key of the platform."""
    key = PlatformKeyRepository(db).create("operator", [Scope.READ])
    report = ReplicaReport(0, uuid.uuid4(), True, 1, 1)
    reports = ReplicaReports(db, "heard")
    try:
        with listening(f"{address}/api/v1/platform/events", **bearer_of(key)) as heard:
            wait_until(lambda: heard.is_open)
            change(db, tenant_id)
            wait_until(lambda: "audit" in heard.topics)
            reports.write(report, ttl_s=60)
            wait_until(lambda: "cells" in heard.topics)
            again = heard.events[-1]["id"]
        with listening(f"{address}/api/v1/platform/events", last_event_id=again, **bearer_of(key)) as heard:
            wait_until(lambda: "cells" in heard.topics)
    finally:
        reports.remove()


def test_what_was_missed_is_told_first(db, url, bearer, tenant_id, other_tenant_id):
    """To whoever comes back with the id of the last event, however much later, and to another process."""
    with listening(url, **bearer) as heard:
        wait_until(lambda: heard.is_open)
        seen = heard.events[-1]["id"]
    with listening(url, last_event_id=seen, **bearer) as heard:
        wait_until(lambda: heard.is_open)
        change(db, other_tenant_id)
        JobRepository(db, tenant_id).submit("train", {})
        wait_until(lambda: "jobs" in heard.topics)
        assert heard.events[1]["data"]["topics"] in (["audit", "jobs"], ["audit"])
    with served(mounted(create_app(Services(db)))) as port:
        elsewhere = url.replace(url.split("/api")[0], f"http://127.0.0.1:{port}")
        with listening(elsewhere, last_event_id=seen, **bearer) as heard:
            wait_until(lambda: heard.topics)
            first, second, *_ = heard.events
            assert second["data"] == {"topics": ["audit", "jobs"]}
            assert first["id"] == seen, "whoever leaves now misses it again"
            assert int(second["id"]) > int(seen)


@pytest.mark.parametrize("sent", ["x", "-1", "1.5", "9" * 30])
def test_an_id_that_no_event_had_is_refused(url, bearer, sent):
    """And the field is named."""
    refused = httpx.get(url, headers={**bearer, "last-event-id": sent}, trust_env=False)
    assert refused.status_code == 400
    assert "last-event-id" in refused.json()["error"]["message"]


def test_a_revoked_key_ends_its_streams(db, url, tenant_id, bearer):
    """Within seconds, and no other's; it opens no further one."""
    key = KeyRepository(db, tenant_id).create("short", [Scope.READ])
    with listening(url, **bearer_of(key)) as heard, listening(url, **bearer) as other:
        wait_until(lambda: heard.is_open and other.is_open)
        KeyRepository(db, tenant_id).revoke(key.key_id)
        wait_until(lambda: heard.is_over)
        change(db, tenant_id)
        told = len(other.events)
        wait_until(lambda: len(other.events) > told)
        assert not other.is_over
    assert httpx.get(url, headers=bearer_of(key), trust_env=False).status_code == 401


def test_a_deleted_tenant_ends_its_streams(db, address):
    """Also those of an operator."""
    tenant_id = TenantRepository(db).create("deleted-while-heard").tenant_id
    key = PlatformKeyRepository(db).create("operator", [Scope.READ])
    with listening(f"{address}/api/v1/tenants/{tenant_id}/events", **bearer_of(key)) as heard:
        wait_until(lambda: heard.is_open)
        TenantDeletion(db, platform_store(db.settings)).delete(tenant_id)
        wait_until(lambda: heard.is_over)


def test_a_session_that_is_over_ends_its_stream(app, db, url, tenant_id):
    """A cookie opens it; it ends with the cookie, though the key in it is valid."""
    sessions = app.state.services.sessions
    key = str(KeyRepository(db, tenant_id).create("browser", [Scope.READ]))
    fernet: Fernet = sessions._fernet(db.tenant_key)
    nearly_over = fernet.encrypt_at_time(zlib.compress(key.encode()), int(time.time()) - SESSION_S + 3).decode()
    with listening(url, cookie=f"{COOKIE}={nearly_over}") as heard:
        wait_until(lambda: heard.is_open)
        wait_until(lambda: heard.is_over)
    assert httpx.get(url, headers={"cookie": f"{COOKIE}={nearly_over}"}, trust_env=False).status_code == 401


def test_a_stream_ends_after_a_while(monkeypatch, url, bearer):
    """So that an ingress that was replaced comes to its end; whoever listens resumes."""
    monkeypatch.setattr(streams, "LIFE_S", 1.0)
    with listening(url, **bearer) as heard:
        wait_until(lambda: heard.is_open)
        wait_until(lambda: heard.is_over)


def test_a_registry_that_hangs_is_waited_for_once(monkeypatch, db, tenant_id):
    """By the first stream that is checked: all end then, and not one after the other."""
    monkeypatch.setattr(streams, "_CHECK_EVERY_S", 0.0)
    events, is_away, asked = streams.Events(db), threading.Event(), []

    def check() -> None:
        if is_away.is_set():
            asked.append(time.monotonic())
            raise RegistryUnavailableError("The registry can't be used now.", remedy="Try again.")

    async def listen() -> None:
        async with events.stream(tenant_id, None, check) as one, events.stream(tenant_id, None, check) as other:
            is_away.set()
            with anyio.fail_after(20):
                for stream in (one, other):
                    async for _ in stream.events():
                        pass

    anyio.run(listen)
    assert len(asked) == 1


def test_a_deadline_is_of_the_beginning(db, url, bearer, tenant_id):
    """An answer that has begun in time has no other: here it is shorter than the pause between two comments."""
    with listening(url, x_request_timeout_ms="2000", **bearer) as heard:
        wait_until(lambda: heard.body.count(": keep-alive") >= 2 or heard.is_over)
        assert not heard.is_over
        change(db, tenant_id)
        wait_until(lambda: heard.topics)


def test_a_client_that_reads_nothing_is_left(monkeypatch, db, tenant_id):
    """When its time is over, though what is sent to it waits for ever."""
    monkeypatch.setattr(streams, "LIFE_S", 0.1)
    monkeypatch.setattr(streams, "KEEP_ALIVE_S", 0.1)
    events = streams.Events(db)

    async def never(*_: object) -> None:
        await anyio.sleep_forever()

    async def listen() -> None:
        response = streams.EventStream(events, tenant_id, None, lambda: None)
        with anyio.fail_after(20):
            await response({"type": "http"}, never, never)
        assert not events._streams
        assert len(events._gate) == 0

    anyio.run(listen)


def test_a_key_without_the_scope_hears_nothing(db, url, tenant_id):
    """403, and the scope is named."""
    key = KeyRepository(db, tenant_id).create("caller", [Scope.PREDICT])
    refused = httpx.get(url, headers=bearer_of(key), trust_env=False)
    assert refused.status_code == 403
    assert refused.json()["error"]["details"]["scope"] == "read"


def test_a_tenant_has_so_many_streams(monkeypatch, db, tenant_id, other_tenant_id, bearer):
    """One more is 429, and another tenant has its own; whoever leaves makes room."""
    monkeypatch.setattr(streams, "MAX_OF_TENANT", 2)
    with served(mounted(create_app(Services(db)))) as port:
        url = f"http://127.0.0.1:{port}/api/v1/tenants/{tenant_id}/events"
        other = bearer_of(KeyRepository(db, other_tenant_id).create("listener", [Scope.READ]))
        with listening(url, **bearer) as first:
            wait_until(lambda: first.is_open)
            with listening(url, **bearer) as second:
                wait_until(lambda: second.is_open)
                refused = httpx.get(url, headers=bearer, trust_env=False)
                assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")
                assert refused.headers["retry-after"] == "30"
                with listening(url.replace(tenant_id, other_tenant_id), **other) as foreign:
                    wait_until(lambda: foreign.is_open)

            def may_enter() -> bool:
                with listening(url, **bearer) as third:
                    return third.status == 200

            wait_until(may_enter)


def test_no_tenants_take_all_streams_of_a_process(monkeypatch, db, tenant_id, other_tenant_id, bearer):
    """A further one takes the place of one of the tenant that has most, until all have as many; who is refused is told
    when to come again."""
    monkeypatch.setattr(streams, "MAX_STREAMS", 4)
    with served(mounted(create_app(Services(db)))) as port, ExitStack() as stack:
        url = f"http://127.0.0.1:{port}/api/v1/tenants/{tenant_id}/events"
        other = bearer_of(KeyRepository(db, other_tenant_id).create("listener", [Scope.READ]))

        def open_stream(url, key):
            heard = stack.enter_context(listening(url, **key))
            wait_until(lambda: heard.is_open)
            return heard

        first = [open_stream(url, bearer) for _ in range(4)]
        foreign = url.replace(tenant_id, other_tenant_id)
        later = [open_stream(foreign, other) for _ in range(2)]
        wait_until(lambda: [each.is_over for each in first].count(True) == 2)
        for address, key in ((url, bearer), (foreign, other)):
            refused = httpx.get(address, headers=key, trust_env=False)
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "30")
            assert "limit of event streams" in refused.json()["error"]["message"]
        change(db, other_tenant_id)
        wait_until(lambda: all(each.topics for each in later))
        change(db, tenant_id)
        wait_until(lambda: [bool(each.topics) for each in first].count(True) == 2)


def test_a_stream_holds_no_thread_and_no_session(app, db, url, bearer):
    """Thirty are one task, which needs a thread and a session for moments."""
    services = app.state.services

    def sessions() -> int:
        return sum(engine.pool.checkedout() for engine in db._engines.values())

    with listening(url, **bearer) as first:
        wait_until(lambda: first.is_open)
        before = {thread.name for thread in threading.enumerate() if "AnyIO" in thread.name}
        opened = [listening(url, **bearer) for _ in range(29)]
        heard = [each.__enter__() for each in opened]
        try:
            wait_until(lambda: all(each.is_open for each in heard))
            assert len(services.events._streams) == 30
            wait_until(lambda: sessions() == 0)
            now = {thread.name for thread in threading.enumerate() if "AnyIO" in thread.name}
            assert len(now - before) < 15
        finally:
            for each in opened:
                each.__exit__(None, None, None)
    wait_until(lambda: not services.events._streams)
    wait_until(lambda: services.events._following is None)


def test_without_the_registry_streams_end_and_none_begins(db, tenant_id, bearer):
    """So whoever listens asks again, and is told why; afterwards it goes on."""
    urls = {"url": db.urls.app, "ingest_url": db.urls.ingest, "owner_url": db.urls.owner}
    settings = Settings(database=DatabaseSettings(**urls, tenant_key=db.tenant_key, connect_timeout_s=1))
    with DatabaseConnection(settings=settings) as own, served(mounted(create_app(Services(own)))) as port:
        url = f"http://127.0.0.1:{port}/api/v1/tenants/{tenant_id}/events"
        working = own.urls
        with listening(url, **bearer) as heard:
            wait_until(lambda: heard.is_open)
            seen = heard.events[-1]["id"]
            own.urls = type(working)(*["postgresql://nobody@127.0.0.1:1/none"] * 3)
            wait_until(lambda: heard.is_over)
        refused = httpx.get(url, headers=bearer, trust_env=False, timeout=30)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "registry_unavailable")
        own.urls = working
        change(db, tenant_id)
        with listening(url, last_event_id=seen, **bearer) as heard:
            wait_until(lambda: heard.topics == {"audit"})
