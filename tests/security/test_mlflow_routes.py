"""Every operation of MLflow's protocol against callers who may not. They are not in the OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from fastapi.routing import APIRoute

from ml_core.api.access import Services
from ml_core.api.app import NOUNS, PREFIX, create_app, noun_of
from ml_core.api.routes.mlflow import router
from ml_core.client.inprocess import InProcessTransport
from ml_core.database.connection import DatabaseConnection
from ml_core.domain.api_key import Scope
from ml_core.ids import TenantId
from ml_core.registry.keys import KeyRepository
from ml_core.registry.runs import RunRepository
from ml_core.registry.runs.documents import RunDocuments
from support.registry import new_tenant

ROUTES = [
    pytest.param(method, route.path, Scope(route.openapi_extra["x-scope"]), id=route.operation_id)
    for route in router.routes
    if isinstance(route, APIRoute) and route.methods and route.openapi_extra
    for method in route.methods
]
_REST = "/api/2.0/mlflow"


@pytest.fixture(scope="module")
def client(db: DatabaseConnection) -> Iterator[httpx.Client]:
    """A client of the control API as it is served: without an operator."""
    with httpx.Client(transport=InProcessTransport(create_app(Services(db)), PREFIX), trust_env=False) as http:
        yield http


@pytest.fixture(scope="module")
def tenants(db: DatabaseConnection) -> tuple[TenantId, TenantId]:
    """Two of them."""
    return new_tenant(db), new_tenant(db)


@pytest.fixture(scope="module")
def keys(db: DatabaseConnection, tenants: tuple[TenantId, TenantId]) -> dict[str, str]:
    """Keys of the first tenant, one for each scope, and an admin's of the second."""
    made = {scope.value: str(KeyRepository(db, tenants[0]).create(scope.value, [scope])) for scope in Scope}
    return {**made, "foreign": str(KeyRepository(db, tenants[1]).create("other", [Scope.ADMIN]))}


def ask(
    client: httpx.Client, method: str, path: str, tenant: str, key: str | None = None, **options: object
) -> httpx.Response:
    """The answer to a request whose names are those of nothing."""
    filled = path.replace("{tenant}", tenant).replace("{path:path}", "run_0000000000000000/a")
    for name in ("{model_id}", "{key}"):
        filled = filled.replace(name, "x")
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    if method in ("POST", "PATCH") and "json" not in options:
        options["json"] = {}
    return client.request(method, f"http://control{PREFIX}{filled}", headers=headers, **options)


def error_of(answered: httpx.Response) -> tuple[int, str, str]:
    """Status, code and message, after a look at the form."""
    error = answered.json()
    assert set(error) == {"error_code", "message"}, error
    return answered.status_code, error["error_code"], error["message"]


def test_all_of_them_are_asked() -> None:
    """In each, the tenant is in the path, and a command that loads one noun finds it."""
    assert len(ROUTES) > 40
    for method, path, _ in (route.values for route in ROUTES):
        assert path.startswith("/v1/tenants/{tenant}/mlflow/"), method
        assert noun_of(path.replace("{tenant}", "acme")) == "mlflow"
    assert "mlflow" in NOUNS


@pytest.mark.parametrize(("method", "path", "scope"), ROUTES)
def test_only_a_key_of_the_tenant_with_the_scope_gets_in(
    client: httpx.Client,
    keys: dict[str, str],
    tenants: tuple[TenantId, TenantId],
    method: str,
    path: str,
    scope: Scope,
) -> None:
    """No key: 401. Another tenant's: as for a tenant that does not exist. Another scope: 403. Each in MLflow's form."""
    for key in (None, "nonsense"):
        assert error_of(ask(client, method, path, tenants[0], key))[:2] == (401, "UNAUTHENTICATED")
    theirs = error_of(ask(client, method, path, tenants[0], keys["foreign"]))
    nobodys = error_of(ask(client, method, path, "nobody", keys["foreign"]))
    assert theirs[:2] == (404, "RESOURCE_DOES_NOT_EXIST")
    assert theirs[2].replace(tenants[0], "nobody") == nobodys[2]
    for other in Scope:
        if other not in (scope, Scope.ADMIN):
            assert error_of(ask(client, method, path, tenants[0], keys[other.value]))[:2] == (403, "PERMISSION_DENIED")
    assert ask(client, method, path, tenants[0], keys[scope.value]).status_code not in (401, 403)


