"""Streams of events through the ingress, HAProxy and Ray Serve; and what replicas report of their requests."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from ml_core.api.events import MAX_OF_TENANT
from ml_core.client import MLClient
from ml_core.domain.api_key import Scope
from ml_core.registry.keys import KeyRepository
from ml_core.registry.platform_keys import PlatformKeyRepository
from support.events import listening
from support.running_platform import RunningPlatform, TestTenant
from support.tables import tickets
from support.waiting import wait_until


@pytest.fixture
def listener(platform: RunningPlatform) -> tuple[str, dict[str, str]]:
    """The address of the stream of a tenant, and a key for it."""
    tenant = platform.tenant("listened")
    return f"{platform.url}/api/v1/tenants/listened/events", {"authorization": f"Bearer {tenant.key}"}


def test_a_stream_goes_through_the_ingress(platform: RunningPlatform, listener) -> None:
    """What is told arrives at once, and a stream that is silent is not cut: a comment comes before any deadline."""
    url, key = listener
    with listening(url, **key) as heard:
        wait_until(lambda: heard.is_open)
        KeyRepository(platform.db, "listened").create("k", [Scope.READ])
        wait_until(lambda: heard.topics == {"audit"})
        told = heard.body.count(": keep-alive")
        wait_until(lambda: heard.body.count(": keep-alive") >= told + 3)  # 15 s; HAProxy waits for 10
        assert not heard.is_over
        KeyRepository(platform.db, "listened").create("k", [Scope.READ])
        wait_until(lambda: len(heard.events) == 3)


def test_whoever_leaves_makes_room(listener) -> None:
    """The end of a connection reaches the replica behind the ingress, and ends the stream there."""
    url, key = listener
    with ExitStack() as stack:
        opened = [stack.enter_context(listening(url, **key)) for _ in range(MAX_OF_TENANT)]
        wait_until(lambda: all(each.is_open for each in opened))
        with listening(url, **key) as refused:
            assert refused.status == 429

    def may_enter() -> bool:
        with listening(url, **key) as again:
            return again.status == 200

    wait_until(may_enter)


def test_replicas_report_their_requests(platform: RunningPlatform, acme: TestTenant) -> None:
    """Of both replicas, by outcome; and the tenant's own from its log."""
    row = tickets(1).drop(columns=["category"]).iloc[0].dropna().to_dict()
    for _ in range(40):
        assert acme.predict("tickets", [row]).status_code == 200
    assert acme.predict("tickets", [{"nothing": 1}]).status_code == 422
    key = str(PlatformKeyRepository(platform.db).create("operator", [Scope.READ]))

    def has_all() -> bool:
        """Replicas report at their own times, and the platform had other requests before."""
        with MLClient(platform.url, api_key=key) as client:
            points = [each for cell in client.platform.traffic() if cell.cell == "shared" for each in cell.points]
        requests, refused = (
            sum(10 * (each or 0) for each in of)
            for of in ([point.requests_per_s for point in points], [point.refused_per_s for point in points])
        )
        return requests >= 41 and refused >= 1

    wait_until(has_all, 60)
    with MLClient(platform.url, api_key=acme.key, tenant_id=acme.tenant_id) as client:
        wait_until(lambda: sum(10 * each.requests_per_s for each in client.predictions.traffic()) >= 40, 60)
        assert all(each.p50_ms is not None for each in client.predictions.traffic() if each.requests_per_s)
