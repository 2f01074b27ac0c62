"""What a user does on Kubernetes, and what a cluster does to a user: on a real one, from outside, under load."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pandas as pd
import pytest
import yaml
from kind.conftest import CHART, CONTEXT, URL, Kubernetes

from ml_core.api.schemas.placements import NewPlacement
from ml_core.client import MLClient
from ml_core.domain.placement import SHARED_CELL
from ml_core.exceptions import ModelNotFoundError
from support.waiting import wait_until

ROW = {"text": "the printer is broken"}
TABLE = pd.DataFrame(
    {
        "text": [f"{what} {n}" for n in range(40) for what in ("the printer is broken", "the login fails")],
        "label": ["hardware", "account"] * 40,
    }
)


@dataclass
class Load:
    """Requests that are asked one after the other, each on a connection of its own."""

    asked: int = 0
    failed: list[str] = field(default_factory=list)


@contextmanager
def load(client: MLClient, key: str) -> Iterator[Load]:
    """Ask for predictions until the block ends. A request is not repeated, so that each failure counts."""
    seen, stopped = Load(), threading.Event()
    http = httpx.Client(
        headers={"Authorization": f"Bearer {key}", "Connection": "close"}, timeout=20, trust_env=False, verify=False
    )

    def ask() -> None:
        while not stopped.wait(0.02):
            seen.asked += 1
            try:
                answer = http.post(f"{URL}/t/{client.tenant_id}/models/tickets/predict", json={"rows": [ROW]})
                if answer.status_code != 200:
                    seen.failed.append(f"{answer.status_code} {answer.text[:200]}")
            except httpx.HTTPError as error:
                seen.failed.append(repr(error))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield seen
    finally:
        stopped.set()
        thread.join()
        http.close()
        print(f"{len(seen.failed)} of {seen.asked} failed: {seen.failed[:3]}")  # noqa: T201 - the figure


@pytest.fixture(scope="module")
def operator(cluster: Kubernetes) -> Iterator[MLClient]:
    """A new tenant, with the key of the platform."""
    tenant = f"kind-{uuid.uuid4().hex[:8]}"
    with MLClient(URL, api_key=cluster.platform_key, tenant_id=tenant, timeout_s=60) as made:
        made.tenants.create([tenant])
        yield made


@pytest.fixture(scope="module")
def key(operator: MLClient) -> str:
    """The tenant's own key."""
    return operator.keys.create(["predict", "read", "train", "promote"]).key


@pytest.fixture(scope="module")
def client(operator: MLClient, key: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MLClient]:
    """The tenant, with a model in production, which a job on the cluster trained."""
    with MLClient(URL, api_key=key, tenant_id=operator.tenant_id, timeout_s=60) as made:
        table = tmp_path_factory.mktemp("tables") / "tickets.csv"
        TABLE.to_csv(table, index=False)
        made.datasets.create("tickets", table)
        train(made)
        yield made


def train(client: MLClient, cpus: float = 1.0) -> str:
    """Train and promote a version by a job, and wait until the replicas have it; the version."""
    training = {"target": "label"}
    job = client.jobs.train("tickets", "tickets", training=training, promote_to="production", cpus=cpus)
    ended = wait_until(lambda: ended_job(client, job.job_id), timeout_s=300)
    assert ended.state == "succeeded", ended.error
    version = str(ended.result["version"])
    wait_until(lambda: serves(client, version), timeout_s=30)
    return version


def serves(client: MLClient, version: str) -> bool:
    try:
        return client.predict("tickets", [ROW]).version == version
    except ModelNotFoundError:  # a replica has not read the first promotion yet
        return False


def ended_job(client: MLClient, job_id: str):
    job = client.jobs.get(job_id)
    return job if job.state in ("succeeded", "failed", "cancelled") else None


