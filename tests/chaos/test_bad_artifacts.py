"""Under load on a real platform: artifacts that are damaged or out of reach, and a registry that is away.

Each request is asked once, without a retry by the client. ``MLCORE_TEST_OUTAGE_S`` is how long Postgres is away.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ml_core.database.embedded import EmbeddedServer
from ml_core.platform.supervisor import Supervisor
from ml_core.registry.versions.repository import VersionRepository
from support.load import Load, load, prediction
from support.tables import measures, split_target
from support.waiting import wait_until

OUTAGE_S = float(os.environ.get("MLCORE_TEST_OUTAGE_S", "3"))
DATA = split_target(measures(), "outcome")
ROW = DATA[0].iloc[0].to_dict()


@pytest.fixture(scope="module")
def served(platform):
    """A tenant of these tests' own, whose model is served, and the version."""
    tenant = platform.tenant("hardy")
    version = tenant.train("m", DATA, n_estimators=3)
    tenant.promote("m", version, wait_for=ROW)
    return tenant, version


@contextmanager
def asked(platform, tenant) -> Iterator[Load]:
    """Ask all the while; nobody is refused."""
    port = platform.settings.platform.http_port
    with load(port, prediction(tenant.tenant_id, "m", tenant.key, ROW)) as report:
        report.goes_on(50)
        yield report
        report.goes_on(50)
    assert report.failures == []


def artifact_of(platform, tenant, version):
    """The file of a version."""
    digest = VersionRepository(platform.db, tenant.tenant_id).get("m", version).digest
    (path,) = [path for path in platform.settings.platform.artifact_root.rglob(f"*{digest}*") if path.is_file()]
    return path


def failed_loads(platform):
    return [failure.code for replica in platform.local.status().replicas for failure in replica.failures]


def test_a_damaged_artifact_is_promoted(platform, served):
    """The last good version answers, the replicas say why, and the next promotion succeeds."""
    tenant, good = served
    damaged = tenant.train("m", DATA, n_estimators=4)
    path = artifact_of(platform, tenant, damaged)
    content = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(content[: len(content) // 2] + b"x" + content[len(content) // 2 + 1 :])
    with asked(platform, tenant):
        tenant.promote("m", damaged)
        wait_until(lambda: failed_loads(platform) == ["artifact_corrupt"] * 2, 30)
        assert {tenant.predict("m", [ROW]).json()["version"] for _ in range(10)} == {good}
        tenant.promote("m", tenant.train("m", DATA, n_estimators=5), wait_for=ROW)
    wait_until(lambda: failed_loads(platform) == [], 30)


def test_the_store_is_out_of_reach(platform, served):
    """What is loaded answers; a version that is promoted meanwhile is loaded once the store is back."""
    tenant, _ = served
    version = tenant.train("m", DATA, n_estimators=6)
    store = platform.settings.platform.artifact_root
    with asked(platform, tenant):
        away = store.rename(store.with_name("away"))
        try:
            tenant.promote("m", version)
            wait_until(lambda: len(failed_loads(platform)) == 2, 30)
        finally:
            away.rename(store)
        wait_until(lambda: failed_loads(platform) == [], 30)
        wait_until(lambda: tenant.predict("m", [ROW]).json()["version"] == version)


def test_postgres_is_away(platform, served):
    """Nobody who predicts notices; a promotion afterwards arrives."""
    tenant, _ = served
    home = platform.settings.platform.home
    with asked(platform, tenant) as report:
        Supervisor(home).stop()  # it would start Postgres again
        EmbeddedServer(home).stop()
        try:
            ended, count = time.monotonic() + OUTAGE_S, report.answered
            wait_until(lambda: time.monotonic() > ended, OUTAGE_S + 10)
            assert report.answered > count + 20
        finally:
            platform.up()
        tenant.promote("m", tenant.train("m", DATA, n_estimators=7), wait_for=ROW)
