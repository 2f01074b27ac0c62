"""The ASGI application's own duties: lifespan, request ids under a host, the bound on requests in flight."""

from __future__ import annotations

import asyncio

import pytest

from ml_core.domain.api_key import Scope
from ml_core.inference.edge import app as application
from ml_core.inference.edge.app import EdgeApp, Route, build_app
from support.inprocess_cell import MEASURE

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


@pytest.mark.parametrize(("sent_id", "expected"), [(b"abc", 0), (b"a b", 1), (None, 1)])
def test_a_host_that_adds_the_request_id_is_not_doubled(cell, sent_id, expected):
    """Only an id that is not the client's is added beside the host's."""
    app = build_app(cell.service, host_sends_request_id=True)
    headers = [(b"x-request-id", sent_id)] if sent_id is not None else []
    assert len(ids(serve(app, {"type": "http.request"}, headers=headers))) == expected


def test_requests_in_flight_are_bounded(cell, key, monkeypatch):
    """One more is refused with 429, and when one is done the next is let in."""
    monkeypatch.setattr(application, "MAX_IN_FLIGHT", 1)

    async def slow():
        inner = cell.ask_async(PATH, key, {"rows": [MEASURE]})
        yield b'{"rows": []'
        refused.append(await inner)
        yield b"}"

    refused = []
    assert cell.ask("POST", PATH, key=key, content=slow()).status_code == 400
    assert (refused[0].status_code, refused[0].json()["error"]["code"]) == (429, "queue_full")
    assert refused[0].headers["retry-after"] == "1"
    assert cell.predict("measures", [MEASURE], key=key).status_code == 200


def test_a_client_that_leaves_while_it_waits_ends_its_request(cell, key, monkeypatch):
    """The work that has not begun is dropped, nothing is sent, and nothing is left running."""
    gone = asyncio.Event()
    ended = []

    async def endless(request):
        await request.body(1000)
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

    app = EdgeApp(
        cell.service, [Route("POST", "/t/{tenant}/x", endless, (Scope.PREDICT,))], host_sends_request_id=False
    )
    scope = {"type": "http", "method": "POST", "path": "/t/acme/x"}
    scope["headers"] = [(b"authorization", f"Bearer {key}".encode())]

    async def main():
        asyncio.get_running_loop().call_later(0.1, gone.set)
        await asyncio.wait_for(app(scope, receive, send), 10)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())
    assert (sent, ended) == ([], [True])
