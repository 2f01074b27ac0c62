"""The control loop: the Ray Serve application ``control-loop`` (``deployments.control_loop:app``). It has no route.

Serve starts it again when its process dies. It dispatches jobs to the Ray cluster that it runs in, and keeps the cells
as the placements ask.
"""

from __future__ import annotations

import logging
import os
import threading
from contextlib import ExitStack
from functools import partial

from ray import serve

from ml_core.cells.loop import CellLoop
from ml_core.cells.plan import plan
from ml_core.database.connection import DatabaseConnection
from ml_core.domain.principal import Principal
from ml_core.jobs.dispatcher import Dispatcher
from ml_core.jobs.ray_jobs import RayJobRunner
from ml_core.jobs.retraining import Retrainer
from ml_core.monitoring.watch import Watch
from ml_core.platform.applications import OPTIONS, OTHERS, serve_api
from ml_core.platform.processes import set_priority
from ml_core.settings import Settings, required

_NICENESS = 5
_NAME = "control-loop"
_STOP_S = 10.0


class ControlLoop:
    """The replica of the control loop.

    Raises:
        ConfigurationError: The settings name no database, or no Ray cluster.
    """

    def __init__(self) -> None:
        set_priority(os.getpriority(os.PRIO_PROCESS, 0) + _NICENESS)
        settings = Settings.from_environment()
        required(settings.database.url, "MLCORE_DATABASE_URL", "The control loop")
        ray_url = required(settings.jobs.ray_url, "MLCORE_RAY_URL", "The control loop")
        self._stack = ExitStack()
        db = self._stack.enter_context(DatabaseConnection(settings=settings))
        runner = RayJobRunner(ray_url, settings.jobs.ray_token, _NAME)
        self._stack.callback(runner.close)
        serve_client = serve_api(ray_url, settings.jobs.ray_token, settings.platform.http_port)
        self._stack.callback(serve_client.close)
        # A file of its own: Serve writes a replica's log a thousand lines at a time.
        plans = logging.FileHandler(settings.platform.home / "logs" / f"{_NAME}.log")
        plans.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logging.getLogger("ml_core").addHandler(plans)
        logging.getLogger("ml_core.cells").setLevel(logging.INFO)
        named = db.acting_as(Principal.operator(_NAME))  # in the audit of a move
        loops = (
            Dispatcher(db, runner, cpus=settings.jobs.cpus, name=_NAME),
            CellLoop(named, serve_client, partial(plan, options=OPTIONS, others=OTHERS)),
            Retrainer(named),
            Watch(named),
        )
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=loop.run, args=(self._stopped,), name=type(loop).__name__, daemon=True)
            for loop in loops
        ]
        for thread in self._threads:
            thread.start()

    def check_health(self) -> None:
        """Called by Serve, which replaces a replica that raises."""
        for thread in self._threads:
            if not thread.is_alive():
                raise RuntimeError(f"The thread {thread.name} has ended.")

    def __del__(self) -> None:
        """Called by Serve when the replica is stopped; the jobs go on."""
        self._stopped.set()
        for thread in self._threads:
            thread.join(_STOP_S)
        self._stack.close()


app = serve.deployment(name="ControlLoop")(ControlLoop).bind()
