"""Traversal of the objects of a fitted pipeline, to measure its memory and to tune it for small requests."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from enum import Enum
from types import BuiltinFunctionType, FunctionType
from typing import Any

import numpy as np

_SEQUENCES = (list, tuple, set, frozenset)
# What all models share.
_SHARED = (type, Enum, FunctionType, BuiltinFunctionType)
# Most of what a pipeline refers to. Asked by type, which takes a fifth of the time of ``isinstance``.
_SCALARS = frozenset({bool, int, float, complex, str, bytes, type(None), np.float64, np.float32, np.int64, np.bool_})
_NUMBERS = frozenset({int, float, complex, bytes, np.float64, np.float32, np.int64})

# Measured with CPython 3.11 and NumPy 2: an array without its data; what sys.getsizeof leaves out of a ``__dict__``.
_ARRAY_BYTES = 128
_DICT_BYTES = 144

MAX_NAMES = 256
"""Strings in a container up to which they are names; more are the words of a text."""


def walk(root: Any) -> Iterator[Any]:
    """Iterate over the objects of a fitted pipeline, each once, the root first.

    Without numbers and strings, and without types, functions and members of enums.
    """
    seen: set[int] = set()
    pending = [root]
    while pending:
        item = pending.pop()
        if id(item) in seen or isinstance(item, _SHARED):
            continue
        seen.add(id(item))
        yield item
        pending.extend([each for each in _inside(item) if type(each) not in _SCALARS])


def _inside(item: Any) -> Iterable[Any]:
    """What an object refers to."""
    if isinstance(item, np.ndarray):
        return item.ravel().tolist() if item.dtype == object else ()
    inside: Iterable[Any] = ()
    if isinstance(item, dict):
        inside = item.values()
    elif isinstance(item, _SEQUENCES):
        inside = item
    return (*inside, *_attributes(item))


def _attributes(item: Any) -> Iterable[Any]:
    attributes: dict[str, Any] | None = getattr(item, "__dict__", None)
    if attributes is not None:
        return attributes.values()
    return [getattr(item, name) for name in getattr(type(item), "__slots__", ()) if hasattr(item, name)]


def estimators(root: Any) -> Iterator[Any]:
    """Iterate over the estimators and transformers of a fitted pipeline, including nested ones."""
    return (item for item in walk(root) if hasattr(item, "get_params") and not isinstance(item, type))


def measure_bytes(root: Any) -> int:
    """Measure the bytes of a fitted pipeline, or of other objects; shared objects count once.

    The names of columns and categories are not counted, since models share them: at most ``MAX_NAMES`` in a container.
    """
    return sum(_own_bytes(item) for item in walk(root))


def _own_bytes(item: Any) -> int:
    """The bytes of an object with its numbers and strings."""
    if isinstance(item, np.ndarray):
        own = _ARRAY_BYTES + 16 * item.ndim
        # A view keeps all of its base alive.
        return own + (item.nbytes if item.base is None else getattr(item.base, "nbytes", item.nbytes) + _ARRAY_BYTES)
    if type(item).__name__ == "Tree":
        # sys.getsizeof does not include the arrays, which belong to C code.
        state = item.__getstate__()
        return int(state["nodes"].nbytes + state["values"].nbytes) + 200
    if hasattr(item, "get_arrays"):  # a KDTree or BallTree, which has a copy of its points
        return sum(int(np.asarray(array).nbytes) for array in item.get_arrays()) + 200
    attributes = getattr(item, "__dict__", None)
    size = sys.getsizeof(item) + (0 if attributes is None else sys.getsizeof(attributes) + _DICT_BYTES)
    is_long = isinstance(item, (dict, *_SEQUENCES)) and len(item) > MAX_NAMES
    for each in (*item, *_inside(item)) if is_long and isinstance(item, dict) else _inside(item):
        if type(each) in _NUMBERS or (is_long and type(each) is str):
            size += sys.getsizeof(each)
    return size


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
