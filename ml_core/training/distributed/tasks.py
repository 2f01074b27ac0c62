"""Connection to the Ray cluster that this process is a job of, and the results of tasks."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import ray
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError
from threadpoolctl import threadpool_limits

from ml_core.exceptions import ClusterUnavailableError, PlatformError

T = TypeVar("T")


@contextmanager
def connected(cores: float) -> Iterator[None]:
    """Be a driver of the cluster for the length of the block.

    Raises:
        ClusterUnavailableError: No cluster answers.
        PlatformError: It has fewer cores than the job was given.
    """
    try:
        ray.init(address="auto", configure_logging=False, log_to_driver=False)
    except (RayError, ConnectionError, RuntimeError) as error:
        raise ClusterUnavailableError(
            "The job's process can't connect to the Ray cluster.",
            remedy="See Ray's dashboard and its logs.",
            internal=str(error),
            component="ray",
        ) from error
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
        ray.shutdown()


def gathered(refs: Any) -> Any:
    """The results of tasks.

    Raises:
        MemoryError: A task ran out of memory.
        ClusterUnavailableError: Nodes or workers were lost more often than Ray repeats a task.
        Exception: That of the first task that failed.
    """
    try:
        return ray.get(refs)
    except RayTaskError as error:
        raise error.cause from None
    except OutOfMemoryError as error:
        raise MemoryError("A task of the training ran out of memory.") from error
    except RayError as error:
        raise ClusterUnavailableError(
            f"A task of the training was lost ({type(error).__name__}).",
            remedy="See Ray's dashboard and its logs.",
            internal=str(error),
            component="ray",
        ) from error


def quietly(work: Callable[[], T]) -> tuple[T, list[tuple[type[Warning], str]]]:
    """The result of ``work`` and the warnings that it gave; OpenMP and BLAS use one thread, as in ``Trainer``."""
    with threadpool_limits(1), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = work()
    return result, [(warning.category, str(warning.message)) for warning in caught]


def warn_again(given: list[tuple[type[Warning], str]]) -> None:
    """Give the warnings of tasks in this process, where the training notes them."""
    for category, message in given:
        warnings.warn(message, category, stacklevel=2)
