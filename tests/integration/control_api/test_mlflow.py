"""MLflow's real client against the control API: what it and its autologging log lands in runs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

import support
from ml_core.database.connection import DatabaseConnection
from ml_core.domain.api_key import Scope
from ml_core.domain.run import RunStatus
from ml_core.ids import TenantId
from ml_core.registry.keys import KeyRepository
from ml_core.registry.runs import RunRepository
from support.mlflow_client import run_mlflow

_SCRIPTS = Path(support.__file__).parent
DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture
def key(db: DatabaseConnection, tenant_id: TenantId) -> str:
    """A key of a program that tracks its trainings."""
    return str(KeyRepository(db, tenant_id).create("tracking", [Scope.TRAIN, Scope.READ]))


@pytest.fixture
def uri(address: str, tenant_id: TenantId) -> Iterator[str]:
    """The tracking address, as the control API has it behind the ingress."""
    return f"{address}/api/v1/tenants/{tenant_id}/mlflow"


def test_autologging_of_scikit_learn_lands_in_runs(
    db: DatabaseConnection, tenant_id: TenantId, uri: str, key: str
) -> None:
    """A grid search with MLflow's autologging: our library shows its runs, and MLflow's client finds them again."""
    done = run_mlflow(_SCRIPTS / "mlflow_autolog.py", uri, key)
    assert done.returncode == 0, done.stderr
    assert "unexpected error" not in done.stderr, done.stderr  # what autologging could not log is a warning
    said = json.loads(done.stdout)
    runs = RunRepository(db, tenant_id)
    run = runs.get(said["run_id"])
    assert (run.model_id, run.kind, run.status) == ("iris-first-try", "mlflow", RunStatus.FINISHED)
    assert (run.tags["mlflow.runName"], run.tags["team"]) == ("grid", "plants")
    assert run.parameters["best_C"] in ("0.1", "1.0", "10.0")
    assert run.metrics["best_cv_score"].last_value == said["best_score"]
    assert run.metrics["GridSearchCV_score_X"].last_value == said["score"]
    names = [file.name for file in runs.artifacts.list(run.run_id)]
    assert {"cv_results.csv", "estimator.html"} < set(names)
    assert len([name for name in names if name.endswith("/model.pkl")]) == 2  # stored, and never opened
    children = runs.search("iris-first-try", parent_run_id=run.run_id).items
    scores = {child.parameters["C"]: child.metrics["mean_test_score"].last_value for child in children}
    assert dict(said["children"]) == scores
    best_first = [score for _, score in said["children"]]  # two may be as good
    assert best_first == sorted(best_first, reverse=True)
    assert said["files"] == ["cv_results.csv", "estimator.html", "metric_info.json", "models"]
    assert (len(said["datasets"]), said["is_loaded"]) == (1, True)


def test_the_guide_runs(tmp_path: Path, uri: str, key: str) -> None:
    """The program of the guide, with the address of this server."""
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "mlflow.md").read_text(encoding="utf-8"), re.DOTALL)
    script = tmp_path / "guide.py"
    script.write_text("".join(blocks).replace("http://127.0.0.1:8000/t/acme/mlflow", uri))
    done = run_mlflow(script, uri, key)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"run_\w{16} (0\.1|1\.0) 0\.9\d*", done.stdout.strip())


@pytest.mark.parametrize("theme", ["experiments", "runs", "values", "search", "artifacts", "models"])
def test_mlflows_client_gets_what_it_expects(uri: str, key: str, theme: str) -> None:
    """Each call of a theme of ``mlflow_calls.py``, whose assertions are MLflow's own contract."""
    done = run_mlflow(_SCRIPTS / "mlflow_calls.py", uri, key, theme, "20")
    assert done.returncode == 0, done.stderr


def test_runs_of_the_platform_are_shown_to_mlflow(
    db: DatabaseConnection, tenant_id: TenantId, uri: str, key: str
) -> None:
    """In the experiment of their model; they end as the platform says, and no client opens them again."""
    runs = RunRepository(db, tenant_id)
    run_id = runs.start("tickets", parameters={"hyperparameters": {"C": 0.5}})
    runs.log_metrics(run_id, {"validation/accuracy": 0.9})
    runs.fail(run_id, "out of memory")
    with httpx.Client(base_url=f"{uri}/api/2.0/mlflow", headers={"authorization": f"Bearer {key}"}) as http:
        experiment = http.get("/experiments/get-by-name", params={"experiment_name": "tickets"}).json()["experiment"]
        wanted = {"experiment_ids": [experiment["experiment_id"]], "filter": "params.`hyperparameters.C` = '0.5'"}
        (run,) = http.post("/runs/search", json=wanted).json()["runs"]
        assert (run["info"]["run_id"], run["info"]["status"]) == (run_id, "FAILED")
        assert run["data"]["params"] == [{"key": "hyperparameters.C", "value": "0.5"}]
        for path, body in (("update", {"status": "RUNNING"}), ("log-parameter", {"key": "a", "value": "b"})):
            answered = http.post(f"/runs/{path}", json={"run_id": run_id, **body})
            assert (answered.status_code, answered.json()["error_code"]) == (409, "INVALID_PARAMETER_VALUE")


