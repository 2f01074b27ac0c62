"""The control API as the Ray Serve application ``control``, at ``/api`` of the ingress.

Ray Serve's configuration names ``deployments.control_api:app``. It is one process apart from the cells, at a lower
priority, so that nothing that it does takes a processor that a prediction wants. It needs no registry to start, and
finds one that was away again by itself.
"""

from __future__ import annotations

import dataclasses

import anyio.to_thread
from ray import serve
from ray.serve.config import BackpressureConfig
from starlette.types import ASGIApp

from ml_core.api.access import Services
from ml_core.api.app import create_app
from ml_core.api.bounds import MAX_IN_FLIGHT
from ml_core.database.connection import DatabaseConnection
from ml_core.exceptions import ConfigurationError
from ml_core.platform.processes import set_priority
from ml_core.settings import Settings

_NICENESS = 5
"""On Linux a third of the weight of a replica where both want the same processor; a training runs at 10."""

_THREADS = 20
"""Operations that run at the same time; others wait until their deadline. The embedded server takes 100 sessions."""


class ControlApi:
    """The only replica.

    Raises:
        ConfigurationError: No database is named: it never starts one of its own.
    """

    async def __init__(self) -> None:  # type: ignore[misc]  # Serve awaits it
        set_priority(_NICENESS)
        settings = Settings.from_environment()
        if settings.database.url is None:
            raise ConfigurationError(
                "The control API needs to know where the registry is.",
                remedy="Set MLCORE_DATABASE_URL (and MLCORE_DATABASE_INGEST_URL) in its environment.",
                setting="MLCORE_DATABASE_URL",
            )
        anyio.to_thread.current_default_thread_limiter().total_tokens = _THREADS
        # A session for each thread: who waits, waits for a thread, and not until the pool gives up.
        # They are kept open: one that is opened on demand costs Postgres a process, each time.
        pool_size = max(settings.database.pool_size, _THREADS)
        database = dataclasses.replace(settings.database, pool_size=pool_size)
        self._services = Services(DatabaseConnection(settings=dataclasses.replace(settings, database=database)))

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Called by Serve after the constructor, in the replica."""
        application = create_app(self._services, host_sends_request_id=True)
        application.openapi()  # takes a second: not on the event loop, for whoever asks first
        return application


app = serve.deployment(
    name="ControlApi",
    # Above the application's own bound, which answers in the platform's shape; these are the backstop behind it.
    max_ongoing_requests=2 * MAX_IN_FLIGHT,
    max_queued_requests=MAX_IN_FLIGHT,
    backpressure_config=BackpressureConfig(status_code=429, retry_after_s=1),
    # It is flushed on the event loop.
    logging_config={"enable_access_log": False},
)(serve.ingress()(ControlApi)).bind()
