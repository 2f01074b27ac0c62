"""Models whose code does not return, on a real platform with two replicas: nobody else notices.

Each request is asked once, without a retry by the client.
"""

from __future__ import annotations

import dataclasses
import importlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

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
from ml_core.inference.fair_threads import MAX_LOST
from ml_core.platform.processes import find_marked
from ml_core.settings import ModelSettings
from ml_core.system import MLSystem
from support import acme
from support.load import load, prediction
from support.running_platform import running_platform
from support.tables import measures, split_target
from support.waiting import wait_until

DATA = split_target(measures(), "outcome")
ROW = DATA[0].iloc[0].to_dict()
BAD = {**ROW, "m0": -999.0}
CELL = "ray::ServeReplica:shared"

pytestmark = pytest.mark.alone


@pytest.fixture(scope="module")
def platform():
    """A platform of these tests' own: its replicas are replaced."""
    with running_platform() as platform:
        yield platform


@pytest.fixture(scope="module")
def calm(platform):
    """A tenant whose model is sound."""
    tenant = platform.tenant("calm")
    tenant.promote("m", tenant.train("m", DATA, n_estimators=3), wait_for=ROW)
    return tenant


@pytest.fixture(scope="module")
def hang(platform, tmp_path_factory):
    """Has a tenant serve models that hang on marked rows."""
    settings = dataclasses.replace(platform.settings, models=ModelSettings("acme_models"))
    path = tmp_path_factory.mktemp("own") / "hanging.joblib"
    with acme.installed(tmp_path_factory.mktemp("site")), DatabaseConnection(settings=settings) as db:
        module = importlib.import_module("acme_models.broken")
        scaler = StandardScaler().fit(DATA[0])
        sound = LogisticRegression().fit(scaler.transform(DATA[0]), DATA[1])
        joblib.dump(make_pipeline(scaler, module.Broken(sound, "sleep")), path)

        def hang(name, *models):
            tenant = platform.tenant(name)
            system = MLSystem(db, tenant_id=TenantId(name))
            for model in models:
                system.models.register_model(model, "classification", path, sample=DATA[0].head(10))
                version = system.registry.get_model_version(model)
                system.registry.promote_version(model, version.version, "production")
            wait_until(lambda: {tenant.predict(model, [ROW]).status_code for model in models} == {200}, 60)
            return tenant

        yield hang


def replicas(platform):
    """The processes of the replicas."""
    found = set()
    for process in find_marked(platform.settings.platform.home, platform.local.state.session_id):
        with suppress(psutil.NoSuchProcess):
            if process.name().startswith(CELL) or any(part.startswith(CELL) for part in process.cmdline()):
                found.add(process.pid)
    return found


@pytest.mark.timeout(900)  # two replicas are replaced, each half a minute after its turn came
def test_replicas_that_hang_are_replaced_one_after_the_other(platform, calm, hang):
    """Nobody else has a failed request, and the new ones do not die of the same models: these are refused."""
    port, models = platform.settings.platform.http_port, ("m", "n")
    tenants = [hang(f"hanging{number}", *models) for number in range(MAX_LOST // (MAX_LOST_CALLS * len(models)))]
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

    with (
        load(port, prediction("calm", "m", calm.key, ROW), connections=2) as report,
        ThreadPoolExecutor(len(asked)) as pool,
    ):
        report.goes_on(50)
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
        report.goes_on(100)
    assert report.failures == []
    assert replicas(platform) == after
    reasons = {failure.reason for replica in platform.local.status().replicas for failure in replica.failures}
    assert all("a replica was replaced because of it" in reason for reason in reasons)
    assert reasons
