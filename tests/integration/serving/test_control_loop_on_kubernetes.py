"""The control loop as a process of Kubernetes: real Ray Serve and registry, an API server that keeps what it gets."""

from __future__ import annotations

import time
from contextlib import closing
from functools import partial

import kubernetes
import pytest
import yaml
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from k8s import control_loop
from k8s.cluster import Cluster
from k8s.serve import KubernetesServe
from ml_core.cells.serve_api import ServeApi
from ml_core.exceptions import ConfigurationError, PlatformError
from ml_core.platform.ray_cluster import read_token
from ml_core.registry.placements import PlacementRepository
from support.http_server import served
from support.kubernetes_api import write_kubeconfig

ARGUMENTS = ("--service", "ml", "--workers", "2")


@pytest.fixture
def sent():
    """What the API server got."""
    return []


@pytest.fixture
def cluster(tmp_path, monkeypatch, sent):
    async def keep(request):
        sent.append(await request.json())
        return JSONResponse(sent[-1])

    with served(Starlette(routes=[Route("/{path:path}", keep, methods=["PATCH"])])) as port:
        write_kubeconfig(tmp_path / "config", port)
        made = Cluster(kubernetes.config.new_client_from_config(str(tmp_path / "config")), "mlcore")
        monkeypatch.setattr(Cluster, "of_this_pod", lambda: made)
        yield made


@pytest.fixture
def variables(platform, monkeypatch):
    """Those of the pod; the platform of the tests serves."""
    db = platform.db
    given = {
        "MLCORE_DATABASE_URL": db.urls.app,
        "MLCORE_DATABASE_INGEST_URL": db.urls.ingest,
        "MLCORE_DATABASE_TENANT_KEY": db.tenant_key,
        "MLCORE_RAY_URL": f"http://127.0.0.1:{platform.local.state.dashboard_port}",
        "MLCORE_RAY_TOKEN": read_token(platform.settings.platform.home),
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    return given


def test_a_dry_run_prints_what_is_sent(platform, cluster, sent, variables, capsys):
    """To the last field, and sends nothing itself."""
    control_loop.main([*ARGUMENTS, "--dry-run"])
    printed = yaml.safe_load(capsys.readouterr().out)
    assert sent == []
    planner = control_loop.planner(2)
    with closing(ServeApi(variables["MLCORE_RAY_URL"], variables["MLCORE_RAY_TOKEN"], {})) as active:
        serve = KubernetesServe(cluster, "ml", active)
        serve.declare(planner(PlacementRepository(platform.db).placed(), serve.status(), now=time.time()).applications)
    assert sent == [printed]
    declared = yaml.safe_load(printed["spec"]["serveConfigV2"])["applications"]
    assert [each["name"] for each in declared][:2] == ["shared", "control"]


def test_what_is_away_is_named(cluster, variables, monkeypatch):
    """Ray, and each setting without which the loop can do nothing."""
    dry_run = partial(control_loop.main, [*ARGUMENTS, "--dry-run"])
    monkeypatch.setenv("MLCORE_RAY_URL", "http://127.0.0.1:1")
    with pytest.raises(PlatformError, match="Ray's REST interface does not answer"):
        dry_run()
    for name in ("MLCORE_RAY_URL", "MLCORE_DATABASE_URL"):
        monkeypatch.delenv(name)
        with pytest.raises(ConfigurationError, match=name):
            dry_run()
