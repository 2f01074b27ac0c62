"""Processes are killed without warning; the platform serves on where it can, and ``up`` repairs the rest.

A job is killed with Ray, and with MLCORE_TEST_KILLS=50 (``make soak``) 50 jobs are, at random moments, by a kill of one
kind of process after the other; MLCORE_TEST_SEED makes other moments.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from contextlib import nullcontext, suppress
from datetime import timedelta

import httpx
import psutil
import pytest
from typer import Exit

from ml_core.cli.platform import status as show_status
from ml_core.cli.platform import up
from ml_core.database.embedded import EmbeddedServer
from ml_core.domain.api_key import Scope
from ml_core.domain.job import JobState
from ml_core.exceptions import PlatformError
from ml_core.ids import TenantId
from ml_core.jobs.submission import Jobs
from ml_core.models.store import platform_store
from ml_core.platform.supervisor import Supervisor
from ml_core.registry.collection.fsck import Checker
from ml_core.registry.datasets import DatasetRepository
from ml_core.registry.promotion.environments import EnvironmentRepository
from ml_core.registry.runs import RunRepository
from ml_core.registry.versions.repository import VersionRepository
from support.load import load, prediction
from support.tables import measures, split_target
from support.waiting import wait_until

CELL, CONTROL = "ray::ServeReplica:shared", "ray::ServeReplica:control:"
ROW = measures().drop(columns=["outcome"]).iloc[0].to_dict()


@pytest.fixture(scope="module")
def victim(platform):
    """The platform, and a tenant that is served."""
    tenant = platform.tenant("victim")
    version = tenant.train("m", split_target(measures(), "outcome"), n_estimators=10)
    tenant.promote("m", version, wait_for=ROW)
    return platform, tenant


def processes_of(platform, name):
    """The platform's processes with a title, or an argument, that begins so; the oldest first."""
    return [process for process, words in platform.processes() if any(part.startswith(name) for part in words)]


def kill(processes):
    """kill -9. Returns how many there were."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=10)
    return len(processes)


def reporting(platform):
    """The ids of the live replicas."""
    return {seen.replica_id for seen in platform.local.status().replicas}


def postmaster_pid(platform):
    return int((platform.settings.platform.home / "postgres" / "postmaster.pid").read_text().splitlines()[0])


def answers(tenant):
    return tenant.predict("m", [ROW]).status_code == 200


def keeps_answering(report):
    """Wait for a hundred answers more."""
    report.wait_for("1", report.answers["1"] + 100, 30)


def test_a_killed_haproxy_is_back_at_once(victim):
    """Connections are refused for the blink of an eye; nobody is told that a model does not exist."""
    platform, tenant = victim
    with tenant.traffic("m", ROW) as report:
        keeps_answering(report)
        assert kill(processes_of(platform, "haproxy")) >= 1
        wait_until(lambda: is_answered(tenant), 2)
        keeps_answering(report)
    assert all("can't be reached" in failure for failure in report.failures), report.failures


def is_answered(tenant):
    """Whether a prediction is, where even the connection may be refused."""
    try:
        return answers(tenant)
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("process", ["deployments.haproxy", "ray::HAProxyManager"])
def test_whoever_minds_haproxy_may_be_killed(victim, process):
    """HAProxy serves on, and whom Ray starts next takes it over, with the routes that it has."""
    platform, tenant = victim
    (before,) = processes_of(platform, "ray::HAProxyManager")
    with tenant.traffic("m", ROW) as report:
        keeps_answering(report)
        assert kill(processes_of(platform, process)) >= 1
        wait_until(lambda: before not in processes_of(platform, "ray::HAProxyManager"), 60)
        wait_until(lambda: len(processes_of(platform, "deployments.haproxy")) == 1, 60)
        keeps_answering(report)
    assert report.failures == []


@pytest.mark.parametrize("turn", ["once", "and once more"])
def test_a_killed_replica_fails_no_request(victim, turn):
    """The other one answers, and Serve brings a new one. Then the one that answered is killed. No client asks twice."""
    platform, tenant = victim
    before = reporting(platform)
    with load(platform.settings.platform.http_port, prediction("victim", "m", tenant.key, ROW)) as report:
        report.goes_on(200)
        os.kill(processes_of(platform, CELL)[0].pid, signal.SIGKILL)
        report.goes_on(200)
    assert report.failures == []
    # Serve counts the killed one until it notices.
    wait_until(lambda: reporting(platform) - before and platform.local.status().state == "running", 60)


def test_without_a_replica_the_deadline_is_kept(victim):
    """Each request gets an answer in the platform's shape, little later than it asked for, until Serve has new ones."""
    platform, tenant = victim
    wait_until(lambda: len(processes_of(platform, CELL)) == 2, 60)
    assert kill(processes_of(platform, CELL)) == 2
    headers = {"authorization": f"Bearer {tenant.key}", "x-request-timeout-ms": "1000"}
    url = f"{platform.url}/t/victim/models/m/predict"
    statuses = []
    while not statuses or statuses[-1] != 200:
        # A client that waits a second longer than its deadline is not disappointed.
        response = httpx.post(url, json={"rows": [ROW]}, headers=headers, timeout=2.5, trust_env=False)
        statuses.append(response.status_code)
        assert response.headers["x-request-id"]
        assert response.is_success or set(response.json()["error"]) == {"code", "message", "details", "request_id"}
        assert len(statuses) < 200
    assert set(statuses) <= {200, 502, 503, 504}
    wait_until(lambda: platform.local.status().running_replicas == 2, 60)


