"""The declarative configuration of Ray Serve, as a pure function.

It names no tenant: tenants and models are data that the replicas read from the registry.
"""

from __future__ import annotations

from typing import Any

SHARED_CELL = "shared"
"""The application that serves all tenants without a dedicated cell."""
CONTROL = "control"
"""The application of the control API."""

# Processors that Ray's scheduler reserves per replica; small, so that a laptop has room for training.
_REPLICA_CPUS = 0.1


def serve_config(*, host: str, port: int, replicas: int) -> dict[str, Any]:
    """The body of ``PUT /api/serve/applications/``.

    Args:
        host: The interface of the ingress.
        port: The port of the ingress.
        replicas: The number of replicas of the shared cell.
    """
    return {
        "proxy_location": "EveryNode",
        "http_options": {"host": host, "port": port},
        "applications": [
            _application(SHARED_CELL, "/", "deployments.cell:app", "Cell", replicas),
            # The longer prefix has precedence.
            _application(CONTROL, "/api", "deployments.control_api:app", "ControlApi", 1),
        ],
    }


def _application(name: str, route_prefix: str, import_path: str, deployment: str, replicas: int) -> dict[str, Any]:
    return {
        "name": name,
        "route_prefix": route_prefix,
        "import_path": import_path,
        "deployments": [
            {
                "name": deployment,
                "num_replicas": replicas,
                # Serve replaces a dead replica at the next check; its default is 10 s.
                "health_check_period_s": 1.0,
                "graceful_shutdown_timeout_s": 5.0,
                # Start the new replica before the old one stops; the default stops first.
                "max_surge_percent": 100,
                "ray_actor_options": {"num_cpus": _REPLICA_CPUS},
            }
        ],
    }
