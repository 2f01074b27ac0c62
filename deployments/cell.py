"""A cell: the Ray Serve application whose replicas answer prediction requests, as ``deployments.cell:app``.

Tenants and models are not part of its configuration: each replica follows the registry. Serve routes requests to a
replica only once it has loaded the models that were asked recently. If the registry is unavailable for too long, it
starts in the state "not ready" and keeps trying, or fails to start if ``MLCORE_REQUIRE_ASSIGNMENT`` is set.
"""

from __future__ import annotations

import asyncio

from ray import serve
from ray.serve.config import BackpressureConfig
from starlette.types import ASGIApp

from deployments.direct import behind_serve
from deployments.ingress import serve_directly
from deployments.telemetry import Telemetry
from ml_core.domain.placement import SHARED_CELL
from ml_core.inference.edge.app import MAX_IN_FLIGHT, MAX_READING, TENANT_SHARE, build_app
from ml_core.inference.edge.session import SessionCookie
from ml_core.inference.replica import START_WAIT_S, Replica, tune_process
from ml_core.settings import Settings


class Cell:
    """One replica."""

    async def __init__(self) -> None:  # type: ignore[misc]  # Serve awaits it
        tune_process()
        # Serve's id of the replica is also in the name of its log file; the application is named as the cell.
        context = serve.get_replica_context()
        settings = Settings.from_environment()
        # The tenant of a dedicated cell has all places.
        self._tenant_share = TENANT_SHARE if context.app_name == SHARED_CELL else 1
        self._telemetry = Telemetry(settings.observability)
        self._replica = Replica(settings, context.replica_id.unique_id, self._telemetry.hooks, cell=context.app_name)
        await asyncio.to_thread(self._replica.start, START_WAIT_S)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Called by Serve after the constructor, in the replica."""
        edge = build_app(self._replica.service, tenant_share=self._tenant_share)
        app = self._telemetry.traced(SessionCookie(edge, self._replica.sessions))
        serve_directly(app)
        return behind_serve(app)

    async def check_health(self) -> None:
        """Called by Serve; an exception replaces the replica."""
        await asyncio.to_thread(self._replica.check_health)

    def __del__(self) -> None:
        """Called by Serve before the process ends."""
        if hasattr(self, "_replica"):
            self._replica.stop()
            self._telemetry.close()


app = serve.deployment(
    name="Cell",
    # Higher than the limits of the edge, whose errors have the platform's format.
    max_ongoing_requests=2 * (MAX_IN_FLIGHT + MAX_READING),
    max_queued_requests=2 * MAX_IN_FLIGHT,
    # Serve gives up at the lower of this and RAY_SERVE_MAX_PER_REPLICA_RETRY_COUNT (3) for each replica. A cluster sets
    # that higher, since a replica that requires an assignment fails until the database is available.
    max_constructor_retry_count=1_000_000,
    backpressure_config=BackpressureConfig(status_code=429, retry_after_s=1),
    # Serve writes the access log on the event loop in batches of 1,000 records: 17 ms, three times a second under load.
    logging_config={"enable_access_log": False},
)(serve.ingress()(Cell)).bind()