def test_a_replica_that_restarts_without_the_store_is_named(victim, monkeypatch, capsys):
    """The others serve on; ``status`` is degraded, says which replica refuses what, and recovers by itself."""
    platform, tenant = victim
    wait_until(lambda: platform.local.status().state == "running", 60)
    artifacts = platform.settings.platform.artifact_root
    before = reporting(platform)
    away = artifacts.rename(artifacts.with_name("away"))
    try:
        os.kill(processes_of(platform, CELL)[0].pid, signal.SIGKILL)

        def refusing():
            """The replicas that refuse the tenant's requests."""
            refused = (tenant.tenant_id, "m", None)
            return [
                seen.replica_id
                for seen in platform.local.status().replicas
                if refused in [(each.tenant_id, each.model_id, each.serves) for each in seen.failures]
            ]

        (replica_id,) = wait_until(refusing, 60)
        assert replica_id not in before
        assert platform.local.status().state == "degraded"
        monkeypatch.setenv("MLCORE_HOME", str(platform.settings.platform.home))
        with pytest.raises(Exit):
            show_status()
        shown = " ".join(capsys.readouterr().out.split())
        assert f"replica {replica_id}" in shown
        assert "requests are refused" in shown
    finally:
        away.rename(artifacts)
    wait_until(lambda: platform.local.status().state == "running", 90)


@pytest.fixture
def listing(victim):
    """Asks the control API for the tenant's models; what came of it."""
    platform, tenant = victim
    headers = {"authorization": f"Bearer {platform.key(tenant.tenant_id, Scope.READ)}"}

    def ask():
        url = f"{platform.url}/api/v1/tenants/{tenant.tenant_id}/models"
        return httpx.get(url, headers=headers, timeout=70, trust_env=False)

    wait_until(lambda: ask().status_code == 200, 60)
    return ask


def test_a_killed_control_api_is_back_by_itself(victim, listing):
    """Meanwhile requests to it wait, or are to be sent again; no prediction notices."""
    platform, tenant = victim
    wait_until(lambda: platform.local.status().state == "running", 60)
    (before,) = processes_of(platform, CONTROL)
    answers_meanwhile = []
    with tenant.traffic("m", ROW) as report:
        keeps_answering(report)
        os.kill(before.pid, signal.SIGKILL)
        deadline = time.monotonic() + 60
        while not answers_meanwhile or answers_meanwhile[-1].status_code != 200:
            assert time.monotonic() < deadline
            with suppress(httpx.RemoteProtocolError):  # a connection that breaks; a client asks once more
                answers_meanwhile.append(listing())
        keeps_answering(report)
    assert report.failures == []
    *refused, answered = answers_meanwhile
    assert [model["model_id"] for model in answered.json()["items"]] == ["m"]
    assert {each.status_code for each in refused} <= {502, 503, 504}
    assert all(set(each.json()["error"]) == {"code", "message", "details", "request_id"} for each in refused)
    assert processes_of(platform, CONTROL) != [before]
    wait_until(lambda: platform.local.status().control_api, 60)


