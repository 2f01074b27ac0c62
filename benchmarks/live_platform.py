"""A temporary platform for benchmarks, and clients that record what they were answered."""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import OK, HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urljoin, urlsplit

import numpy as np
import pandas as pd

from ml_core.database.connection import DatabaseConnection
from ml_core.database.embedded import EmbeddedServer
from ml_core.platform.local import LocalPlatform
from ml_core.platform.ports import free_ports
from ml_core.platform.state import PlatformState
from ml_core.registry.replicas import seen_replicas
from ml_core.settings import PlatformSettings, Settings

FOLLOWED_WITHIN_S = 60.0
"""Until then replicas know a new key and have loaded a new version, which takes about 1 s."""


def wait_followed(db: DatabaseConnection) -> None:
    """Wait until each replica has applied what was committed, and has loaded what it wants.

    Raises:
        TimeoutError: One has not within ``FOLLOWED_WITHIN_S``.
    """
    deadline = time.monotonic() + FOLLOWED_WITHIN_S
    while not (seen := seen_replicas(db)) or any(replica.is_behind or replica.loading for replica in seen):
        if time.monotonic() > deadline:
            raise TimeoutError(f"the replicas are behind: {seen}")
        time.sleep(0.02)


def wait_logged(url: str) -> None:
    """Wait until the replicas have written their prediction logs, which after a load take processor time for a while.

    Raises:
        TimeoutError: They have not within a minute.
    """
    health, deadline, empty = urljoin(url, "/healthz"), time.monotonic() + 60, 0
    while empty < 8:  # answers in a row; each is of one of the replicas
        if time.monotonic() > deadline:
            raise TimeoutError("the prediction log is not written")
        with urllib.request.urlopen(health, timeout=10) as answer:
            queued = json.load(answer)["prediction_log"]["queued"]
        empty = 0 if queued else empty + 1
        time.sleep(0.05)


@contextmanager
def temporary_platform() -> Iterator[tuple[DatabaseConnection, PlatformState]]:
    """A platform of two replicas in a folder of its own: PostgreSQL, Ray Serve and its ingress."""
    home = Path(tempfile.mkdtemp(prefix="mlcore-benchmark-"))
    home.chmod(0o711)  # the server's account must pass through
    settings = Settings(platform=PlatformSettings(home=home, http_port=free_ports(1)[0]))
    local = LocalPlatform(settings)
    try:
        state = local.up()
        with DatabaseConnection(settings=settings) as db:
            yield db, state
    finally:
        local.down()
        EmbeddedServer(home).stop()
        shutil.rmtree(home, ignore_errors=True)


def numbers(rows: int = 1000, sign: int = 1) -> tuple[pd.DataFrame, pd.Series]:
    """Twenty numbers, of which two determine the label; with the sign -1 the labels are exchanged."""
    values = np.random.default_rng(0).normal(size=(rows, 20))
    labels = np.where(sign * (values[:, 0] + values[:, 1]) > 0, "yes", "no")
    return pd.DataFrame(values, columns=[f"x{i}" for i in range(20)]), pd.Series(labels)


class Answer(NamedTuple):
    """An answered request: what was asked, when the answer came (``time.monotonic``), and its body."""

    path: str
    at: float
    body: Mapping[str, Any]


@dataclass
class Clients:
    """Connections that send one request after another, each to a path that is chosen anew, while the block lasts.

    A connection that breaks is opened again, and its request counts as failed.

    Attributes:
        choose: Path, key and body of the next request.
        failures: What was answered instead, or how a connection broke.
    """

    url: str
    choose: Callable[[], tuple[str, str, bytes]]
    connections: int = 4
    answers: list[Answer] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: Sequence[threading.Thread] = ()

    def __enter__(self) -> Clients:
        self._threads = [threading.Thread(target=self._send) for _ in range(self.connections)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _send(self) -> None:
        address = urlsplit(self.url)
        connection = HTTPConnection(address.hostname or "", address.port, timeout=30)
        while not self._stop.is_set():
            path, key, body = self.choose()
            try:
                connection.request("POST", path, body, {"Authorization": f"Bearer {key}"})
                response = connection.getresponse()
                content = response.read()
            except (OSError, HTTPException) as error:
                self.failures.append(repr(error))
                connection.close()
                continue
            if response.status == OK:
                self.answers.append(Answer(path, time.monotonic(), json.loads(content)))
            else:
                self.failures.append(f"{response.status} {content[:200]!r}")
        connection.close()
