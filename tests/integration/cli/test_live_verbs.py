"""``mlcore traffic`` and ``mlcore alerts``, of a tenant and of the platform."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.quality import Verdict
from ml_core.domain.traffic import BUCKETS, Interval, shown_intervals
from ml_core.registry.promotion.environments import PRODUCTION, EnvironmentRepository
from ml_core.registry.replicas import ReplicaReports
from ml_core.registry.verdicts import VerdictRepository
from support.predictions import answered, write
from support.registry import TICKETS, register

OVER_HTTP = True


@pytest.mark.both_doors
def test_a_tenants_traffic_is_that_of_its_log(mlcore: Callable, registry: DatabaseConnection, tenant: str) -> None:
    """A row for each interval; what the log does not have is shown as unknown."""
    assert "Nothing was logged in the last 15 minutes." in mlcore("traffic", "-t", tenant).out
    write(registry, *(answered(tenant, request_id=f"r{n}", at=time.time() - 60) for n in range(20)))
    shown = mlcore("traffic", "-t", tenant)
    assert shown.code == 0, shown.err
    assert "requests per s" in shown.out
    points = mlcore("traffic", "-t", tenant, "--json").json
    assert sum(each["requests_per_s"] for each in points) == 2.0
    assert {each["errors_per_s"] for each in points} == {None}


@pytest.mark.in_process
def test_the_platforms_traffic_is_that_of_its_cells(mlcore: Callable, registry: DatabaseConnection) -> None:
    """As replicas report it."""
    latency = [0] * BUCKETS
    latency[3] = 10
    last = shown_intervals(datetime.now(UTC))[-1]
    ReplicaReports(registry, "one", "t-verbs").add_traffic([Interval(last, 10, 0, 10, latency)])
    shown = mlcore("traffic", "--platform")
    assert (shown.code, "t-verbs" in shown.out) == (0, True), shown.err
    (cell,) = [each for each in mlcore("traffic", "--platform", "--json").json if each["cell"] == "t-verbs"]
    assert sum(each["errors_per_s"] for each in cell["points"]) == 1.0


@pytest.mark.both_doors
def test_alerts_are_shown(mlcore: Callable, registry: DatabaseConnection, tenant: str) -> None:
    """Those of versions that are served; without the others."""
    assert "No version that is served has an alert." in mlcore("alerts", "-t", tenant).out
    EnvironmentRepository(registry, tenant).promote(TICKETS, register(registry, tenant).version)
    verdicts = VerdictRepository(registry, tenant)
    verdicts.set(TICKETS, PRODUCTION, "1", Verdict.OK, Verdict.OK)
    assert "No version that is served has an alert." in mlcore("alerts", "-t", tenant).out
    verdicts.set(TICKETS, PRODUCTION, "1", Verdict.OK, Verdict.ALERT)
    shown = mlcore("alerts", "-t", tenant)
    assert (shown.code, TICKETS in shown.out, "alert" in shown.out) == (0, True, True), shown.err
    (found,) = mlcore("alerts", "-t", tenant, "--json").json["items"]
    assert (found["version"], found["quality"], found["drift"]) == ("1", "ok", "alert")


@pytest.mark.in_process
def test_the_platform_sees_how_many_alerts_a_tenant_has(
    mlcore: Callable, registry: DatabaseConnection, tenant: str
) -> None:
    """And a tenant beside it is refused: whose alerts would be meant?"""
    EnvironmentRepository(registry, tenant).promote(TICKETS, register(registry, tenant).version)
    VerdictRepository(registry, tenant).set(TICKETS, PRODUCTION, "1", Verdict.ALERT, Verdict.ALERT)
    shown = mlcore("alerts", "--platform")
    assert tenant in shown.out, shown.err
    found = {each["tenant_id"]: each for each in mlcore("alerts", "--platform", "--json").json}
    assert (found[tenant]["quality"], found[tenant]["drift"]) == (1, 1)
    refused = mlcore("alerts", "--platform", "-t", tenant)
    assert (refused.code, "either --tenant or --platform" in refused.err) == (1, True)
