"""Traversal of the objects of a fitted pipeline, to measure its memory and to tune it for small requests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np


def walk(root: Any) -> Iterator[Any]:
    """Iterate over the objects of a fitted pipeline, each once, the root first."""
    seen: set[int] = set()
    pending = [root]
    while pending:
        item = pending.pop()
        if item is None or isinstance(item, bool | int | float | str | type) or id(item) in seen:
            continue
        seen.add(id(item))
        yield item
        if isinstance(item, dict):
            pending.extend(item.values())
        elif isinstance(item, list | tuple | set | frozenset):
            pending.extend(item)
        elif isinstance(item, np.ndarray):
            if item.dtype == object:
                pending.extend(item.ravel())
        else:
            pending.extend(getattr(item, "__dict__", {}).values())


def estimators(root: Any) -> Iterator[Any]:
    """Iterate over the estimators and transformers of a fitted pipeline, including nested ones."""
    return (item for item in walk(root) if hasattr(item, "get_params") and not isinstance(item, type))


def measure_bytes(root: Any) -> int:
    """Measure the bytes of a fitted pipeline; shared objects count once."""
    # Strings and numbers in containers are included. Those that are attributes are not: they are few.
    return sum(_own_bytes(item) for item in walk(root))


def _own_bytes(item: Any) -> int:
    if isinstance(item, np.ndarray):
        # A view keeps all of its base alive.
        return max(item.nbytes, getattr(item.base, "nbytes", 0) if isinstance(item.base, np.ndarray) else 0) + 112
    if type(item).__name__ == "Tree":
        # sys.getsizeof does not include the arrays, which belong to C code.
        state = item.__getstate__()
        return int(state["nodes"].nbytes + state["values"].nbytes) + 200
    if hasattr(item, "get_arrays"):  # a KDTree or BallTree, which has a copy of its points
        return sum(int(np.asarray(array).nbytes) for array in item.get_arrays()) + 200
    if isinstance(item, dict):
        return sys.getsizeof(item) + sum(sys.getsizeof(k) + _scalar_bytes(v) for k, v in item.items())
    if isinstance(item, list | tuple | set | frozenset):
        return sys.getsizeof(item) + sum(_scalar_bytes(value) for value in item)
    return sys.getsizeof(item) + sys.getsizeof(getattr(item, "__dict__", None))


def _scalar_bytes(value: Any) -> int:
    return sys.getsizeof(value) if isinstance(value, str | int | float) else 0


def tune_for_serving(pipeline: Any) -> None:
    """Set ``n_jobs=1`` in all estimators and make arrays C-contiguous, in place."""
    for estimator in estimators(pipeline):
        attributes = vars(estimator)
        # With another n_jobs a forest starts a thread pool on each call, which costs more than a small request.
        if "n_jobs" in attributes:  # None would be as many threads as OpenMP starts
            attributes["n_jobs"] = 1
        if "_n_threads" in attributes:  # KMeans stores the number of cores of the machine that trained it
            attributes["_n_threads"] = 1
        for name, value in attributes.items():
            if isinstance(value, np.ndarray) and value.dtype != object and not value.flags.c_contiguous:
                attributes[name] = np.ascontiguousarray(value)
