"""``Cluster``: what it sends to the API server, and how it understands the answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import kubernetes
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from k8s.cluster import Cluster
from k8s.objects import ray_service
from ml_core.exceptions import PlatformError
from support.http_server import served
from support.kubernetes_api import write_kubeconfig

BODY = ray_service("ml", {"applications": []})


def apply(kubeconfig: Path, status: int, answer: dict[str, Any]) -> Request:
    """Apply an object to a server that answers so; what it got."""
    got: list[tuple[Request, bytes]] = []

    async def respond(request: Request) -> JSONResponse:
        got.append((request, await request.body()))
        return JSONResponse(answer, status)

    with served(Starlette(routes=[Route("/{path:path}", respond, methods=["PATCH"])])) as port:
        write_kubeconfig(kubeconfig, port)
        client = kubernetes.config.new_client_from_config(str(kubeconfig))
        Cluster(client, "mlcore").apply(BODY)
    ((request, sent),) = got
    assert json.loads(sent) == BODY
    return request


@pytest.mark.parametrize("status", [200, 201])
def test_an_object_is_created_or_changed_by_one_request(tmp_path: Path, status: int) -> None:
    """By server-side apply, in the name of the platform."""
    request = apply(tmp_path / "config", status, BODY)
    assert request.url.path == "/apis/ray.io/v1/namespaces/mlcore/rayservices/ml"
    assert request.headers["content-type"] == "application/apply-patch+yaml"
    assert dict(request.query_params) == {"fieldManager": "ml-platform", "force": "true"}


@pytest.mark.parametrize(
    ("status", "words"), [(403, "Give the service account the Role"), (404, "CRDs"), (422, "Correct what")]
)
def test_a_refusal_says_what_to_do(tmp_path: Path, status: int, words: str) -> None:
    """With the words of the API server."""
    with pytest.raises(PlatformError, match="no such field") as refused:
        apply(tmp_path / "config", status, {"message": "no such field"})
    assert words in str(refused.value)
