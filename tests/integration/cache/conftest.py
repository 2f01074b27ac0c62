"""A Redis server for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.redis_server import RedisServer, running_redis


@pytest.fixture(scope="session")
def started_redis() -> Iterator[RedisServer]:
    """The server, which is started once."""
    with running_redis() as server:
        yield server


@pytest.fixture
def redis_server(started_redis: RedisServer) -> RedisServer:
    """The server, empty."""
    started_redis.client.flushall()
    return started_redis
