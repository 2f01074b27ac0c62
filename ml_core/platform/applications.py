"""What the Serve applications are on one machine: the arguments of ``ml_core.cells.plan``."""

from __future__ import annotations

from typing import Any, Final

from ml_core.cells.plan import CONTROL, CONTROL_LOOP, Application, application
from ml_core.cells.serve_api import ServeApi
from ml_core.platform.ports import HOST

# Processors that Ray's scheduler reserves per replica; small, so that a laptop has room for training.
OPTIONS: Final[dict[str, Any]] = {"ray_actor_options": {"num_cpus": 0.1}}

OTHERS: Final[tuple[Application, ...]] = (
    # The longer prefix has precedence.
    application(CONTROL, "/api", "deployments.control_api:app", "ControlApi", {"num_replicas": 1, **OPTIONS}),
    application(CONTROL_LOOP, None, "deployments.control_loop:app", "ControlLoop", {"num_replicas": 1, **OPTIONS}),
)


def serve_api(ray_url: str, token: str | None, http_port: int) -> ServeApi:
    """The client of Ray's REST interface, with the ingress on the loopback interface."""
    return ServeApi(ray_url, token, {"host": HOST, "port": http_port})
