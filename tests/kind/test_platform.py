"""What a user does on Kubernetes, and what a cluster does to a user: on a real one, from outside, under load."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator

import pytest
import yaml
from kind.conftest import CHART, Kubernetes
from kind.tenants import ROW, client_of, key_of, load, operator_of, serves, train

from ml_core.api.schemas.placements import NewPlacement
from ml_core.client import MLClient
from ml_core.domain.placement import SHARED_CELL
from support.waiting import wait_until


@pytest.fixture(scope="module")
def operator(cluster: Kubernetes) -> Iterator[MLClient]:
    with operator_of(cluster) as made:
        yield made


@pytest.fixture(scope="module")
def key(operator: MLClient) -> str:
    return key_of(operator)


@pytest.fixture(scope="module")
def client(
    cluster: Kubernetes, operator: MLClient, key: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MLClient]:
    with client_of(cluster, operator, key, tmp_path_factory.mktemp("tables")) as made:
        yield made


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
    wait_until(lambda: cluster.status()["state"] == "running", timeout_s=120)


def test_a_promotion_under_load_fails_no_request(cluster: Kubernetes, client: MLClient, key: str) -> None:
    """Replicas load the new version beside the old one."""
    with load(cluster, client, key) as seen:
        version = train(client)
    assert int(version) > 1
    assert seen.failed == []


def test_a_lost_worker_fails_no_request(cluster: Kubernetes, client: MLClient, key: str) -> None:
    """The other one has a replica; KubeRay replaces the pod."""
    wait_for_replicas(cluster)
    first, *others = cluster.pods("worker")
    assert others
    with load(cluster, client, key) as seen:
        cluster.kubectl("delete", "pod", first, "--wait=true")
        wait_until(lambda: len(cluster.pods("worker")) > len(others), timeout_s=180)
        wait_for_replicas(cluster)
    assert seen.failed == []


def test_a_lost_head_fails_no_request(cluster: Kubernetes, client: MLClient, key: str) -> None:
    """Its state is on a volume, so the workers and their replicas stay."""
    wait_for_replicas(cluster)
    workers = set(cluster.pods("worker"))
    (head,) = cluster.pods("head")
    with load(cluster, client, key) as seen:
        cluster.kubectl("delete", "pod", head, "--wait=true")
        wait_until(lambda: cluster.pods("head") not in ([], [head]), timeout_s=180)
        cluster.kubectl("wait", "--for=condition=Ready", "--timeout=5m", "pod", *cluster.pods("head"))
        wait_for_replicas(cluster)
    assert set(cluster.pods("worker")) == workers
    assert seen.failed == []


def test_a_lost_database_fails_no_prediction(cluster: Kubernetes, client: MLClient, key: str) -> None:
    """Replicas serve their last assignment; afterwards the next promotion reaches them."""
    with load(cluster, client, key) as seen:
        cluster.kubectl("delete", "pod", f"{cluster.name}-postgres-0", "--wait=true")
        cluster.kubectl("rollout", "status", f"statefulset/{cluster.name}-postgres", "--timeout=3m")
    assert seen.failed == []
    train(client)


def test_a_lost_control_loop_goes_on(cluster: Kubernetes, operator: MLClient, client: MLClient, key: str) -> None:
    """It is killed in the middle of a move; the next one ends the move. No request fails, there and back."""
    with load(cluster, client, key) as seen:
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


def test_a_dedicated_cell_grows_in_a_burst_and_shrinks_after_it(
    cluster: Kubernetes, operator: MLClient, client: MLClient, key: str
) -> None:
    """By the bounds of its placement; a replica that ends answers its requests first."""

    def replicas() -> int:
        cells = operator.platform.health().cells
        return sum(len(each.replicas) for each in cells if each.name == f"t-{client.tenant_id}")

    train(client, hyperparameters={"algorithm": "random_forest", "n_estimators": 300})
    operator.placements.set(client.tenant_id, NewPlacement(is_dedicated=True, max_replicas=2, target_ongoing=2))
    wait_until(lambda: operator.placements.get(client.tenant_id).cell != SHARED_CELL, timeout_s=300)
    with load(cluster, client, key) as seen:
        wait_until(lambda: replicas() == 1, timeout_s=180)
        with load(cluster, client, key, threads=8) as burst:
            wait_until(lambda: replicas() == 2, timeout_s=180)
        wait_until(lambda: replicas() == 1, timeout_s=300)
    operator.placements.set(client.tenant_id, NewPlacement(is_dedicated=False))
    wait_until(lambda: f"t-{client.tenant_id}" not in declared(cluster), timeout_s=300)
    assert (seen.failed, burst.failed) == ([], [])


def test_a_job_that_finds_no_room_gets_a_worker(cluster: Kubernetes, client: MLClient, key: str) -> None:
    """Ray's autoscaler adds a pod: no worker has two free processors beside its replicas, and the one task asks so."""
    before = set(cluster.pods("worker"))
    with load(cluster, client, key) as seen:
        train(client, cpus=2, hyperparameters={"algorithm": "logistic_regression"})
    assert seen.failed == []
    assert (set(cluster.pods("worker")), len(cluster.pods("job-worker"))) == (before, 1)


