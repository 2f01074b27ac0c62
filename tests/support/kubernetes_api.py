"""An API server of Kubernetes for what reads a release: lists by their path, and a kubeconfig that names it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from support.http_server import served
from support.releases import Release

CONTEXT = "somewhere"
_KINDS = {"rayservices": "RayService", "rayclusters": "RayCluster", "pods": "Pod", "jobs": "Job", "events": "Event"}


class Server:
    """The namespace ``mlcore`` with one release.

    Attributes:
        release: What is there.
        knows_kuberay: Whether its kinds are.
        refusals: Kind in an URL → status with which it is refused.
    """

    def __init__(self) -> None:
        self.release = Release()
        self.knows_kuberay = True
        self.refusals: dict[str, int] = {}

    def answer(self, request: Request) -> Response:
        """The answer to a request, as an API server gives it."""
        *_, namespace, kind = ["", "", *request.url.path.strip("/").split("/")]
        if kind in self.refusals:
            status = self.refusals[kind]
            return JSONResponse({"kind": "Status", "message": f"{kind} is refused", "code": status}, status)
        if namespace == "namespaces":
            known = {"metadata": {"name": kind}}
            return JSONResponse(known) if kind == "mlcore" else JSONResponse({"message": "not found"}, 404)
        if kind.startswith("ray") and not self.knows_kuberay:
            return PlainTextResponse("404 page not found\n", 404)
        items = self.release.objects[_KINDS[kind]] if namespace == "mlcore" else []
        return JSONResponse({"items": [each for each in items if _is_selected(each, request)]})


def _is_selected(found: dict[str, Any], request: Request) -> bool:
    wanted = request.query_params.get("labelSelector", "")
    pairs = (each.split("=") for each in wanted.split(",") if each)
    return all(found["metadata"]["labels"].get(name) == value for name, value in pairs)


@contextmanager
def api_server(kubeconfig: Path) -> Iterator[Server]:
    """A server until the block ends, in a context of this kubeconfig."""
    server = Server()
    app = Starlette(routes=[Route("/{path:path}", server.answer)])
    with served(app) as port:
        write_kubeconfig(kubeconfig, port)
        yield server


def write_kubeconfig(path: Path, port: int) -> None:
    """A kubeconfig whose only context is a server on this machine."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": CONTEXT, "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": CONTEXT, "user": {"token": "a token"}}],
        "contexts": [{"name": CONTEXT, "context": {"cluster": CONTEXT, "user": CONTEXT}}],
        "current-context": CONTEXT,
    }
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
