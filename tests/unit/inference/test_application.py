"""The ASGI application's own duties: lifespan, request ids under a host, the bound on requests in flight."""

from __future__ import annotations

import asyncio
from collections import Counter

import httpx
import orjson
import pytest

from ml_core.domain.api_key import Scope
from ml_core.inference.edge import app as application
from ml_core.inference.edge.app import EdgeApp, Route, build_app
from ml_core.inference.edge.http import HttpResponse
from support.inprocess_cell import GLOBEX, MEASURE, promote, servable

PATH = "/t/acme/models/measures/predict"


def serve(app, *messages, path=PATH, headers=(), kind="http"):
    """What the application sends for one connection."""

    async def main():
        waiting = list(messages)
        sent = []

        async def receive():
            return waiting.pop(0) if waiting else await asyncio.Event().wait()

        async def send(message):
            sent.append(message)

        await asyncio.wait_for(
            app({"type": kind, "method": "POST", "path": path, "headers": headers}, receive, send), 10
        )
        return sent

    return asyncio.run(main())


def ids(sent):
    return [value for name, value in sent[0]["headers"] if name == b"x-request-id"]


def test_lifespan_starts_and_ends(cell):
    """As servers ask for it."""
    sent = serve(cell.app, {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}, kind="lifespan")
    assert [message["type"] for message in sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def test_a_websocket_is_closed(cell):
    """There is none here."""
    assert serve(cell.app, {"type": "websocket.connect"}, kind="websocket")[0]["type"] == "websocket.close"


def test_a_client_that_left_gets_no_answer(cell, key):
    """And raises nothing."""
    headers = [(b"authorization", f"Bearer {key}".encode())]
    assert serve(cell.app, {"type": "http.disconnect"}, headers=headers) == []


@pytest.mark.parametrize("sent_id", [b"abc", b"a b", None])
def test_each_answer_has_one_request_id(cell, sent_id):
    """The client's if it is accepted."""
    headers = [(b"x-request-id", sent_id)] if sent_id is not None else []
    (found,) = ids(serve(cell.app, {"type": "http.request"}, headers=headers))
    assert (found == sent_id) == (sent_id == b"abc")


def test_a_tenant_s_requests_in_flight_are_bounded(cell, key, monkeypatch):
    """One more is refused with 429, another tenant is answered, and when one is done the next is let in."""
    monkeypatch.setattr(application, "MAX_IN_FLIGHT", 2 * application.TENANT_SHARE)
    other = cell.key(GLOBEX, Scope.PREDICT)

    async def held(request):
        held_now.append(request)
        await go_on.wait()
        return HttpResponse(200, b"")

    async def main():
        app = EdgeApp(cell.service, [Route("POST", "/t/{tenant}/x", held, (Scope.PREDICT,))])
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://cell") as client:

            def ask(tenant, its_key):
                headers = {"authorization": f"Bearer {its_key}"}
                return asyncio.create_task(client.post(f"/t/{tenant}/x", headers=headers))

            waiting = [ask("acme", key), ask("acme", key), ask("globex", other)]
            while len(held_now) < 3:
                await asyncio.sleep(0)
            refused = await ask("acme", key)
            go_on.set()
            return refused, [(await one).status_code for one in [*waiting, ask("acme", key)]]

    held_now, go_on = [], asyncio.Event()
    refused, statuses = asyncio.run(asyncio.wait_for(main(), 10))
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")
    assert refused.headers["retry-after"] == "1"
    assert statuses == [200] * 4


async def never():
    """A body that begins and never ends."""
    yield b'{"rows": ['
    await asyncio.Event().wait()


def test_bodies_that_never_come_keep_no_other_tenant_out(cell, key, fitted_measures):
    """512 requests of one tenant wait for their bodies or are refused; another tenant is answered, and so is the tenant
    itself once they have run out of time."""
    other = cell.key(GLOBEX, Scope.PREDICT)
    promote(cell.table, servable(cell.store, fitted_measures, tenant=GLOBEX))
    headers = {"authorization": f"Bearer {key}", "x-request-timeout-ms": "500"}

    async def main():
        async with cell.client() as client:
            stuck = [asyncio.create_task(client.post(PATH, headers=headers, content=never())) for _ in range(512)]
            await asyncio.sleep(0.1)
            globex = await cell.ask_async("/t/globex/models/measures/predict", other, {"rows": [MEASURE]})
            statuses = Counter([(await one).status_code for one in stuck])
            return globex, statuses, await cell.ask_async(PATH, key, {"rows": [MEASURE]})

    globex, statuses, later = asyncio.run(asyncio.wait_for(main(), 30))
    assert globex.status_code == 200, globex.text
    assert statuses == {408: 128, 429: 384}
    assert later.status_code == 200


def test_a_request_whose_body_does_not_come_takes_no_place_of_those_answered(cell, key, monkeypatch):
    """The tenant's other requests are answered meanwhile."""
    monkeypatch.setattr(application, "MAX_IN_FLIGHT", application.TENANT_SHARE)
    app = build_app(cell.service)
    headers = {"authorization": f"Bearer {key}", "x-request-timeout-ms": "300"}

    async def main():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://cell") as client:
            stuck = asyncio.create_task(client.post(PATH, headers=headers, content=never()))
            await asyncio.sleep(0.05)
            answered = await client.post(PATH, headers=headers, json={"rows": [MEASURE]})
            await stuck
            return answered.status_code

    assert asyncio.run(main()) == 200


def test_a_body_has_less_time_than_the_answer(cell, key, monkeypatch):
    """The error says that it was the body."""
    monkeypatch.setattr(application, "BODY_WITHIN_S", 0.1)
    answer = cell.ask("POST", PATH, key=key, content=never(), headers={"x-request-timeout-ms": "10000"})
    assert (answer.status_code, answer.headers["connection"]) == (408, "close")
    assert answer.json()["error"]["message"].startswith("The body was not received within 100 ms.")


def test_an_answer_may_take_longer_than_a_body(cell, key, monkeypatch):
    """The body's time is over when it was read."""
    monkeypatch.setattr(application, "BODY_WITHIN_S", 0.05)

    async def slow(request):
        await asyncio.sleep(0.2)
        return HttpResponse(200, b"")

    app = EdgeApp(cell.service, [Route("POST", "/t/{tenant}/x", slow, (Scope.PREDICT,))])
    headers = [(b"authorization", f"Bearer {key}".encode())]
    sent = serve(app, {"type": "http.request", "body": b"{}"}, path="/t/acme/x", headers=headers)
    assert sent[0]["status"] == 200


def test_a_client_that_leaves_while_it_waits_ends_its_request(cell, key, monkeypatch):
    """The work that has not begun is dropped, nothing is sent, and nothing is left running."""
    gone = asyncio.Event()
    ended = []

    async def endless(request):
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    async def receive():
        if not started:
            started.append(True)
            return {"type": "http.request", "body": b"{}"}
        await gone.wait()
        return {"type": "http.disconnect"}

    started, sent = [], []

    async def send(message):
        sent.append(message)

    app = EdgeApp(cell.service, [Route("POST", "/t/{tenant}/x", endless, (Scope.PREDICT,))])
    scope = {"type": "http", "method": "POST", "path": "/t/acme/x"}
    scope["headers"] = [(b"authorization", f"Bearer {key}".encode())]

    async def main():
        asyncio.get_running_loop().call_later(0.1, gone.set)
        await asyncio.wait_for(app(scope, receive, send), 10)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())
    assert (sent, ended) == ([], [True])


