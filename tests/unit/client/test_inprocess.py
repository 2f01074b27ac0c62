"""Requests to an application in this process: failures, large bodies in both directions, threads, interruptions."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import anyio
import httpx
import pytest

from ml_core.client.inprocess import InProcessTransport
from support.waiting import wait_until

PIECE = b"x" * 65536
waiting = threading.Event()


async def app(scope, receive, send):
    """What the path says."""
    match scope["path"]:
        case "/raises":
            raise RuntimeError("broken")
        case "/silent":
            return
        case "/raises-late":
            await start(send)
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
            raise RuntimeError("broken late")
        case "/waits":
            waiting.set()
            await anyio.sleep(60)
        case "/large":
            await start(send)
            for _ in range(int(scope["query_string"])):
                await send({"type": "http.response.body", "body": PIECE, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        case "/count":
            size, is_last = 0, False
            while not is_last:
                message = await receive()
                size, is_last = size + len(message["body"]), not message["more_body"]
            await start(send)
            await send({"type": "http.response.body", "body": str(size).encode()})
        case "/refuses":  # before the body is read
            await start(send, 413)
            await send({"type": "http.response.body", "body": b"too large"})
        case path:
            await start(send)
            await send({"type": "http.response.body", "body": scope["root_path"].encode() + path.encode()})


async def start(send, status=200):
    await send({"type": "http.response.start", "status": status, "headers": [(b"x-a", b"b")]})


@pytest.fixture
def client():
    before = set(threading.enumerate())
    with httpx.Client(base_url="http://in-process", transport=InProcessTransport(app, "/api")) as made:
        yield made
    wait_until(lambda: not set(threading.enumerate()) - before)  # anyio's idle threads end with their loop


def test_an_answer_is_read(client):
    """Status, headers, body; the application learns where it is."""
    answer = client.get("/x")
    assert (answer.status_code, answer.headers["x-a"], answer.text) == (200, "b", "/api/x")


def test_an_application_that_fails_is_seen(client):
    """Its own exception where there was no answer; what answered nothing is a lost connection."""
    with pytest.raises(RuntimeError, match="broken"):
        client.get("/raises")
    with pytest.raises(httpx.RemoteProtocolError):
        client.get("/silent")
    assert client.get("/x").text == "/api/x"


def test_an_answer_that_breaks_off_is_no_whole_one(client):
    """As over a socket."""
    with pytest.raises(httpx.RemoteProtocolError):
        client.get("/raises-late")


def test_a_refusal_before_the_body_was_read_arrives(client):
    """The rest of the body is not asked for."""
    read = []

    def pieces():
        for _ in range(1000):
            read.append(1)
            yield PIECE

    assert client.post("/refuses", content=pieces()).text == "too large"
    assert len(read) < 100


def test_an_answer_need_not_be_read_to_its_end(client):
    """The application is not held up for ever."""
    for _ in range(60):
        with client.stream("GET", "/large?200") as answer:
            next(answer.iter_raw())
    assert client.get("/x").status_code == 200


def test_many_threads_share_it(client):
    """Each gets its own answer."""
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda n: client.get(f"/{n}").text, range(500)))
    assert answers == [f"/api/{n}" for n in range(500)]


def test_closing_ends_what_waits():
    """Also a request of another thread."""
    client = httpx.Client(base_url="http://in-process", transport=InProcessTransport(app))
    with ThreadPoolExecutor(1) as pool:
        request = pool.submit(client.get, "/waits")
        assert waiting.wait(10)
        started = time.monotonic()
        client.close()
        assert request.exception(timeout=5) is not None
    assert time.monotonic() - started < 5
    client.close()


def run(program: str) -> subprocess.Popen[str]:
    head = "import httpx, resource, sys, threading\nfrom ml_core.client.inprocess import InProcessTransport\n"
    head += "sys.path[:0] = ['tests', 'tests/unit/client']\nfrom test_inprocess import PIECE, app, waiting\n"
    head += "client = httpx.Client(base_url='http://x', transport=InProcessTransport(app))\n"
    head += "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
    return subprocess.Popen([sys.executable, "-c", head + program], stdout=subprocess.PIPE, text=True)


def test_large_bodies_are_never_whole_in_memory():
    """200 MB each way, with less than a tenth of it."""
    program = """
client.get("/x")
before = peak()
assert client.post("/count", content=(PIECE for _ in range(3200))).text == str(3200 * len(PIECE))
with client.stream("GET", "/large?3200") as answer:
    assert sum(map(len, answer.iter_raw())) == 3200 * len(PIECE)
client.close()
print(peak() - before)
"""
    with run(program) as done:
        assert int(done.stdout.read()) < 20


def test_ctrl_c_ends_a_client_that_waits():
    """At once, as any program."""
    says = "threading.Thread(target=lambda: (waiting.wait(), print('waiting', flush=True)), daemon=True).start()"
    with run(f"{says}\nwith client: client.get('/waits')") as process:
        assert process.stdout.readline() == "waiting\n"
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) in (-signal.SIGINT, 1)
    assert time.monotonic() - started < 10
