"""How many bytes a loaded model occupies."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from ml_core.models.graph import walk


def measure_bytes(root: Any) -> int:
    """Bytes of a fitted pipeline, by walking it; an array or object that is shared inside of it counts once.

    Strings and numbers in containers are counted, those that are attributes of an object are not: they are few.
    """
    return sum(_own_bytes(item) for item in walk(root))


def _own_bytes(item: Any) -> int:
    if isinstance(item, np.ndarray):
        # A view keeps the whole of its base alive.
        return max(item.nbytes, getattr(item.base, "nbytes", 0) if isinstance(item.base, np.ndarray) else 0) + 112
    if type(item).__name__ == "Tree":
        # Its arrays belong to C code, so sys.getsizeof does not see them.
        state = item.__getstate__()
        return int(state["nodes"].nbytes + state["values"].nbytes) + 200
    if hasattr(item, "get_arrays"):  # a search tree of neighbours, which keeps a copy of its points
        return sum(int(np.asarray(array).nbytes) for array in item.get_arrays()) + 200
    if isinstance(item, dict):
        return sys.getsizeof(item) + sum(sys.getsizeof(k) + _scalar_bytes(v) for k, v in item.items())
    if isinstance(item, list | tuple | set | frozenset):
        return sys.getsizeof(item) + sum(_scalar_bytes(value) for value in item)
    return sys.getsizeof(item) + sys.getsizeof(getattr(item, "__dict__", None))


def _scalar_bytes(value: Any) -> int:
    return sys.getsizeof(value) if isinstance(value, str | int | float) else 0
