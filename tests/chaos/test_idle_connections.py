"""Clients that open connections and send no whole request keep nobody else from being answered."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from deployments.haproxy import raise_connection_limit
from ml_core.client import MLClient
from support import idle_clients
from support.tables import tickets

WANTED = 20_000
CLIENTS = 4
ROW = tickets(1).drop(columns=["category"]).iloc[0].dropna().to_dict()


@contextmanager
def holding(platform, kind: str) -> Iterator[int]:
    """Connections of one kind, held by several processes; as many as HAProxy may hold on this machine, and 20,000."""
    share = min(WANTED, raise_connection_limit() - 1_000) // CLIENTS
    port = platform.settings.platform.http_port
    with ExitStack() as stack:
        clients = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, idle_clients.__file__, str(port), f"127.0.0.{2 + number}", str(share), kind],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                )
            )
            for number in range(CLIENTS)
        ]
        for client in clients:
            assert client.stdout.readline() == b"open\n"
        yield share * CLIENTS
        for client in clients:
            assert client.poll() is None, "the clients gave up"
            client.stdin.close()


@pytest.mark.parametrize("kind", idle_clients.KINDS)
def test_good_requests_are_answered_beside_idle_connections(platform, acme, kind, record_property):
    """Each within its deadline, on connections of its own."""
    with holding(platform, kind) as held:
        record_property("held_connections", held)
        for _ in range(20):
            with MLClient(platform.url, api_key=acme.key, tenant_id=acme.tenant_id) as client:
                assert client.predict("tickets", [ROW]).predictions