def wait_for_replicas(cluster: Kubernetes) -> None:
    """Wait until every worker is ready, so that a test finds what it takes away."""
    cluster.kubectl("wait", "--for=condition=Ready", "--timeout=5m", "pod", *cluster.pods("worker"))
    cluster.kubectl("wait", "--for=condition=Ready", "--timeout=5m", f"rayservice/{cluster.name}")


def test_a_tenant_trains_promotes_and_predicts_from_outside(client: MLClient) -> None:
    """By the client and the port of the node, as on one machine."""
    answer = client.predict("tickets", [ROW, {"text": "the login fails"}])
    assert list(answer.predictions) == ["hardware", "account"]


def test_the_status_of_the_release_is_good(cluster: Kubernetes) -> None:
    """By the command that people run, with their own rights."""
    program = str(Path(sys.executable).with_name("mlcore"))
    command = (program, "status", "--namespace", cluster.namespace, "--context", str(CONTEXT), "--json")

    def status() -> dict[str, object]:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        shown: dict[str, object] = json.loads(done.stdout)
        return shown if done.returncode == 0 else {}

    assert wait_until(status, timeout_s=120)["state"] == "running"


def test_a_promotion_under_load_fails_no_request(client: MLClient, key: str) -> None:
    """Replicas load the new version beside the old one."""
    with load(client, key) as seen:
        version = train(client)
    assert int(version) > 1
    assert seen.failed == []


def test_a_lost_worker_fails_no_request(cluster: Kubernetes, client: MLClient, key: str) -> None:
    """The other one has a replica; KubeRay replaces the pod."""
    wait_for_replicas(cluster)
    first, *others = cluster.pods("worker")
    assert others
    with load(client, key) as seen:
        cluster.kubectl("delete", "pod", first, "--wait=true")
        wait_until(lambda: len(cluster.pods("worker")) > len(others), timeout_s=180)
        wait_for_replicas(cluster)
    assert seen.failed == []


def test_a_lost_head_fails_no_request(cluster: Kubernetes, client: MLClient, key: str) -> None:
    """Its state is on a volume, so the workers and their replicas stay."""
    wait_for_replicas(cluster)
    workers = set(cluster.pods("worker"))
    (head,) = cluster.pods("head")
    with load(client, key) as seen:
        cluster.kubectl("delete", "pod", head, "--wait=true")
        wait_until(lambda: cluster.pods("head") not in ([], [head]), timeout_s=180)
        cluster.kubectl("wait", "--for=condition=Ready", "--timeout=5m", "pod", *cluster.pods("head"))
        wait_for_replicas(cluster)
    assert set(cluster.pods("worker")) == workers
    assert seen.failed == []


def test_a_lost_database_fails_no_prediction(cluster: Kubernetes, client: MLClient, key: str) -> None:
    """Replicas serve their last assignment; afterwards the next promotion reaches them."""
    with load(client, key) as seen:
        cluster.kubectl("delete", "pod", f"{cluster.name}-postgres-0", "--wait=true")
        cluster.kubectl("rollout", "status", f"statefulset/{cluster.name}-postgres", "--timeout=3m")
    assert seen.failed == []
    train(client)


def test_a_lost_control_loop_goes_on(cluster: Kubernetes, operator: MLClient, client: MLClient, key: str) -> None:
    """It is killed in the middle of a move; the next one ends the move. No request fails, there and back."""
    with load(client, key) as seen:
        operator.placements.set(client.tenant_id, NewPlacement(is_dedicated=True, max_replicas=2))
        wait_until(lambda: f"t-{client.tenant_id}" in declared(cluster), timeout_s=60)
        cluster.kubectl("delete", "pod", *cluster.pods("control-loop"), "--wait=true")
        wait_until(lambda: operator.placements.get(client.tenant_id).cell != SHARED_CELL, timeout_s=300)
        version = train(client)
        assert int(version) > 1
        operator.placements.set(client.tenant_id, NewPlacement(is_dedicated=False))
        wait_until(lambda: f"t-{client.tenant_id}" not in declared(cluster), timeout_s=300)
    assert seen.failed == []


