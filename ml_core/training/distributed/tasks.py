"""The results of tasks, and the warnings that they gave."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import ray
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError
from threadpoolctl import threadpool_limits

from ml_core.exceptions import ClusterUnavailableError

T = TypeVar("T")


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


def spread(work: Callable[..., T], items: Sequence[tuple[Any, ...]]) -> list[T | Exception]:
    """``work`` called with each of the items in a task of one core; what several items hold is put once.

    Returns:
        The results; a MemoryError in the place of one whose task ran out of memory.

    Raises:
        Exception: As ``gathered``.
    """
    put: dict[int, Any] = {}
    for each in (each for item in items for each in item):
        if id(each) not in put:
            put[id(each)] = ray.put(each)
    refs = [_call.remote(work, *[put[id(each)] for each in item]) for item in items]
    return [_result(ref) for ref in refs]


def _result(ref: Any) -> Any:
    try:
        return gathered(ref)
    except MemoryError as error:
        return error


@ray.remote(num_cpus=1)
def _call(work: Callable[..., T], *arguments: Any) -> T:
    with threadpool_limits(1):
        return work(*arguments)
