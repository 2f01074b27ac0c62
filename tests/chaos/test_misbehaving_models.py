"""Models that fail, sleep or never return, on a real platform with two replicas: no other tenant notices.

Each request is asked once, without a retry by the client.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress

import httpx
import joblib
import psutil
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ml_core.database.connection import DatabaseConnection
from ml_core.ids import TenantId
from ml_core.inference.batcher import MAX_LOST_CALLS
from ml_core.inference.edge.app import MAX_IN_FLIGHT, TENANT_SHARE
from ml_core.inference.fair_threads import MAX_LOST
from ml_core.platform.processes import find_marked
from ml_core.settings import ModelSettings
from ml_core.system import MLSystem
from support import acme
from support.load import Connection, load, prediction
from support.running_platform import running_platform
from support.tables import measures, split_target
from support.waiting import wait_until

DATA = split_target(measures(), "outcome")
ROW = DATA[0].iloc[0].to_dict()
BAD = {**ROW, "m0": -999.0}
CELL = "ray::ServeReplica:shared"

# Two replicas are replaced, each half a minute after its turn came.
pytestmark = [pytest.mark.alone, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def own():
    """A platform of these tests' own: its replicas are replaced."""
    with running_platform() as started:
        yield started


@pytest.fixture(scope="module")
def calm(own):
    """A tenant whose model is sound."""
    tenant = own.tenant("calm")
    tenant.promote("m", tenant.train("m", DATA, n_estimators=3), wait_for=ROW)
    return tenant


@pytest.fixture(scope="module")
def serve(own, tmp_path_factory):
    """Has a tenant serve models that misbehave on marked rows, each in its way."""
    settings = dataclasses.replace(own.settings, models=ModelSettings("acme_models"))
    path = tmp_path_factory.mktemp("own") / "broken.joblib"
    with acme.installed(tmp_path_factory.mktemp("site")), DatabaseConnection(settings=settings) as db:
        module = importlib.import_module("acme_models.broken")
        scaler = StandardScaler().fit(DATA[0])
        sound = LogisticRegression().fit(scaler.transform(DATA[0]), DATA[1])

        def serve(name, **models):
            tenant = own.tenant(name)
            system = MLSystem(db, tenant_id=TenantId(name))
            for model, how in models.items():
                joblib.dump(make_pipeline(scaler, module.Broken(sound, how)), path)
                system.models.register_model(model, "classification", path, sample=DATA[0].head(10))
                version = system.registry.get_model_version(model)
                system.registry.promote_version(model, version.version, "production")
            wait_until(lambda: {tenant.predict(model, [ROW]).status_code for model in models} == {200}, 60)
            return tenant

        yield serve


@contextmanager
def unnoticed(own, calm):
    """Ask the sound model all the while; nobody is refused."""
    request = prediction("calm", "m", calm.key, ROW)
    with load(own.settings.platform.http_port, request, connections=2) as report:
        report.goes_on(50)
        yield
        report.goes_on(50)
    assert report.failures == []


def replicas(own):
    """The processes of the replicas."""
    found = set()
    for process in find_marked(own.settings.platform.home, own.local.state.session_id):
        with suppress(psutil.NoSuchProcess):
            if process.name().startswith(CELL) or any(part.startswith(CELL) for part in process.cmdline()):
                found.add(process.pid)
    return found


def test_models_that_misbehave_fail_their_callers_only(own, calm, serve):
    """422 for rows on which a model raises or has no answer, 504 for those that take too long; other rows have answers,
    also those of the slow model once it is done."""
    tenant = serve("misbehaving", raising="raise", short="short", slow="sleep 10 s")
    late = {"x-request-timeout-ms": "2000"}
    with unnoticed(own, calm):
        for model, status in (("raising", 422), ("short", 422), ("slow", 504)):
            for _ in range(2):
                answer = tenant.post(f"/models/{model}/predict", json={"rows": [BAD]}, headers=late)
                assert answer.status_code == status, answer.text
        assert {tenant.predict(model, [ROW]).status_code for model in ("raising", "short")} == {200}
        wait_until(lambda: tenant.predict("slow", [ROW]).status_code == 200, 60)


def test_an_overload_is_refused_and_forgotten(own, calm, serve):
    """Requests beyond those that a tenant may have at once get 429 with a pause. Memory does not grow, and soon after
    the last one the model answers."""
    tenant = serve("overloaded", m="sleep 10 s")
    request = prediction("overloaded", "m", tenant.key, BAD, lines=("x-request-timeout-ms: 15000",))
    places = 2 * MAX_IN_FLIGHT // TENANT_SHARE

    def memory_mb():
        return sum(psutil.Process(pid).memory_info().rss for pid in replicas(own)) / 2**20

    before_mb = memory_mb()
    with unnoticed(own, calm), ExitStack() as stack:
        clients = [
            stack.enter_context(closing(Connection(own.settings.platform.http_port, 60))) for _ in range(2 * places)
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


def test_replicas_that_hang_are_replaced_one_after_the_other(own, calm, serve):
    """Nobody else has a failed request, and the new ones do not die of the same models: these are refused."""
    models = {"m": "sleep", "n": "sleep"}
    tenants = [serve(f"hanging{number}", **models) for number in range(MAX_LOST // (MAX_LOST_CALLS * len(models)))]
    asked = [(tenant, model) for tenant in tenants for model in models]
    before = replicas(own)

    def ask(whom):
        tenant, model = whom
        late = {"x-request-timeout-ms": "1000"}
        return tenant.post(f"/models/{model}/predict", json={"rows": [BAD]}, headers=late)

    def are_new():
        statuses = {answer.status_code for answer in pool.map(ask, asked)}
        assert statuses <= {503, 504}
        return not before & replicas(own) and own.local.status().running_replicas == 2

    with unnoticed(own, calm), ThreadPoolExecutor(len(asked)) as pool:
        wait_until(are_new, 400)
        after = replicas(own)
        for _ in range(3):
            for answer in pool.map(ask, asked):
                error = answer.json()["error"]
                assert (answer.status_code, error["code"]) == (503, "not_ready")
                assert "can't be loaded" in error["message"]
                assert int(answer.headers["retry-after"]) >= 1
        for _ in range(10):
            assert httpx.get(f"{own.url}/healthz", trust_env=False).json()["lost_calls"] == 0
    assert replicas(own) == after
    reasons = {failure.reason for replica in own.local.status().replicas for failure in replica.failures}
    assert all("a replica was replaced because of it" in reason for reason in reasons)
    assert reasons
