"""MLflow's client through the ingress, at the address of a tenant."""

from __future__ import annotations

from pathlib import Path

import httpx

import support
from ml_core.domain.api_key import Scope
from ml_core.ids import TenantId
from ml_core.registry.runs import RunRepository
from support.mlflow_client import run_mlflow
from support.running_platform import RunningPlatform

_SCRIPTS = Path(support.__file__).parent


def test_the_tracking_address_is_the_tenants(platform: RunningPlatform) -> None:
    """Beside its predictions, whatever cell answers these; a file of 100 MB goes there and comes back whole."""
    tenant = platform.tenant("tracking")
    key = platform.key(tenant.tenant_id, Scope.TRAIN, Scope.READ)
    uri = f"{platform.url}/t/tracking/mlflow"
    for theme in ("artifacts", "runs"):
        done = run_mlflow(_SCRIPTS / "mlflow_calls.py", uri, key, theme, "100")
        assert done.returncode == 0, done.stderr
    runs = RunRepository(platform.db, TenantId("tracking"))
    (kept,) = [run for run in runs.search("default").items if runs.artifacts.list(run.run_id)]
    assert {file.name: file.size_bytes for file in runs.artifacts.list(kept.run_id)}["large"] == 100 * 2**20
    headers = {"authorization": f"Bearer {key}"}
    foreign = httpx.get(f"{platform.url}/t/other/mlflow/api/2.0/mlflow/experiments/search", headers=headers)
    assert (foreign.status_code, foreign.json()["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")
