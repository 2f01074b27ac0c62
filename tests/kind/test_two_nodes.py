"""Two nodes: a second release with a bucket, whose workers are on both; and a release without a database."""

from __future__ import annotations

import importlib.metadata
import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml
from kind.conftest import CHART, CONTEXT, Kubernetes
from kind.tenants import client_of, key_of, load, operator_of, train

from support.waiting import wait_until

HERE = Path(__file__).parent
BUILD = shlex.split(os.environ.get("MLCORE_TEST_BUILD", ""))
S3 = f"ml-platform-s3:{importlib.metadata.version('moto')}"
KEYS = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "secret"}


def values(cluster: Kubernetes) -> dict[str, object]:
    """Of the first release, but for what only one can have."""
    found: dict[str, object] = yaml.safe_load(cluster.helm("get", "values", cluster.release, "--output", "yaml"))
    return found | {"service": {"type": "NodePort", "nodePort": 30081}}


def namespace(name: str) -> Kubernetes:
    """A new namespace, for a release of its own."""
    made = Kubernetes(name, "two", "http://127.0.0.1:30081")
    made.kubectl("create", "namespace", name)
    made.kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    return made


@pytest.fixture(scope="module")
def bucket() -> None:
    """The image of a server of S3, on the nodes."""
    moto = f"MOTO={importlib.metadata.version('moto')}"
    build = ["docker", "build", *BUILD, "--build-arg", moto, "--tag", S3, "--file", str(HERE / "s3.Dockerfile")]
    of_cluster = ["kind", "load", "docker-image", "--name", str(CONTEXT).removeprefix("kind-"), S3]
    for command in ([*build, str(HERE)], of_cluster):
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def two(cluster: Kubernetes, bucket: None) -> Iterator[Kubernetes]:
    """A release whose head and database are where those of the first one are, and whose workers are on both nodes."""
    other = other_node(cluster)
    made = namespace("mlcore-two")
    try:
        # Volumes of kind stay where they were first used, and the server of S3 keeps its objects in memory.
        made.kubectl("cordon", other)
        made.kubectl("apply", "-f", "-", given=yaml.safe_dump_all(_s3()))
        made.kubectl("rollout", "status", "deployment/s3", "--timeout=3m")
        create = "import boto3; boto3.client('s3', endpoint_url='http://127.0.0.1:5000').create_bucket(Bucket='models')"
        made.kubectl("exec", "deploy/s3", "--", "/opt/s3/bin/python", "-c", create)
        artifacts = {"url": "s3://models/two", "endpoint": "http://s3:5000", "region": "us-east-1", "secret": "s3"}
        given = yaml.safe_dump(values(cluster) | {"artifacts": artifacts})
        made.helm("install", made.release, str(CHART), "--values", "-", given=given)
        wait_until(lambda: made.pods("head") and made.get("pod", made.pods("head")[0], ".spec.nodeName"), timeout_s=120)
        wait_until(lambda: made.get("pod", f"{made.name}-postgres-0", ".spec.nodeName"), timeout_s=120)
        made.kubectl("wait", "--for=condition=Ready", "--timeout=10m", f"rayservice/{made.name}")
        made.kubectl("uncordon", other)
        wait_until(lambda: httpx.get(f"{made.url}/readyz", trust_env=False).status_code == 200, timeout_s=60)
        yield made
    finally:
        made.kubectl("uncordon", other)
        made.kubectl("delete", "namespace", made.namespace, "--timeout=5m")


def other_node(cluster: Kubernetes) -> str:
    """The node without the volumes of the first release."""
    used = cluster.get("pod", f"{cluster.name}-postgres-0", ".spec.nodeName")
    nodes = set(cluster.kubectl("get", "nodes", "-o", "jsonpath={.items[*].metadata.name}").split()) - {used}
    assert nodes, "the cluster has one node, and kind-config.yaml two: make kind-down kind"
    return min(nodes)


def _s3() -> list[dict[str, object]]:
    labels = {"app": "s3"}
    container = {
        "name": "s3",
        "image": S3,
        "env": [{"name": name, "value": value} for name, value in KEYS.items()],
        "readinessProbe": {"tcpSocket": {"port": 5000}, "periodSeconds": 1},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    rules = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    pod = {"metadata": {"labels": labels}, "spec": {"containers": [container], "securityContext": rules}}
    metadata = {"name": "s3"}
    port = {"port": 5000}
    return [
        {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": KEYS},
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"selector": labels, "ports": [port]}},
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": metadata,
            "spec": {"selector": {"matchLabels": labels}, "template": pod},
        },
    ]


def nodes_of_workers(release: Kubernetes) -> set[str]:
    """The nodes of the workers that run."""
    return {release.get("pod", each, ".spec.nodeName") for each in release.pods("worker")}


def test_a_drained_node_fails_no_request(cluster: Kubernetes, two: Kubernetes, tmp_path: Path) -> None:
    """Models are in a bucket, so each node can serve; the disruption budget lets the workers go one at a time."""
    other = other_node(cluster)
    two.kubectl("delete", "pod", two.pods("worker")[0])  # the next one goes where none is
    wait_until(lambda: other in nodes_of_workers(two), timeout_s=180)
    two.kubectl("wait", "--for=condition=Ready", "--timeout=5m", "pod", *two.pods("worker"))
    with operator_of(two) as operator:
        key = key_of(operator)
        with client_of(two, operator, key, tmp_path) as client, load(two, client, key) as seen:
            # The node's own pods stay, and those of the first release are not there.
            two.kubectl("drain", other, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=5m")
            wait_until(lambda: len(two.pods("worker")) == 2 and other not in nodes_of_workers(two), timeout_s=180)
            two.kubectl("wait", "--for=condition=Ready", "--timeout=5m", "pod", *two.pods("worker"))
            train(client)
            two.kubectl("uncordon", other)
        assert seen.failed == []
    assert two.status()["state"] == "running"


def test_a_database_that_is_away_is_named(cluster: Kubernetes) -> None:
    """The setup tries again for a while, and says so meanwhile."""
    away = namespace("mlcore-away")
    try:
        url = "postgresql://app:secret@nowhere.invalid:5432/mlcore"
        logins = [f"--from-literal={name}={url}" for name in ("url", "ingest-url", "owner-url")]
        tenant_key = f"--from-literal=tenant-key={'0' * 64}"
        away.kubectl("create", "secret", "generic", "database", *logins, tenant_key)
        given = values(cluster) | {"database": {"kind": "external", "secret": "database"}}
        given |= {"service": {"type": "ClusterIP"}}
        away.helm("install", away.release, str(CHART), "--values", "-", given=yaml.safe_dump(given))
        cause = wait_until(lambda: away.cause("crashes"), timeout_s=180)
        assert f"{away.name}-setup-1" in cause["message"]
        command = cause["remedy"].partition("`")[2].rpartition("`")[0].split()
        said = wait_until(lambda: away.kubectl(*command[command.index("logs") :]), timeout_s=60)
        assert "nowhere.invalid" in said
        assert "secret@" not in said
    finally:
        away.kubectl("delete", "namespace", away.namespace, "--timeout=5m")
