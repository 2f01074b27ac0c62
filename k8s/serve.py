"""``KubernetesServe``: Serve on Kubernetes, where KubeRay hands to Ray what the RayService says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from k8s.cluster import Cluster
from k8s.objects import ray_service
from ml_core.cells.plan import Application, SeenApplication
from ml_core.cells.serve_api import ServeApi, serve_config

HTTP: Final = {"host": "0.0.0.0", "port": 8000}  # noqa: S104 - a pod; the NetworkPolicies say who reaches it
"""Where the ingress of each worker answers."""


class KubernetesServe:
    """See ``ml_core.cells.loop.Serve``.

    Args:
        cluster: Where the RayService is.
        name: Its name.
        active: Ray's REST interface of its active cluster.
    """

    def __init__(self, cluster: Cluster, name: str, active: ServeApi) -> None:
        self._cluster = cluster
        self._name = name
        self._active = active

    def status(self) -> Mapping[str, SeenApplication]:
        """The applications of the active cluster. A cluster that an upgrade has started gets the same configuration."""
        return self._active.status()

    def declare(self, applications: Sequence[Application]) -> None:
        """Change the RayService; KubeRay tells Ray within seconds."""
        self._cluster.apply(self.body(applications))

    def body(self, applications: Sequence[Application]) -> dict[str, Any]:
        """What ``declare`` sends."""
        return ray_service(self._name, serve_config(applications, HTTP))