def declared(cluster: Kubernetes) -> set[str]:
    """The applications that the RayService declares."""
    config = yaml.safe_load(cluster.get("rayservice", cluster.name, ".spec.serveConfigV2"))
    return {each["name"] for each in config["applications"]}


def test_a_job_has_a_pod_of_its_own_by_value(cluster: Kubernetes, client: MLClient) -> None:
    """As a RayJob, which the control loop creates; its pod goes with it."""
    run_jobs_by(cluster, "rayjob")
    try:
        train(client, cpus=0.2)
        # The RayJob itself may be gone: the dispatcher stops a process that has no job any more.
        name = str(next(iter(client.jobs.list(state="succeeded"))).run_id).replace("_", "-")
        of_it = f"involvedObject.kind=RayJob,involvedObject.name={name}"
        assert "CreatedRayCluster" in cluster.kubectl("get", "events", "--field-selector", of_it)
        wait_until(lambda: not cluster.pods("job"), timeout_s=180)
    finally:
        run_jobs_by(cluster, "ray")


def run_jobs_by(cluster: Kubernetes, runner: str) -> None:
    """Upgrade to another runner of jobs, which no pod of Ray notices."""
    cluster.upgrade("--set", f"jobs.runner={runner}", "--wait")
    cluster.kubectl("rollout", "status", f"deployment/{cluster.name}-control-loop", "--timeout=3m")


def test_an_upgrade_under_load_fails_no_request(
    cluster: Kubernetes, operator: MLClient, client: MLClient, key: str
) -> None:
    """A second cluster starts beside the first, and the first goes when the second answers; a dedicated cell, too."""
    wait_for_replicas(cluster)
    operator.placements.set(client.tenant_id, NewPlacement(is_dedicated=True))
    wait_until(lambda: operator.placements.get(client.tenant_id).cell != SHARED_CELL, timeout_s=300)
    before = set(cluster.pods("worker"))
    with load(client, key) as seen:
        cluster.upgrade("--set-string", f"settings.MLCORE_MAX_ROWS={10_000 + uuid.uuid4().int % 1000}")
        wait_until(lambda: before.isdisjoint(cluster.pods("worker")), timeout_s=600)
        wait_for_replicas(cluster)
    assert seen.failed == []


def test_an_installation_finds_what_an_uninstallation_kept(cluster: Kubernetes, client: MLClient) -> None:
    """What holds data stays, as docs/kubernetes.md lists it, and nothing else; then the tenant is served as before."""
    version = client.predict("tickets", [ROW]).version
    values = cluster.helm("get", "values", cluster.release, "--output", "yaml")
    cluster.helm("uninstall", cluster.release, "--wait", "--timeout", "5m")
    kinds = "pods,services,configmaps,serviceaccounts,roles,rolebindings,networkpolicies,poddisruptionbudgets,jobs"
    # But for the pod of `helm test`, which has its output.
    mine = ("-l", f"app.kubernetes.io/instance={cluster.release},app.kubernetes.io/component!=test", "-o", "name")
    wait_until(lambda: cluster.kubectl("get", f"{kinds},rayservices,rayclusters,rayjobs", *mine) == "", timeout_s=180)
    kept = {f"secret/{cluster.name}-database", f"secret/{cluster.name}-platform-key"}
    kept |= {f"persistentvolumeclaim/{claim}" for claim in (f"{cluster.name}-home", f"data-{cluster.name}-postgres-0")}
    assert set(cluster.kubectl("get", "secrets,persistentvolumeclaims", *mine).split()) == kept
    cluster.helm("install", cluster.release, str(CHART), "--values", "-", given=values)
    cluster.kubectl("wait", "--for=condition=Ready", "--timeout=10m", f"rayservice/{cluster.name}")
    wait_for_replicas(cluster)
    after = client.predict("tickets", [ROW])
    assert (after.version, list(after.predictions)) == (version, ["hardware"])
