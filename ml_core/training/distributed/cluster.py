"""The Ray that work of this process is done on."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import ray

from ml_core.exceptions import PlatformError

_log = logging.getLogger(__name__)


@contextmanager
def joined_cluster(cpus: int) -> Iterator[str]:
    """Join the Ray that this process is connected to or ``RAY_ADDRESS`` names, else start one for the block.

    Args:
        cpus: The cores of one that is started.

    Yields:
        ``joined`` or ``local``.

    Raises:
        PlatformError: The Ray that ``RAY_ADDRESS`` names can't be joined, or has no core.
    """
    is_own, how = not ray.is_initialized(), "joined"
    if is_own:
        start = partial(ray.init, log_to_driver=False, logging_level=logging.WARNING)
        if os.environ.get("RAY_ADDRESS"):
            try:
                start(address="auto")
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise PlatformError(
                    "The Ray cluster can't be joined.",
                    internal=str(error),
                    remedy="See whether RAY_ADDRESS is right and its token is set, or unset it to use a local Ray.",
                    component="ray",
                ) from error
        else:
            how = "local"
            os.environ.setdefault("RAY_worker_niceness", "0")  # that of this process; Ray's default is 15 more
            start(address="local", num_cpus=cpus, include_dashboard=False, _node_ip_address="127.0.0.1")
    try:
        if ray.cluster_resources().get("CPU", 0) < 1:  # type: ignore[no-untyped-call]
            raise PlatformError("The Ray cluster has no core.", remedy="Add a node with a core.", component="ray")
        _log.info("Ray: %s.", "joined a running cluster" if how == "joined" else f"started here with {cpus} cores")
        yield how
    finally:
        if is_own:
            ray.shutdown()
