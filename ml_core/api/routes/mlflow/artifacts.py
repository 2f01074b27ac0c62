"""Artifacts in MLflow's protocol: clients send and read the files of runs through the tracking server.

The path of a file is its run's id and its name. Nothing is ever loaded from its bytes.
"""

from __future__ import annotations

from typing import Any, Final

from fastapi import Request, Response
from starlette.concurrency import run_in_threadpool

from ml_core.api.access import TenantAccess
from ml_core.api.bodies import Download, received
from ml_core.api.routes.adding import operation
from ml_core.api.routes.mlflow.forms import ARTIFACTS
from ml_core.api.routes.mlflow.routing import answer, rest, router
from ml_core.domain.api_key import Scope
from ml_core.registry.runs import RunRepository

_ROOT: Final = "/api/2.0/mlflow-artifacts/artifacts"
_FILE: Final = "application/octet-stream"


@operation(router, "PUT", f"{_ROOT}/{{path:path}}", "mlflow.artifacts.put", Scope.TRAIN, receives=(_FILE,))
async def put(access: TenantAccess, path: str, request: Request) -> Response:
    """Store a file with its run; one of the same name is replaced."""
    run_id, name = _parts(path)
    settings = access.db.settings
    async with received(request, settings.platform.home / "uploads", settings.api.max_upload_bytes) as file:
        await run_in_threadpool(access.of(RunRepository).artifacts.log, run_id, name, file)
    return answer({})


@operation(router, "GET", f"{_ROOT}/{{path:path}}", "mlflow.artifacts.download", Scope.READ)
def download(access: TenantAccess, path: str) -> Download:
    """Download a file."""
    run_id, name = _parts(path)
    return Download(access.of(RunRepository).artifacts.open(run_id, name), media_type=_FILE)


@operation(router, "DELETE", f"{_ROOT}/{{path:path}}", "mlflow.artifacts.delete", Scope.TRAIN)
def delete(access: TenantAccess, path: str) -> Response:
    """Delete a file, or all files below a path."""
    run_id, name = _parts(path)
    artifacts = access.of(RunRepository).artifacts
    for each in artifacts.list(run_id):
        if not name or each.name == name or each.name.startswith(f"{name}/"):
            artifacts.delete(run_id, each.name)
    return answer({})


@operation(router, "GET", _ROOT, "mlflow.artifacts.get", Scope.READ)
def list_files(access: TenantAccess, path: str = "") -> Response:
    """What is directly below a path, by names that are relative to it."""
    run_id, folder = _parts(path)
    return answer({"files": _below(access, run_id, folder)})


@rest("GET", "artifacts/list", Scope.READ)
def list_of_run(access: TenantAccess, run_id: str, path: str = "") -> Response:
    """What is directly below a path of a run, by names that are relative to the run."""
    folder = path.strip("/")
    before = f"{folder}/" if folder else ""
    files = [{**each, "path": f"{before}{each['path']}"} for each in _below(access, run_id, folder)]
    return answer({"root_uri": f"{ARTIFACTS}{run_id}", "files": files})


def _below(access: TenantAccess, run_id: str, folder: str) -> list[dict[str, Any]]:
    before = f"{folder}/" if folder else ""
    files: dict[str, dict[str, Any]] = {}
    for each in access.of(RunRepository).artifacts.list(run_id):
        if each.name.startswith(before):
            name, slash, _ = each.name[len(before) :].partition("/")
            is_folder = {"path": name, "is_dir": True}
            files[name] = is_folder if slash else {"path": name, "is_dir": False, "file_size": each.size_bytes}
    return list(files.values())


def _parts(path: str) -> tuple[str, str]:
    """The run of a path, and the name of the file or folder."""
    run_id, _, name = path.strip("/").partition("/")
    return run_id, name
