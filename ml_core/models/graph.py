"""Traversal of the objects of a fitted pipeline."""

from __future__ import annotations

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
