"""Measurement of the memory of a loaded model."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from ml_core.models.graph import walk


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
