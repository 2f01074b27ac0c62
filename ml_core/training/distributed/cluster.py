"""The Ray cluster that the work of this process is done on."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import ray
from ray.exceptions import RayError

from ml_core.exceptions import ClusterUnavailableError, PlatformError

_log = logging.getLogger(__name__)
_init = partial(ray.init, log_to_driver=False, logging_level=logging.WARNING)


@contextmanager
def joined(cores: float, *, start: int | None = None) -> Iterator[None]:
    """Be a driver of the cluster that ``RAY_ADDRESS`` names, unless this process is one, as long as the block lasts.

    Args:
        cores: That the cluster must have.
        start: The cores of a Ray that is started for the block where ``RAY_ADDRESS`` names none; None: start none.

    Raises:
        ClusterUnavailableError: There is no cluster, or it does not answer.
        PlatformError: It has fewer cores.
    """
    is_own = not ray.is_initialized()
    if not join():
        if start is None:
            raise ClusterUnavailableError(
                "This process is no job of a Ray cluster.",
                remedy="Submit the job to a platform, or give it one core.",
                component="ray",
            )
        _log.info("RAY_ADDRESS names no Ray, so one with %d cores is started here.", start)
        os.environ.setdefault("RAY_worker_niceness", "0")  # that of this process; Ray's default is 15 more
        # On the loopback interface: by default Ray listens on that of the network.
        _init(address="local", num_cpus=start, include_dashboard=False, _node_ip_address="127.0.0.1")
    try:
        found = float(ray.cluster_resources().get("CPU", 0.0))  # type: ignore[no-untyped-call]
        if found < cores:
            raise PlatformError(
                f"The job was given {cores:g} cores; the Ray cluster has {found:g}, so {cores - found:g} are missing.",
                remedy="Add nodes, or submit the job again with fewer cores.",
                component="ray",
            )
        yield
    finally:
        if is_own:
            ray.shutdown()


def node_cores() -> tuple[float, ...]:
    """The cores of each node that has any, of the cluster that ``joined`` would join; none: there is no cluster.

    Raises:
        ClusterUnavailableError: It does not answer.
    """
    if not ray.is_initialized() and not os.environ.get("RAY_ADDRESS"):
        return ()
    with joined(0):
        alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        return tuple(resources["CPU"] for resources in alive if resources.get("CPU", 0) >= 1)


def join() -> bool:
    """Be a driver of the cluster that ``RAY_ADDRESS`` names; whether this process is a driver now.

    Raises:
        ClusterUnavailableError: It does not answer.
    """
    if not ray.is_initialized():
        if not os.environ.get("RAY_ADDRESS"):
            return False
        try:
            _init(address="auto")
        except (RayError, ConnectionError, RuntimeError, ValueError) as error:
            raise ClusterUnavailableError(
                "The Ray cluster can't be joined.",
                remedy="See Ray's dashboard and its logs, and whether RAY_ADDRESS and its token are right.",
                internal=str(error),
                component="ray",
            ) from error
    return True
