"""Ray Serve's REST interface: declares applications and reports them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from ml_core.cells.plan import Application, SeenApplication
from ml_core.exceptions import Action, PlatformError

_PATH = "/api/serve/applications/"
# The first declaration also starts Serve's controller and the ingress, which takes about 8 s on two idle cores.
_DECLARE_TIMEOUT_S = 120.0
_ASK_TIMEOUT_S = 5.0


def serve_config(applications: Sequence[Application], http: Mapping[str, Any]) -> dict[str, Any]:
    """Serve's declarative configuration.

    Args:
        applications: Its applications.
        http: ``http_options``: the interface and port of the ingress.
    """
    return {"proxy_location": "EveryNode", "http_options": dict(http), "applications": list(applications)}


class ServeApi:
    """Client of Ray's dashboard.

    Args:
        url: The address of the dashboard.
        token: Ray's authentication token; None if Ray asks for none.
        http: As for ``serve_config``.
    """

    def __init__(self, url: str, token: str | None, http: Mapping[str, Any]) -> None:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        # trust_env=False: a proxy must not get requests to the loopback interface.
        self._client = httpx.Client(base_url=url, headers=headers, trust_env=False)
        self._http = http

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def declare(self, applications: Sequence[Application]) -> None:
        """Replace the configuration of Serve: what it lacks is removed. Applications start in the background.

        Raises:
            PlatformError: Serve can't be reached or refused the configuration; has its message.
        """
        response = self._ask("PUT", timeout=_DECLARE_TIMEOUT_S, json=serve_config(applications, self._http))
        if response.is_error:
            raise PlatformError(
                f"Ray Serve refused its configuration (status {response.status_code}): {_cause(response.text)}",
                remedy="See the platform's logs, then stop the platform and start it again.",
                action=Action("down"),
                component="serve",
            )

    def status(self) -> dict[str, SeenApplication]:
        """The status of each application, by name.

        Raises:
            PlatformError: Serve can't be reached.
        """
        response = self._ask("GET", timeout=_ASK_TIMEOUT_S)
        if response.is_error:
            raise _unreachable(f"status {response.status_code}")
        return {name: _seen(found) for name, found in response.json().get("applications", {}).items()}

    def _ask(self, method: str, *, timeout: float, json: dict[str, Any] | None = None) -> httpx.Response:
        try:
            return self._client.request(method, _PATH, timeout=timeout, json=json)
        except httpx.HTTPError as error:
            raise _unreachable(type(error).__name__) from error


def _seen(found: dict[str, Any]) -> SeenApplication:
    replicas = [replica for deployment in found["deployments"].values() for replica in deployment["replicas"]]
    messages = [found["message"], *(deployment["message"] for deployment in found["deployments"].values())]
    return SeenApplication(
        status=found["status"],
        message=" ".join(message for message in messages if message),
        running_replicas=sum(replica["state"] == "RUNNING" for replica in replicas),
        route_prefix=found["route_prefix"],
        declared_at=found["last_deployed_time_s"],
        config=found["deployed_app_config"],
    )


def _unreachable(why: str) -> PlatformError:
    return PlatformError(
        f"Ray's REST interface does not answer ({why}).",
        remedy="Start the platform, which also repairs it.",
        action=Action("up"),
        component="ray",
    )


def _cause(text: str) -> str:
    """The line that says why: the first alert of HAProxy, whose last one says only that it ends; else the last line."""
    lines = [line for line in text.splitlines() if line.strip()] or ["no message"]
    return next((line for line in lines if "[ALERT]" in line), lines[-1])
