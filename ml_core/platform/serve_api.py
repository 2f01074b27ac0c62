"""Ray Serve: the configuration of the platform, and the client of the REST interface that declares it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx

from ml_core.exceptions import Action, PlatformError

SHARED_CELL = "shared"
"""The application that serves all tenants without a dedicated cell."""
CONTROL = "control"
"""The application of the control API."""
CONTROL_LOOP = "control-loop"
"""The application of the control loop, which has no route."""

# Processors that Ray's scheduler reserves per replica; small, so that a laptop has room for training.
_REPLICA_CPUS = 0.1
_PATH = "/api/serve/applications/"
# The first declaration also starts Serve's controller and the ingress, which takes about 8 s on two idle cores.
_DECLARE_TIMEOUT_S = 120.0
_ASK_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class ApplicationStatus:
    """The status of a Serve application: ``RUNNING``, ``DEPLOYING``, ``DEPLOY_FAILED``, …, and Serve's message."""

    status: str
    message: str
    running_replicas: int


class ServeApi:
    """Client of the Ray dashboard on this machine.

    Args:
        port: The port of the dashboard.
        token: Ray's authentication token.
    """

    def __init__(self, port: int, token: str) -> None:
        # trust_env=False: a proxy must not get requests to the loopback interface.
        self._client = httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {token}"}, trust_env=False
        )

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def declare(self, config: dict[str, Any]) -> None:
        """Replace the configuration of Serve. Deployments start in the background; see ``status``.

        Raises:
            PlatformError: Serve can't be reached or refused the configuration; has its message.
        """
        response = self._ask("PUT", timeout=_DECLARE_TIMEOUT_S, json=config)
        if response.is_error:
            raise PlatformError(
                f"Ray Serve refused its configuration (status {response.status_code}): {_last_line(response.text)}",
                remedy="See the platform's logs, then stop the platform and start it again.",
                action=Action("down"),
                component="serve",
            )

    def status(self) -> dict[str, ApplicationStatus]:
        """The status of each application, by name.

        Raises:
            PlatformError: Serve can't be reached.
        """
        response = self._ask("GET", timeout=_ASK_TIMEOUT_S)
        if response.is_error:
            raise _unreachable(f"status {response.status_code}")
        return {name: _status(found) for name, found in response.json().get("applications", {}).items()}

    def _ask(self, method: str, *, timeout: float, json: dict[str, Any] | None = None) -> httpx.Response:
        try:
            return self._client.request(method, _PATH, timeout=timeout, json=json)
        except httpx.HTTPError as error:
            raise _unreachable(type(error).__name__) from error


def _status(found: dict[str, Any]) -> ApplicationStatus:
    replicas = [replica for deployment in found["deployments"].values() for replica in deployment["replicas"]]
    messages = [found["message"], *(deployment["message"] for deployment in found["deployments"].values())]
    return ApplicationStatus(
        status=found["status"],
        message=" ".join(message for message in messages if message),
        running_replicas=sum(replica["state"] == "RUNNING" for replica in replicas),
    )


def _unreachable(why: str) -> PlatformError:
    return PlatformError(
        f"Ray's REST interface does not answer ({why}).",
        remedy="Start the platform, which also repairs it.",
        action=Action("up"),
        component="ray",
    )


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "no message")


def serve_config(*, host: str, port: int, replicas: int) -> dict[str, Any]:
    """The body of ``PUT /api/serve/applications/``.

    It names no tenant: tenants and models are data that the replicas read from the registry.

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
            _application(CONTROL_LOOP, None, "deployments.control_loop:app", "ControlLoop", 1),
        ],
    }


def _application(
    name: str, route_prefix: str | None, import_path: str, deployment: str, replicas: int
) -> dict[str, Any]:
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
