"""Models that fail, sleep or never return, on a real platform with two replicas: no other tenant notices.

Each request is asked once, without a retry by the client.
"""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress

import httpx
import psutil
import pytest

from ml_core.inference.batcher import MAX_LOST_CALLS
from ml_core.inference.edge.app import MAX_IN_FLIGHT, TENANT_SHARE
from ml_core.inference.fair_threads import MAX_LOST
from ml_core.models.store import platform_store
from ml_core.platform.processes import find_marked
from ml_core.registry.collection.tenant_deletion import TenantDeletion
from support.load import Connection, load, prediction
from support.misbehaving import BAD, ROW, X, serving_broken, y
from support.waiting import wait_until

CELL = "ray::ServeReplica:shared"

# Two replicas are replaced, each half a minute after its turn came.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def calm(platform):
    """A tenant whose model is sound."""
    tenant = platform.tenant("calm")
    tenant.promote("m", tenant.train("m", (X, y), n_estimators=3), wait_for=ROW)
    return tenant


@pytest.fixture(scope="module")
def serve(platform, tmp_path_factory):
    """Has a tenant serve models that misbehave on marked rows, each in its way. It is deleted with the module."""
    tenants = []
    with serving_broken(platform, tmp_path_factory.mktemp("broken")) as serve:
        yield lambda name, **models: tenants.append(serve(name, **models)) or tenants[-1]
    for tenant in tenants:
        TenantDeletion(platform.db, platform_store(platform.settings)).delete(tenant.tenant_id)
    wait_until(lambda: platform.local.status().state == "running", 60)


@contextmanager
def unnoticed(platform, calm):
    """Ask the sound model all the while; nobody is refused."""
    request = prediction("calm", "m", calm.key, ROW)
    with load(platform.settings.platform.http_port, request, connections=2) as report:
        report.goes_on(50)
        yield
        report.goes_on(50)
    assert report.failures == []


def replicas(platform):
    """The processes of the replicas."""
    found = set()
    for process in find_marked(platform.settings.platform.home, platform.local.state.session_id):
        with suppress(psutil.NoSuchProcess):
            if process.name().startswith(CELL) or any(part.startswith(CELL) for part in process.cmdline()):
                found.add(process.pid)
    return found


def test_models_that_misbehave_fail_their_callers_only(platform, calm, serve):
    """422 for rows on which a model raises or has no answer, 504 for those that take too long; other rows have answers,
    also those of the slow model once it is done."""
    tenant = serve("misbehaving", raising="raise", short="short", slow="sleep 10 s")
    late = {"x-request-timeout-ms": "2000"}
    with unnoticed(platform, calm):
        for model, status in (("raising", 422), ("short", 422), ("slow", 504)):
            for _ in range(2):
                answer = tenant.post(f"/models/{model}/predict", json={"rows": [BAD]}, headers=late)
                assert answer.status_code == status, answer.text
        assert {tenant.predict(model, [ROW]).status_code for model in ("raising", "short")} == {200}
        wait_until(lambda: tenant.predict("slow", [ROW]).status_code == 200, 60)


def test_an_overload_is_refused_and_forgotten(platform, calm, serve):
    """Requests beyond those that a tenant may have at once get 429 with a pause. Memory does not grow, and soon after
    the last one the model answers."""
    tenant = serve("overloaded", m="sleep 10 s")
    request = prediction("overloaded", "m", tenant.key, BAD, lines=("x-request-timeout-ms: 15000",))
    places = 2 * MAX_IN_FLIGHT // TENANT_SHARE

    def memory_mb():
        return sum(psutil.Process(pid).memory_info().rss for pid in replicas(platform)) / 2**20

    before_mb = memory_mb()
    with unnoticed(platform, calm), ExitStack() as stack:
        clients = [
            stack.enter_context(closing(Connection(platform.settings.platform.http_port, 60)))
            for _ in range(2 * places)
        ]
        for client in clients:
            client.socket.sendall(request)
        replies = [client.read() for client in clients]
        wait_until(lambda: tenant.predict("m", [ROW]).status_code == 200, 60)
    statuses = Counter(reply.status for reply in replies)
    assert set(statuses) <= {200, 429, 503, 504}
    assert statuses[429] >= places / 2
    assert all(int(reply.headers[b"retry-after"]) >= 1 for reply in replies if reply.status in (429, 503))
    assert memory_mb() < before_mb + 200


def test_replicas_that_hang_are_replaced_one_after_the_other(platform, calm, serve):
    """Nobody else has a failed request, and the new ones do not die of the same models: these are refused."""
    models = {"m": "sleep", "n": "sleep"}
    tenants = [serve(f"hanging{number}", **models) for number in range(MAX_LOST // (MAX_LOST_CALLS * len(models)))]
    asked = [(tenant, model) for tenant in tenants for model in models]
    before = replicas(platform)

    def ask(whom):
        tenant, model = whom
        late = {"x-request-timeout-ms": "1000"}
        return tenant.post(f"/models/{model}/predict", json={"rows": [BAD]}, headers=late)

    def are_new():
        statuses = {answer.status_code for answer in pool.map(ask, asked)}
        assert statuses <= {503, 504}
        return not before & replicas(platform) and platform.local.status().running_replicas == 2

    with unnoticed(platform, calm), ThreadPoolExecutor(len(asked)) as pool:
        wait_until(are_new, 400)
        after = replicas(platform)
        for _ in range(3):
            for answer in pool.map(ask, asked):
                error = answer.json()["error"]
                assert (answer.status_code, error["code"]) == (503, "not_ready")
                assert "can't be loaded" in error["message"]
                assert int(answer.headers["retry-after"]) >= 1
        for _ in range(10):
            assert httpx.get(f"{platform.url}/healthz", trust_env=False).json()["lost_calls"] == 0
    assert replicas(platform) == after
    reasons = {failure.reason for replica in platform.local.status().replicas for failure in replica.failures}
    assert all("a replica was replaced because of it" in reason for reason in reasons)
    assert reasons