HOSTILE = [
    "\0",
    "\ud800",
    "'; --",
    "%",
    "x" * 9_000,
    "../..",
    "-1",
    "1e999",
    "9" * 5_000,
    "[]",
    "",
    "\u202e",
    "W10",
    None,
    [],
    2**70,
]


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda hostile: ascii(hostile)[:12])
def test_no_value_is_answered_with_a_failure_of_the_server(uri: str, key: str, hostile: object) -> None:
    """In any field of any operation: it is stored, refused, or ignored."""
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    with httpx.Client(base_url=f"{uri}/api/2.0/mlflow", headers=headers, timeout=30) as http:
        run = http.post("/runs/create", json={}).json()["run"]["info"]["run_id"]
        model = http.post("/logged-models", json={"source_run_id": run}).json()["model"]["info"]["model_id"]
        bodies = {
            "runs/create": {"experiment_id": "0", "run_name": "n", "tags": [{"key": "a", "value": "b"}]},
            "runs/update": {"run_id": run, "status": "FINISHED", "run_name": "n"},
            "runs/search": {
                "experiment_ids": ["0"],
                "filter": "tags.a = 'b'",
                "order_by": ["tags.a"],
                "page_token": None,
                "max_results": 1,
                "run_view_type": "ALL",
            },
            "runs/log-metric": {"run_id": run, "key": "a", "value": 1, "timestamp": 1, "step": 1},
            "runs/log-parameter": {"run_id": run, "key": "a", "value": "b"},
            "runs/set-tag": {"run_id": run, "key": "a", "value": "b"},
            "runs/log-inputs": {"run_id": run, "datasets": [{"dataset": {"name": "a", "digest": "b", "schema": "c"}}]},
            "runs/log-model": {"run_id": run, "model_json": "{}"},
            "experiments/create": {"name": f"e{run}", "tags": [{"key": "a", "value": "b"}]},
            "experiments/update": {"experiment_id": "0", "new_name": "n"},
            "experiments/search": {"filter": "name = 'a'", "order_by": ["name"], "page_token": None, "max_results": 1},
            "logged-models": {
                "name": "a",
                "model_type": "b",
                "params": [{"key": "a", "value": "b"}],
                "source_run_id": run,
            },
            "logged-models/search": {"experiment_ids": ["0"], "filter": "tags.a = 'b'", "page_token": None},
            f"logged-models/{model}/params": {"params": [{"key": "a", "value": "b"}]},
        }
        for path, body in bodies.items():
            for changed in _with(body, hostile):
                answered = http.post(f"/{path}", content=json.dumps(changed))
                assert answered.status_code < 500, (path, changed, answered.text)
        if isinstance(hostile, str) and hostile.isascii():
            name = quote(hostile, safe="")
            for path in (f"runs/get?run_id={name}", f"metrics/get-history?run_id={run}&metric_key={name}"):
                assert http.get(f"/{path}").status_code < 500
            for path in (f"{run}/{name}", f"{name}/a", f"{run}/a/{name}"):
                url = f"{uri}/api/2.0/mlflow-artifacts/artifacts/{path}"
                for method in ("PUT", "GET", "DELETE"):
                    assert http.request(method, url, content=b"x").status_code < 500, (method, path)


def _with(form: object, hostile: object) -> Iterator[object]:
    """A form with a value in the place of each of its leaves, one at a time, and of their names."""
    if isinstance(form, dict):
        for name, value in form.items():
            yield from ({**form, name: changed} for changed in _with(value, hostile))
            if name in ("filter", "order_by") and isinstance(hostile, str):
                texts = [f"tags.`{hostile}` = '{hostile}'", f"params.`{hostile}` LIKE '{hostile}'"]
                orders = [f"tags.`{hostile}`", f"metrics.`{hostile}` DESC", f"params.`{hostile}`"]
                yield from (
                    {**form, name: text} for text in (texts if name == "filter" else [[each] for each in orders])
                )
    elif isinstance(form, list):
        yield from ([changed, *form[1:]] for changed in _with(form[0], hostile))
    yield hostile


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("runs/create", b"{", "INVALID_PARAMETER_VALUE"),
        ("runs/create", b'{"tags": 1}', "INVALID_PARAMETER_VALUE"),
        ("runs/log-metric", b'{"run_id": "run_0", "key": "a"}', "INVALID_PARAMETER_VALUE"),
        ("runs/log-metric", b'{"run_id": "run_0", "key": "a", "value": NaN}', "INVALID_PARAMETER_VALUE"),
        ("runs/search", b'{"experiment_ids": ["0"], "max_results": 0}', "INVALID_PARAMETER_VALUE"),
        ("runs/get", b"{}", "ENDPOINT_NOT_FOUND"),
        ("nothing", b"{}", "ENDPOINT_NOT_FOUND"),
    ],
)
def test_errors_have_mlflows_form(uri: str, key: str, path: str, body: bytes, code: str) -> None:
    """Whatever is wrong: a code that its clients know, and a message."""
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    answered = httpx.post(f"{uri}/api/2.0/mlflow/{path}", content=body, headers=headers)
    assert answered.status_code in (400, 404)
    assert set(answered.json()) == {"error_code", "message"}
    assert answered.json()["error_code"] == code
    assert "/api/docs" not in answered.json()["message"]  # which does not have these operations
