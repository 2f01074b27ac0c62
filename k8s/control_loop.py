"""The control loop as a process of Kubernetes: ``python -m k8s.control_loop --service NAME --workers N``.

It keeps the cells as the placements ask, by the RayService, and dispatches jobs: to the Ray cluster that serves, or as
RayJobs with ``--template``. It is the one process of ours with rights in Kubernetes. Killed at any time, it goes on
where it was.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

import yaml

from k8s.cluster import Cluster
from k8s.runner import KubernetesRunner
from k8s.serve import KubernetesServe
from ml_core.cells.loop import CellLoop, Planner
from ml_core.cells.plan import CONTROL_LOOP, plan
from ml_core.cells.serve_api import ServeApi
from ml_core.database.connection import DatabaseConnection
from ml_core.domain.principal import Principal
from ml_core.jobs.dispatcher import Dispatcher, Runner
from ml_core.jobs.ray_jobs import RayJobRunner
from ml_core.jobs.retraining import Retrainer
from ml_core.monitoring.watch import Watch
from ml_core.platform.applications import OPTIONS, OTHERS
from ml_core.registry.placements import PlacementRepository
from ml_core.settings import Settings, required

# A custom resource of Ray that the workers have which are not added for jobs.
_ON_WORKERS: Final = {"ray_actor_options": {**OPTIONS["ray_actor_options"], "resources": {"cell": 0.001}}}


def main(arguments: Sequence[str] | None = None) -> None:
    """Keep the cells, and dispatch jobs, until SIGTERM or SIGINT; both go on.

    Raises:
        ConfigurationError: The settings name no database, or no Ray cluster.
        PlatformError: The pod has no credentials; with ``--dry-run`` also if Serve can't be reached.
    """
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    for package in ("ml_core", "k8s"):
        logging.getLogger(package).setLevel(logging.INFO)
    given = parser().parse_args(arguments)
    settings = Settings.from_environment()
    required(settings.database.url, "MLCORE_DATABASE_URL", "The control loop")
    ray_url = required(settings.jobs.ray_url, "MLCORE_RAY_URL", "The control loop")
    plans = planner(given.workers)
    cluster = Cluster.of_this_pod()
    with ExitStack() as stack:
        db = stack.enter_context(DatabaseConnection(settings=settings))
        active = ServeApi(ray_url, settings.jobs.ray_token, {})
        stack.callback(active.close)
        serve = KubernetesServe(cluster, given.service, active)
        if given.dry_run:
            wanted = plans(PlacementRepository(db).placed(), serve.status(), now=time.time())
            yaml.safe_dump(serve.body(wanted.applications), sys.stdout, sort_keys=False)
            return
        named = db.acting_as(Principal.operator(CONTROL_LOOP))  # in the audit of a move
        # A name for each runner: what the one has started ends, though the release has the other one now.
        if given.template is None:
            name = "ray"
            runner: Runner = RayJobRunner(ray_url, settings.jobs.ray_token, name)
        else:
            name = "kubernetes"
            runner = KubernetesRunner(cluster, yaml.safe_load(given.template.read_text(encoding="utf-8")), name)
        dispatcher = Dispatcher(db, runner, cpus=settings.jobs.cpus, name=name)
        _run([CellLoop(named, serve, plans), dispatcher, Retrainer(named), Watch(named)])


def _run(loops: Sequence[CellLoop | Dispatcher | Retrainer | Watch]) -> None:
    """Run them until a signal, or until one ends; then Kubernetes starts the process again."""
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())

    def run(loop: CellLoop | Dispatcher | Retrainer | Watch) -> None:
        try:
            loop.run(stopped)
        finally:
            stopped.set()

    threads = [threading.Thread(target=run, args=(loop,), name=type(loop).__name__) for loop in loops]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def planner(workers: int) -> Planner:
    """What plans the applications: those of one machine, on the workers that stay, and without the control loop."""
    others = [
        {**each, "deployments": [{**deployment, **_ON_WORKERS} for deployment in each["deployments"]]}
        for each in OTHERS
        if each["name"] != CONTROL_LOOP
    ]
    return partial(plan, options=_ON_WORKERS, others=others, nodes=workers)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="k8s.control_loop", description="Keep the cells, and dispatch jobs.")
    made.add_argument("--service", required=True, help="the RayService")
    made.add_argument("--workers", type=int, required=True, help="workers over which the replicas of a cell spread")
    made.add_argument(
        "--template", type=Path, help="a RayJob with what all have in common; default: jobs run on the workers"
    )
    made.add_argument("--dry-run", action="store_true", help="print what would be sent to Kubernetes now, and end")
    return made


if __name__ == "__main__":
    main()
