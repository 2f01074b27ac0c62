"""What MLflow's servers have and the platform has not, answered with MLflow's own form of errors."""

from __future__ import annotations

from typing import Final

import orjson
from fastapi import Response, status

from ml_core.api.routes.adding import operation
from ml_core.api.routes.mlflow.routing import router
from ml_core.domain.api_key import Scope

_INSTEAD: Final = {
    ("registered-models", "model-versions"): "MLflow's model registry is not served here. Register versions with"
    " `mlcore models register`, or train them with `mlcore train`, and move them with `mlcore promote`.",
    ("traces", "spans", "assessments"): "Traces are not recorded here; runs are.",
    ("mpu", "presigned"): "Artifacts are sent in one request: unset MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD.",
}
"""Parts of paths → what to use instead."""


def absent(path: str) -> Response:
    """Say what is not there, and what to use instead."""
    parts = set(path.split("/"))
    for names, message in _INSTEAD.items():
        if parts & set(names):
            return _refused(status.HTTP_501_NOT_IMPLEMENTED, "NOT_IMPLEMENTED", message)
    message = "The platform has no such endpoint: it has MLflow's tracking of experiments, runs, artifacts and models."
    return _refused(status.HTTP_404_NOT_FOUND, "ENDPOINT_NOT_FOUND", message)


def _refused(code: int, name: str, message: str) -> Response:
    return Response(orjson.dumps({"error_code": name, "message": message}), code, media_type="application/json")


def add_last() -> None:
    """Add the operations that have every path that no operation before them has."""
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        operation(router, method, "/{path:path}", f"mlflow.absent.{method.lower()}", Scope.READ)(absent)
