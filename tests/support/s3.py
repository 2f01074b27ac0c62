"""A real S3 server for tests: moto's, in a process of its own, on 127.0.0.1.

A process of its own can be stopped in the middle of a request, and Amazon's library in this process can never wait for
a server that waits for this process.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from ml_core.models.store.cache import ArtifactCache
from ml_core.models.store.objects import ObjectStore
from ml_core.settings import ArtifactSettings

_SERVE = """
import logging, sys
from moto.server import ThreadedMotoServer
logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""
_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"}


class S3Server:
    """A running server and ways to look at it that are not the platform's."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self._process = process
        self.endpoint = f"http://127.0.0.1:{port}"
        # The server checks no signature, but lets nobody without one replace an object.
        signed = {"Authorization": "AWS4-HMAC-SHA256 Credential=test/20261124/us-east-1/s3/aws4_request"}
        self._http = httpx.Client(base_url=self.endpoint, timeout=30, headers=signed)

    def close(self) -> None:
        """Close the connection of these ways, not the server."""
        self._http.close()

    def new_bucket(self) -> str:
        """Make a bucket of a random name."""
        name = f"b{uuid.uuid4().hex[:12]}"
        self._http.put(f"/{name}").raise_for_status()
        return name

    def settings(self, bucket: str | None = None, **fields: Any) -> ArtifactSettings:
        """Settings for a prefix of a bucket; of a new one if none is named."""
        url = f"s3://{bucket or self.new_bucket()}/some/prefix"
        return ArtifactSettings(**{"url": url, "endpoint": self.endpoint, "region": "us-east-1", **fields})

    def store(self, cache: Path, bucket: str | None = None, **fields: Any) -> ObjectStore:
        """A store in a bucket; in a new one if none is named."""
        return ObjectStore(self.settings(bucket, **fields), ArtifactCache(cache, 10**9))

    def objects(self, bucket: str) -> dict[str, int]:
        """Key → size of every object, the empty ones that stand for folders included."""
        from xml.etree import ElementTree as ET

        answer = self._http.get(f"/{bucket}", params={"list-type": "2"}).raise_for_status()
        found = ET.fromstring(answer.text).iterfind("{*}Contents")
        return {each.findtext("{*}Key") or "": int(each.findtext("{*}Size") or 0) for each in found}

    def get(self, bucket: str, key: str) -> bytes:
        """The bytes of an object."""
        return self._http.get(f"/{bucket}/{key}").raise_for_status().content

    def headers(self, bucket: str, key: str) -> httpx.Headers:
        """What the server says of an object."""
        return self._http.head(f"/{bucket}/{key}").raise_for_status().headers

    def put(self, bucket: str, key: str, data: bytes) -> None:
        """Write an object, past every check of the platform."""
        self._http.put(f"/{bucket}/{key}", content=data).raise_for_status()

    def delete(self, bucket: str, key: str) -> None:
        """Remove an object."""
        self._http.delete(f"/{bucket}/{key}").raise_for_status()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The server answers nothing meanwhile; connections stay open."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)


@contextmanager
def s3_server(**variables: str) -> Iterator[S3Server]:
    """Start a server, with credentials for it in the environment; it ends with this process at the latest.

    Args:
        **variables: The server's own environment, besides ours.
    """
    environ = {**os.environ, **variables}
    command = [sys.executable, "-c", _SERVE]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environ) as process:
        assert process.stdout is not None
        server = S3Server(process, int(process.stdout.readline()))
        try:
            with pytest.MonkeyPatch.context() as environment:
                for name, value in _CREDENTIALS.items():
                    environment.setenv(name, value)
                yield server
        finally:
            server.close()
            process.kill()


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    """A server for one file of tests."""
    with s3_server() as server:
        yield server