def test_the_control_api_says_that_postgres_is_away(victim, listing):
    """And works again, the same process, once it is back."""
    platform, tenant = victim
    (before,) = processes_of(platform, CONTROL)
    home = platform.settings.platform.home
    Supervisor(home).stop()  # it would start Postgres again
    EmbeddedServer(home).stop()
    try:
        for _ in range(20):
            started = time.monotonic()
            refused = listing()
            assert time.monotonic() - started < 8
            assert refused.status_code == 503
            assert refused.json()["error"]["code"] == "registry_unavailable"
            assert refused.headers["retry-after"] == "1"
        assert httpx.get(f"{platform.url}/api/healthz", trust_env=False).status_code == 200
        assert httpx.get(f"{platform.url}/api/docs", trust_env=False).status_code == 200
        assert answers(tenant)
    finally:
        platform.up()
    wait_until(lambda: listing().status_code == 200, 20)
    assert processes_of(platform, CONTROL) == [before]


def test_a_killed_postgres_is_back_by_itself(victim):
    """kill -9 of Postgres: predictions go on; the supervisor starts it again, and promotions work again."""
    platform, tenant = victim
    wait_until(lambda: platform.local.status().state == "running", 60)
    before, ray_before = postmaster_pid(platform), platform.local.state
    os.kill(before, signal.SIGKILL)
    for _ in range(20):
        assert answers(tenant)
    wait_until(lambda: platform.local.status().database and postmaster_pid(platform) != before, 30)
    wait_until(lambda: platform.local.status().state == "running", 60)
    assert platform.local.state == ray_before, "Ray serves on; only the database is started"
    version = tenant.train("m", split_target(measures(), "outcome"), n_estimators=12)
    tenant.promote("m", version, wait_for=ROW)


@pytest.mark.timeout(900)
def test_a_killed_ray_is_back_by_itself(victim, jobs):
    """kill -9 of Ray leaves orphans; the supervisor ends them and starts anew, with all keys and models, and with the
    job that was starting."""
    platform, tenant = victim
    before, job_id = platform.local.state, jobs.train("ray", TRAINING, promote_to="production").job_id
    wait_until(lambda: has_reached(jobs.get(job_id), "starting"), WITHIN_S)
    assert kill([*processes_of(platform, "raylet"), *processes_of(platform, "gcs_server")]) >= 1
    wait_until(lambda: platform.local.state not in (None, before), 60)
    wait_until(lambda: is_answered(tenant), 120)
    wait_until(lambda: platform.local.status().state == "running", 60)
    assert platform.local.state.http_port == before.http_port
    ends_in_one_version(platform, jobs, job_id)
    refuse_leftovers(platform)


def test_without_its_supervisor_a_platform_is_repaired_by_up(victim):
    """``status`` says that a part is missing, and ``up``, which repairs as the supervisor does, starts it again."""
    platform, tenant = victim
    wait_until(lambda: platform.local.status().state == "running", 60)
    supervisor = int((platform.settings.platform.home / "supervisor.pid").read_text())
    os.kill(supervisor, signal.SIGKILL)
    wait_until(lambda: not platform.local.status().supervisor)
    assert platform.local.status().state == "degraded"
    assert answers(tenant)
    platform.up()
    wait_until(lambda: platform.local.status().state == "running", 60)
    assert int((platform.settings.platform.home / "supervisor.pid").read_text()) != supervisor


def test_a_second_up_changes_nothing(victim):
    """It is a success: the platform runs, as was asked for."""
    platform, tenant = victim
    before = platform.local.state
    steps = []
    assert platform.local.up(lambda name: nullcontext(steps.append(name))) == before
    assert steps == []
    assert answers(tenant)


def test_the_verb_says_that_it_runs_already(victim, capsys, monkeypatch):
    """Exit code 0; asked for another port, it says where the platform is."""
    platform, _ = victim
    monkeypatch.setenv("MLCORE_HOME", str(platform.settings.platform.home))
    up()
    assert f"runs already at {platform.url}" in "".join(capsys.readouterr().out.splitlines())
    with pytest.raises(PlatformError, match=platform.url):
        up(port=platform.settings.platform.http_port + 1)