def test_what_another_tenant_has_is_as_nothing(
    db: DatabaseConnection, client: httpx.Client, keys: dict[str, str], tenants: tuple[TenantId, TenantId]
) -> None:
    """Runs, files, documents and experiments of one tenant, asked for under the address of the other with its key."""
    runs = RunRepository(db, tenants[0])
    run_id = runs.start("secret-model", kind="mlflow", tags={"a": "b"})
    runs.artifacts.log(run_id, "dir/plot.png", b"png")
    model_id = f"m-{run_id[4:]}{'0' * 16}"
    RunDocuments(db, tenants[0]).add(run_id, "model", {model_id: {"name": "m"}})
    nothing, no_model = "run_0000000000000000", f"m-{'0' * 32}"

    def answers(run: str, model: str, experiment: str) -> list[tuple[int, str]]:
        of_run, files = {"run_id": run}, "/api/2.0/mlflow-artifacts/artifacts"
        metric = {**of_run, "key": "k", "value": 1}
        dataset = {"dataset": {"name": "d", "digest": "0"}}
        asked = [
            ("GET", f"{_REST}/runs/get?run_id={run}", {}),
            ("GET", f"{_REST}/metrics/get-history?run_id={run}&metric_key=a", {}),
            ("GET", f"{_REST}/artifacts/list?run_id={run}", {}),
            ("GET", f"{files}?path={run}/dir", {}),
            ("GET", f"{files}/{run}/dir/plot.png", {}),
            ("PUT", f"{files}/{run}/dir/plot.png", {"content": b"other"}),
            ("DELETE", f"{files}/{run}/dir", {}),
            ("GET", f"{_REST}/logged-models/{model}", {}),
            ("PATCH", f"{_REST}/logged-models/{model}", {"json": {"status": "LOGGED_MODEL_READY"}}),
            ("DELETE", f"{_REST}/logged-models/{model}", {}),
            ("POST", f"{_REST}/logged-models", {"json": {"source_run_id": run}}),
            ("GET", f"{_REST}/experiments/get?experiment_id={experiment}", {}),
            ("GET", f"{_REST}/experiments/get-by-name?experiment_name={experiment}", {}),
            ("POST", f"{_REST}/experiments/delete", {"json": {"experiment_id": experiment}}),
            ("POST", f"{_REST}/runs/create", {"json": {"tags": [{"key": "mlflow.parentRunId", "value": run}]}}),
            ("POST", f"{_REST}/runs/search", {"json": {"experiment_ids": [experiment]}}),
            ("POST", f"{_REST}/logged-models/search", {"json": {"experiment_ids": [experiment]}}),
            *(
                ("POST", f"{_REST}/runs/{verb}", {"json": body})
                for verb, body in {
                    "update": {**of_run, "status": "FAILED"},
                    "delete": of_run,
                    "restore": of_run,
                    "log-metric": metric,
                    "log-parameter": {**of_run, "key": "k", "value": "v"},
                    "set-tag": {**of_run, "key": "a", "value": "c"},
                    "delete-tag": {**of_run, "key": "a"},
                    "log-batch": {**of_run, "metrics": [{"key": "k", "value": 1}]},
                    "log-inputs": {**of_run, "datasets": [dataset]},
                    "outputs": {**of_run, "models": [{"model_id": model}]},
                    "log-model": {**of_run, "model_json": "{}"},
                }.items()
            ),
        ]
        names = {run: "RUN", model: "MODEL", experiment: "EXPERIMENT"}
        found = []
        for method, path, options in asked:
            answered = ask(
                client, method, f"/v1/tenants/{{tenant}}/mlflow{path}", tenants[1], keys["foreign"], **options
            )
            text = answered.text
            for name, shown in names.items():
                text = text.replace(name, shown)
            found.append((answered.status_code, text))
        return found

    theirs, nothings = answers(run_id, model_id, "secret-model"), answers(nothing, no_model, "nothing-at-all")
    assert theirs == nothings
    assert [status for status, _ in theirs if status == 200] == [200, 200]  # the two searches, which find nothing
    assert all("secret" not in text for _, text in theirs)
    kept = runs.get(run_id)
    assert (kept.tags, dict(kept.parameters), dict(kept.metrics)) == ({"a": "b"}, {}, {})
    assert [file.name for file in runs.artifacts.list(run_id)] == ["dir/plot.png"]
