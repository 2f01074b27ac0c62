"""A cell: the Ray Serve application whose replicas answer every tenant's requests.

Ray Serve's configuration names ``deployments.cell:app``. Tenants and models are no part of it: each replica follows the
registry. A replica comes up when it has the assignment, or not ready when the registry is down: it is not restarted for
that, it keeps trying.
"""

from __future__ import annotations

import asyncio

from ray import serve
from ray.serve.config import BackpressureConfig
from starlette.types import ASGIApp

from deployments.telemetry import Telemetry
from ml_core.inference.edge.app import MAX_IN_FLIGHT, MAX_READING, build_app
from ml_core.inference.process import tune_process
from ml_core.inference.replica import Replica
from ml_core.settings import Settings

# Long enough for some hundred small models; Serve routes to the replica only afterwards.
_START_WAIT_S = 20.0


class Cell:
    """One replica."""

    async def __init__(self) -> None:  # type: ignore[misc]  # Serve awaits it
        tune_process()
        # Serve's own name of the replica, by which its log file is called.
        replica_id = serve.get_replica_context().replica_id.unique_id
        settings = Settings.from_environment()
        self._telemetry = Telemetry(settings.observability)
        self._replica = Replica(settings, replica_id, self._telemetry.hooks)
        await asyncio.to_thread(self._replica.start, _START_WAIT_S)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Called by Serve after the constructor, in the replica."""
        return self._telemetry.traced(build_app(self._replica.service, host_sends_request_id=True))

    def check_health(self) -> None:
        """Called by Serve; an exception replaces the replica."""
        self._replica.check_health()

    def __del__(self) -> None:
        """Called by Serve before the process ends."""
        if hasattr(self, "_replica"):
            self._replica.stop()
            self._telemetry.close()


app = serve.deployment(
    name="Cell",
    # Above the edge's own bounds, which answer in the platform's shape; these two are the backstop behind them.
    max_ongoing_requests=2 * (MAX_IN_FLIGHT + MAX_READING),
    max_queued_requests=2 * MAX_IN_FLIGHT,
    backpressure_config=BackpressureConfig(status_code=429, retry_after_s=1),
    # Written on the event loop in bursts of 1,000 records: 17 ms, three times a second under load.
    logging_config={"enable_access_log": False},
)(serve.ingress()(Cell)).bind()