def test_where_policies_are_enforced_no_other_pod_reaches_ray(cluster: Kubernetes) -> None:
    """Neither Ray's ports nor the database, but the ingress."""
    image = cluster.get("pod", cluster.pods("worker")[0], ".spec.containers[0].image")
    hosts = {"head": (6379, 8265, 10001), "worker": (8000, 8080), "postgres": (5432,)}
    wanted = [
        (cluster.get("pod", cluster.pods(component)[0], ".status.podIP"), port)
        for component, ports in hosts.items()
        for port in ports
    ]
    cluster.kubectl("apply", "-f", "-", given=yaml.safe_dump_all(_strangers(image)))
    try:
        cluster.kubectl("wait", "--for=condition=Ready", "--timeout=2m", "pod", "closed", "stranger")
        closed = cluster.get("pod", "closed", ".status.podIP")
        program = f"import socket\nfor each in {[(closed, 8000), *wanted]!r}:\n" + _CONNECT
        reached = cluster.kubectl("exec", "stranger", "--", "python", "-c", program).split()
        if f"{closed}:8000" in reached:
            pytest.skip("the network plugin of this cluster enforces no policies: a pod that admits nobody was reached")
        (worker,) = [host for host, port in wanted if port == 8080]
        assert reached == [f"{worker}:8000"]
    finally:
        cluster.kubectl("delete", "networkpolicy,pod", "-l", "app=strangers", "--wait=false", "--grace-period=1")


_CONNECT = """    try:
        socket.create_connection(each, 3).close()
        print(f"{each[0]}:{each[1]}")
    except OSError:
        pass
"""


def _strangers(image: str) -> list[dict[str, object]]:
    """A pod that asks, and one that a policy closes for everybody."""

    def pod(name: str, *command: str) -> dict[str, object]:
        container = {
            "name": "it",
            "image": image,
            "command": command,
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        }
        rules = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
        metadata = {"name": name, "labels": {"app": "strangers", "name": name}}
        spec = {"containers": [container], "securityContext": rules, "automountServiceAccountToken": False}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}

    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "closed", "labels": {"app": "strangers"}},
        "spec": {"podSelector": {"matchLabels": {"name": "closed"}}, "policyTypes": ["Ingress"]},
    }
    return [policy, pod("closed", "python", "-m", "http.server", "8000"), pod("stranger", "sleep", "600")]


def test_an_image_that_is_missing_is_named_and_the_old_one_serves(
    cluster: Kubernetes, client: MLClient, key: str
) -> None:
    """The upgrade fails at its setup, before anything of the release changes."""
    before = set(cluster.pods("worker"))
    with load(cluster, client, key) as seen:
        upgrade = threading.Thread(target=_fail_to_upgrade, args=(cluster,))
        upgrade.start()
        cause = wait_until(lambda: cluster.cause("image_missing"), timeout_s=90)
        upgrade.join()
    assert "nobody/ml-platform:missing" in cause["message"]
    assert "Correct `image` in the values" in cause["remedy"]
    assert (seen.failed, set(cluster.pods("worker"))) == ([], before)
    cluster.upgrade("--wait")
    wait_until(lambda: cluster.cause("image_missing") is None, timeout_s=60)


def _fail_to_upgrade(cluster: Kubernetes) -> None:
    image = ("--set", "image.repository=nobody/ml-platform,image.tag=missing", "--timeout", "60s")
    with pytest.raises(AssertionError, match="pre-upgrade"):
        cluster.helm("upgrade", cluster.release, str(CHART), "--reuse-values", *image)


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
    with load(cluster, client, key) as seen:
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
    # The cell of its own, which the control loop starts, is not among the first applications.
    wait_until(lambda: serves(client, version), timeout_s=180)
    assert list(client.predict("tickets", [ROW]).predictions) == ["hardware"]
