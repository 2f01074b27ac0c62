"""The control API: the Ray Serve application ``control`` (``deployments.control_api:app``), at ``/api`` of the ingress.

It is a separate process with a lower priority than the cells, so that it does not delay predictions. It starts without
the registry, and reconnects by itself.
"""

from __future__ import annotations

import dataclasses
import os

import anyio.to_thread
from ray import serve
from ray.serve.config import BackpressureConfig
from starlette.types import ASGIApp

from ml_core.api.access import Services
from ml_core.api.app import create_app
from ml_core.api.bounds import MAX_IN_FLIGHT
from ml_core.database.connection import DatabaseConnection
from ml_core.platform.processes import set_priority
from ml_core.settings import Settings, required

# On Linux, a third of the weight of a replica when both need the same processor. A training has 10.
_NICENESS = 5

# Concurrent operations; others wait until their deadline. The embedded server permits 100 sessions.
_THREADS = 20


class ControlApi:
    """The replica of the control API.

    Raises:
        ConfigurationError: The settings name no database. It does not start the embedded server.
    """

    async def __init__(self) -> None:  # type: ignore[misc]  # Serve awaits it
        # Relative, because the platform and with it the cells may have been started with a lower priority.
        set_priority(os.getpriority(os.PRIO_PROCESS, 0) + _NICENESS)
        settings = Settings.from_environment()
        required(settings.database.url, "MLCORE_DATABASE_URL", "The control API")
        anyio.to_thread.current_default_thread_limiter().total_tokens = _THREADS
        # A session for each thread, so that operations wait for a thread and not for a session, which would time out.
        # All are kept open, because each new session starts a process of PostgreSQL.
        pool_size = max(settings.database.pool_size, _THREADS)
        database = dataclasses.replace(settings.database, pool_size=pool_size)
        self._services = Services(DatabaseConnection(settings=dataclasses.replace(settings, database=database)))

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Called by Serve after the constructor, in the replica."""
        application = create_app(self._services, host_sends_request_id=True)
        application.openapi()  # takes a second, which would block the event loop at the first request for it
        return application


app = serve.deployment(
    name="ControlApi",
    # Higher than the limit of the application, whose errors have the platform's format.
    max_ongoing_requests=2 * MAX_IN_FLIGHT,
    max_queued_requests=MAX_IN_FLIGHT,
    backpressure_config=BackpressureConfig(status_code=429, retry_after_s=1),
    # Serve writes the access log on the event loop.
    logging_config={"enable_access_log": False},
)(serve.ingress()(ControlApi)).bind()
