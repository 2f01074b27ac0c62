"""Connections that are lost in the middle of a request: a write happens once, and the client gets its answer."""

from __future__ import annotations

import asyncio
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpx
import pytest

from ml_core.api.routes import runs as routes
from ml_core.client import AsyncMLClient, MLClient
from ml_core.exceptions import PlatformError


class Proxy:
    """Between client and server: loses the first connections, before the server has the request or after it."""

    def __init__(self, upstream: int, *, lost: int, is_delivered: bool) -> None:
        self._upstream, self._lost, self._is_delivered = upstream, lost, is_delivered
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets = [self._listener]
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._sockets.append(client)
            is_lost = self.connections <= self._lost
            threading.Thread(target=self._relay, args=(client, is_lost), daemon=True).start()

    def _relay(self, client: socket.socket, is_lost: bool) -> None:
        if is_lost and not self._is_delivered:
            client.recv(65536)
            client.close()
            return
        server = self._to_server(client)
        if is_lost:
            server.recv(1)  # the server has answered, so it has done what was asked
            client.shutdown(socket.SHUT_RDWR)
            return
        _copy(server, client)

    def _to_server(self, client: socket.socket) -> socket.socket:
        server = socket.create_connection(("127.0.0.1", self._upstream))
        self._sockets.append(server)
        threading.Thread(target=_copy, args=(client, server), daemon=True).start()
        return server


def _copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while piece := source.recv(65536):
            target.sendall(piece)
        target.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


@contextmanager
def proxy(address: str, **options) -> Iterator[Proxy]:
    made = Proxy(httpx.URL(address).port, **options)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("is_delivered", [False, True])
def test_a_write_happens_once(client, address, admin_key, tenant_id, tmp_path, is_delivered):
    """Whether or not the server had got it: a document, and a file."""
    (tmp_path / "d.csv").write_text("a\n1\n2\n")
    options = {"api_key": admin_key, "tenant_id": tenant_id, "timeout_s": 30}
    with (
        proxy(address, lost=1, is_delivered=is_delivered) as lossy,
        MLClient(f"http://127.0.0.1:{lossy.port}", **options) as asks,
    ):
        run = asks.runs.start("m")
        assert lossy.connections == 2
    with (
        proxy(address, lost=1, is_delivered=is_delivered) as lossy,
        MLClient(f"http://127.0.0.1:{lossy.port}", **options) as asks,
    ):
        assert asks.datasets.create("d", tmp_path / "d.csv").number == 1
    assert [each.run_id for each in client.runs.list()] == [run.run_id]
    assert [each.number for each in client.datasets.versions("d")] == [1]
    actions = [change.action for change in client.audit.list()]
    assert actions.count("dataset.created") <= 1


def test_a_write_that_still_runs_is_waited_for(client, address, admin_key, tenant_id, monkeypatch):
    """The connection is lost while the server works: the repeated request gets the answer when it is there."""
    started, proceed = threading.Event(), threading.Event()
    start = routes.RunRepository.start

    def slow(self, *args, **kwargs):
        started.set()
        proceed.wait(20)
        return start(self, *args, **kwargs)

    monkeypatch.setattr(routes.RunRepository, "start", slow)

    class Impatient(Proxy):
        def _relay(self, sender, is_lost):
            if not is_lost:
                threading.Timer(0.6, proceed.set).start()
                super()._relay(sender, False)
                return
            self._to_server(sender)
            started.wait(20)
            sender.shutdown(socket.SHUT_RDWR)

    lossy = Impatient(httpx.URL(address).port, lost=1, is_delivered=True)

    async def ask():
        url = f"http://127.0.0.1:{lossy.port}"
        async with AsyncMLClient(url, api_key=admin_key, tenant_id=tenant_id, timeout_s=30) as asks:
            return await asks.runs.start("m")

    run = asyncio.run(ask())
    lossy.close()
    assert [each.run_id for each in client.runs.list()] == [run.run_id]


def test_a_connection_is_lost_twice_only(address, admin_key, tenant_id):
    """Then the client says that the platform can't be reached."""
    with (
        proxy(address, lost=2, is_delivered=False) as lossy,
        MLClient(f"http://127.0.0.1:{lossy.port}", api_key=admin_key, tenant_id=tenant_id) as asks,
    ):
        with pytest.raises(PlatformError, match="can't be reached"):
            asks.runs.start("m")
        assert list(asks.runs.list()) == []


def test_a_connection_is_used_again(address, admin_key, tenant_id):
    """Twenty requests, one connection."""
    with (
        proxy(address, lost=0, is_delivered=False) as counted,
        MLClient(f"http://127.0.0.1:{counted.port}", api_key=admin_key, tenant_id=tenant_id) as asks,
    ):
        for _ in range(20):
            list(asks.models.list())
        assert counted.connections == 1


def test_a_download_that_breaks_off_leaves_no_file(client, address, admin_key, tenant_id, tmp_path):
    """Neither under its name nor under another; nor does a folder that is not there make anything but an error."""
    (tmp_path / "d.csv").write_text("a\n" + "".join(f"{n}\n" for n in range(200_000)))
    client.datasets.create("d", tmp_path / "d.csv")

    class Cut(Proxy):
        def _relay(self, sender, is_lost):
            sender.sendall(self._to_server(sender).recv(20_000))
            sender.shutdown(socket.SHUT_RDWR)

    cutting = Cut(httpx.URL(address).port, lost=0, is_delivered=True)
    target = tmp_path / "out" / "d.parquet"
    target.parent.mkdir()
    options = {"api_key": admin_key, "tenant_id": tenant_id}
    with MLClient(f"http://127.0.0.1:{cutting.port}", **options) as asks, pytest.raises(PlatformError):
        asks.datasets.download("d", target)
    cutting.close()
    assert list(target.parent.iterdir()) == []
    with pytest.raises(Exception, match="can't be written") as refused:
        client.datasets.download("d", tmp_path / "none" / "d.parquet")
    assert refused.value.field == "path"


def test_a_large_upload_is_never_whole_in_memory(address, admin_key, tenant_id, client, tmp_path):
    """200 MB of a run's file, with progress; and back."""
    path, got = tmp_path / "large.bin", tmp_path / "got.bin"
    with path.open("wb") as file:
        file.truncate(200 * 10**6)
    run = client.runs.start("m")
    program = f"""
import resource
from ml_core.client import MLClient
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
with MLClient({address!r}, api_key={admin_key!r}, tenant_id={tenant_id!r}) as client:
    client.runs.get({run.run_id!r})
    before, sent = peak(), []
    client.runs.log_file({run.run_id!r}, "large", {str(path)!r}, on_progress=lambda *done: sent.append(done))
    client.runs.download_file({run.run_id!r}, "large", {str(got)!r})
    assert sent == sorted(sent) and sent[-1] == (200 * 10**6,) * 2 and len(sent) > 100
    print(peak() - before)
"""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60 * 1024, "nor in the server's"
    assert got.stat().st_size == 200 * 10**6
