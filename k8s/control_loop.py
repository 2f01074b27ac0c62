"""The dispatcher of jobs as a process of Kubernetes: ``python -m k8s.control_loop --template FILE``.

It starts each job as a RayJob, and is the one process of the platform with rights in Kubernetes. Killed at any time, it
finds its jobs again.
"""

from __future__ import annotations

import argparse
import logging
import signal
import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import yaml

from k8s.cluster import Cluster
from k8s.runner import KubernetesRunner
from ml_core.database.connection import DatabaseConnection
from ml_core.jobs.dispatcher import Dispatcher
from ml_core.settings import Settings, required

_NAME = "kubernetes"


def main(arguments: Sequence[str] | None = None) -> None:
    """Dispatch jobs until SIGTERM or SIGINT; the jobs go on.

    Raises:
        ConfigurationError: The settings name no database.
        PlatformError: The pod has no credentials.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    parser = argparse.ArgumentParser(prog="k8s.control_loop", description="Start jobs as RayJobs.")
    parser.add_argument("--template", type=Path, required=True, help="a RayJob with what all have in common, as YAML")
    given = parser.parse_args(arguments)
    settings = Settings.from_environment()
    required(settings.database.url, "MLCORE_DATABASE_URL", "The control loop")
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    template = yaml.safe_load(given.template.read_text(encoding="utf-8"))
    runner = KubernetesRunner(Cluster.of_this_pod(), template, _NAME)
    with closing(DatabaseConnection(settings=settings)) as db:
        Dispatcher(db, runner, cpus=settings.jobs.cpus, name=_NAME).run(stopped)


if __name__ == "__main__":
    main()