EMPLOYER = TenantId("employer")
"""Whose jobs are killed."""
WITHIN_S = 240.0
PHASES = ("submitted", "starting", "fit", "register")
LATEST_S = 1.5
"""After the beginning of a phase."""
VICTIMS = {
    "raylet": "raylet",
    "worker": "ml_core.jobs.worker",
    "driver": "JobSupervisor",
    "dispatcher": "ServeReplica:control-loop",
    "postgres": None,
}
"""Kinds of processes, with words of their title."""
KILLS = int(os.environ.get("MLCORE_TEST_KILLS", "0"))
SEED = int(os.environ.get("MLCORE_TEST_SEED", "4"))
TRAINING = {
    "dataset": "m",
    "target": "outcome",
    "hyperparameters": {"algorithm": "random_forest", "n_estimators": 400},
}


def has_reached(job, phase):
    """Whether a job is in a phase, or after it."""
    return phase == "submitted" or job.is_final or phase in (job.state.value, job.progress.get("stage"))


def kill_kind(platform, kind):
    """kill -9 a kind of process, and what a person does afterwards; how many were killed."""
    if kind == "postgres":
        count = kill([psutil.Process(postmaster_pid(platform))])
    else:
        count = kill([process for process, words in platform.processes() if VICTIMS[kind] in " ".join(words)])
    if kind in ("raylet", "postgres"):
        platform.up()
    return count


@pytest.fixture(scope="module")
def jobs(platform):
    """Those of the tenant, which has a dataset."""
    platform.tenant(EMPLOYER)
    DatasetRepository(platform.db, EMPLOYER).create("m", measures(600))
    return Jobs(platform.db, EMPLOYER)


@pytest.mark.skipif(not KILLS, reason="a soak: MLCORE_TEST_KILLS is not set")
@pytest.mark.timeout(7_200)
def test_a_job_whose_processes_are_killed_ends_in_one_version(platform, jobs, capsys):
    """Once, promoted once; nothing is left of the attempts that were lost."""
    moments, killed = random.Random(SEED), Counter()
    for number in range(KILLS):
        kind = [*VICTIMS][number % len(VICTIMS)]
        job_id = jobs.train(f"m{number}", TRAINING, promote_to="production").job_id
        phase, after_s = moments.choice(PHASES), moments.uniform(0.0, LATEST_S)
        wait_until(lambda job_id=job_id, phase=phase: has_reached(jobs.get(job_id), phase), WITHIN_S)
        threading.Event().wait(after_s)  # the moment is the test's own choice: nothing is waited for
        before = jobs.get(job_id)
        found = kill_kind(platform, kind)
        killed[kind, before.progress.get("stage", before.state.value) if found else "not there"] += 1
        ends_in_one_version(platform, jobs, job_id)
    counted = ", ".join(f"{who} {when} {n}" for (who, when), n in sorted(killed.items()))
    with capsys.disabled():
        print(f"{KILLS} kills, seed {SEED}: {counted}")  # noqa: T201 - the figure
    refuse_leftovers(platform)


def ends_in_one_version(platform, jobs, job_id):
    """Wait until a job has."""
    job = wait_until(lambda: (seen := jobs.get(job_id)).is_final and seen, WITHIN_S)
    assert job.state is JobState.SUCCEEDED, (job.error, jobs.log(job_id).text)
    model_id = str(job.spec["model_id"])
    (version,) = VersionRepository(platform.db, EMPLOYER).list(model_id).items
    assert (version.version, job.result["version"]) == ("1", "1")
    moves = EnvironmentRepository(platform.db, EMPLOYER).history(model_id, "production").items
    assert [move.version for move in moves] == ["1"]
    mine = RunRepository(platform.db, EMPLOYER).search(model_id).items
    assert not [run.run_id for run in mine if run.status.value == "running"]
    assert [run.run_id for run in mine if run.status.value == "finished"] == [version.lineage.run_id]


def refuse_leftovers(platform):
    """Neither processes of jobs nor what a check of the store finds."""
    wait_until(lambda: not processes_of(platform, "ml_core.jobs.worker"), WITHIN_S)
    grace = timedelta(seconds=platform.settings.collection.grace_s)
    assert list(Checker(platform.db, platform_store(platform.settings), grace).check(EMPLOYER)) == []
