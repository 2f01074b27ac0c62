"""Processes are killed without warning; the platform serves on where it can, and ``up`` repairs the rest."""

from __future__ import annotations

import os
import signal

import psutil
import pytest
from typer import Exit

from ml_core.cli.demo.traffic import traffic
from ml_core.cli.platform import status as show_status
from ml_core.client import MLClient
from ml_core.exceptions import PlatformError
from ml_core.platform.processes import find_marked
from support.running_platform import running_platform, wait_until
from support.tables import measures, split_target

ROW = measures().drop(columns=["outcome"]).iloc[0].to_dict()


@pytest.fixture(scope="module")
def victim():
    """A platform of these tests' own, with one tenant that is served."""
    with running_platform() as platform:
        tenant = platform.tenant("acme")
        version = tenant.train("m", split_target(measures(), "outcome"), n_estimators=10)
        tenant.promote("m", version, wait_for=ROW)
        yield platform, tenant


def kill(*, named, platform):
    """kill -9 the platform's processes whose title begins so. Returns how many there were."""
    state = platform.local.state
    processes = [
        process
        for process in find_marked(platform.settings.platform.home, state.session_id)
        if any(part.startswith(named) for part in [process.name(), *process.cmdline()])
    ]
    for process in processes:
        os.kill(process.pid, signal.SIGKILL)
    psutil.wait_procs(processes, timeout=10)
    return len(processes)


def postmaster_pid(platform):
    return int((platform.settings.platform.home / "postgres" / "postmaster.pid").read_text().splitlines()[0])


def answers(tenant):
    return tenant.predict("m", [ROW]).status_code == 200


def test_a_killed_replica_fails_no_request(victim):
    """The other one answers, and Serve brings a new one."""
    platform, tenant = victim
    replica = next(
        p for p in find_marked(platform.settings.platform.home, None) if "ServeReplica" in " ".join(p.cmdline())
    )

    def connect():
        return MLClient(platform.url, api_key=tenant.key, tenant_id=tenant.tenant_id)

    with traffic(connect, "m", ROW) as report:
        report.wait_for("1", 50, 30)
        os.kill(replica.pid, signal.SIGKILL)
        report.wait_for("1", report.answers["1"] + 300, 30)
    assert report.failures == []
    wait_until(lambda: platform.local.status().running_replicas == 2, 60)


def test_a_replica_that_restarts_without_the_store_is_named(victim, monkeypatch, capsys):
    """The others serve on; ``status`` is degraded, says which replica refuses what, and recovers by itself."""
    platform, tenant = victim
    wait_until(lambda: platform.local.status().state == "running", 60)
    artifacts = platform.settings.platform.artifact_root
    before = {seen.replica_id for seen in platform.local.status().replicas}
    away = artifacts.rename(artifacts.with_name("away"))
    try:
        replica = next(
            p for p in find_marked(platform.settings.platform.home, None) if "ServeReplica" in " ".join(p.cmdline())
        )
        os.kill(replica.pid, signal.SIGKILL)
        wait_until(lambda: platform.local.status().failed_loads == 1, 60)
        status = platform.local.status()
        assert status.state == "degraded"
        (refusing,) = [seen for seen in status.replicas if seen.failed]
        assert refusing.replica_id not in before
        (failure,) = refusing.failures
        assert (failure.tenant_id, failure.model_id, failure.serves) == (tenant.tenant_id, "m", None)
        monkeypatch.setenv("MLCORE_HOME", str(platform.settings.platform.home))
        with pytest.raises(Exit):
            show_status()
        shown = " ".join(capsys.readouterr().out.split())
        assert f"replica {refusing.replica_id}" in shown
        assert "requests are refused" in shown
    finally:
        away.rename(artifacts)
    wait_until(lambda: platform.local.status().state == "running", 90)


def test_without_postgres_the_last_good_state_serves_on(victim):
    """kill -9 of Postgres: predictions go on; ``status`` says degraded; ``up`` repairs; promotions work again."""
    platform, tenant = victim
    os.kill(postmaster_pid(platform), signal.SIGKILL)
    wait_until(lambda: not platform.local.status().database)
    for _ in range(20):
        assert answers(tenant)
    assert platform.local.status().state == "degraded"
    ray_before = platform.local.state
    platform.local.up()
    assert platform.local.status().state == "running"
    assert platform.local.state == ray_before, "Ray serves on; only the database is started"
    version = tenant.train("m", split_target(measures(), "outcome"), n_estimators=12)
    tenant.promote("m", version, wait_for=ROW)


def test_a_killed_ray_is_repaired_by_up(victim):
    """kill -9 of Ray's main processes leaves orphans; ``up`` ends them and starts anew, keys and models intact."""
    platform, tenant = victim
    assert kill(named="raylet", platform=platform) + kill(named="gcs_server", platform=platform) >= 1
    wait_until(lambda: platform.local.status().state == "degraded")
    platform.local.up()
    wait_until(lambda: answers(tenant))


def test_a_second_up_is_refused(victim):
    """It says where the platform runs, and changes nothing."""
    platform, tenant = victim
    with pytest.raises(PlatformError, match=platform.url):
        platform.local.up()
    assert answers(tenant)
