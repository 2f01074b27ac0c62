"""A tenant on a cluster: what it trains, and its requests from outside."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pandas as pd
from kind.conftest import Kubernetes

from ml_core.client import MLClient
from ml_core.exceptions import AuthenticationError, ModelNotFoundError
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
    """Requests of each thread one after the other, each on a connection of its own."""

    asked: int = 0
    failed: list[str] = field(default_factory=list)


@contextmanager
def load(cluster: Kubernetes, client: MLClient, key: str, threads: int = 1) -> Iterator[Load]:
    """Ask for predictions until the block ends. A request is not repeated, so that each failure counts."""
    seen, stopped = Load(), threading.Event()
    http = httpx.Client(
        headers={"Authorization": f"Bearer {key}", "Connection": "close"}, timeout=20, trust_env=False, verify=False
    )

    def ask() -> None:
        while not stopped.wait(0.02):
            seen.asked += 1
            try:
                answer = http.post(f"{cluster.url}/t/{client.tenant_id}/models/tickets/predict", json={"rows": [ROW]})
                if answer.status_code != 200:
                    seen.failed.append(f"{answer.status_code} {answer.text[:200]}")
            except httpx.HTTPError as error:
                seen.failed.append(repr(error))

    asking = [threading.Thread(target=ask) for _ in range(threads)]
    for thread in asking:
        thread.start()
    try:
        yield seen
    finally:
        stopped.set()
        for thread in asking:
            thread.join()
        http.close()
        print(f"{len(seen.failed)} of {seen.asked} failed: {seen.failed[:3]}")  # noqa: T201 - the figure


@contextmanager
def operator_of(cluster: Kubernetes) -> Iterator[MLClient]:
    """A new tenant, with the key of the platform."""
    tenant = f"kind-{uuid.uuid4().hex[:8]}"
    with MLClient(cluster.url, api_key=cluster.platform_key, tenant_id=tenant, timeout_s=60) as made:
        made.tenants.create([tenant])
        yield made


@contextmanager
def client_of(cluster: Kubernetes, operator: MLClient, key: str, folder: Path) -> Iterator[MLClient]:
    """The tenant, with a model in production, which a job on the cluster trained."""
    with MLClient(cluster.url, api_key=key, tenant_id=operator.tenant_id, timeout_s=60) as made:
        table = folder / "tickets.csv"
        TABLE.to_csv(table, index=False)
        made.datasets.create("tickets", table)
        train(made)
        yield made


def key_of(operator: MLClient) -> str:
    """The tenant's own key."""
    return operator.keys.create(["predict", "read", "train", "promote"]).key


def train(client: MLClient, cpus: float = 1.0, **training: object) -> str:
    """Train and promote a version by a job, and wait until the replicas have it; the version."""
    training = {"target": "label", **training}
    job = client.jobs.train("tickets", "tickets", training=training, promote_to="production", cpus=cpus)
    ended = wait_until(lambda: ended_job(client, job.job_id), timeout_s=300)
    assert ended.state == "succeeded", ended.error
    version = str(ended.result["version"])
    wait_until(lambda: serves(client, version), timeout_s=30)
    return version


def serves(client: MLClient, version: str) -> bool:
    """Whether a version answers, by whichever replica."""
    try:
        return all(client.predict("tickets", [ROW]).version == version for _ in range(10))
    except (ModelNotFoundError, AuthenticationError):  # a replica has not read the first promotion, or the key, yet
        return False


def ended_job(client: MLClient, job_id: str):
    job = client.jobs.get(job_id)
    return job if job.state in ("succeeded", "failed", "cancelled") else None