HEADERS = {
    "authorization": ("Bearer x", "Bearer y"),
    "content-encoding": ("gzip", "gzip"),
    "content-length": ("2", "2"),
    "inference-header-content-length": ("1", "2"),
    "x-request-id": ("a", "b"),
    "x-request-timeout-ms": ("1", "1"),
}


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize("path", [PATH, "/healthz", "/nowhere"])
def test_a_header_that_is_there_twice_is_refused(cell, key, path, name):
    """Equal or not: a proxy on the way may have read another one than the platform would."""
    headers = [(name.encode(), value.encode()) for value in HEADERS[name]]
    if name != "authorization":
        headers.append((b"authorization", f"Bearer {key}".encode()))
    sent = serve(cell.app, {"type": "http.request", "body": b"{}"}, path=path, headers=headers)
    assert sent[0]["status"] == 400
    assert orjson.loads(sent[1]["body"])["error"]["details"] == {"field": name}


def test_a_valid_key_beside_another_does_not_authorize(cell, key):
    """Whichever of the two is valid, and wherever it is."""
    valid, other = (b"authorization", f"Bearer {key}".encode()), (b"authorization", b"Bearer mlk_x")
    for pair in ((valid, other), (other, valid), (valid, valid)):
        sent = serve(cell.app, {"type": "http.request", "body": b"{}"}, headers=pair)
        assert sent[0]["status"] == 400
