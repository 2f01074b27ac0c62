"""Tuning of a loaded pipeline for small requests."""

from __future__ import annotations

from typing import Any

import numpy as np

from ml_core.models.graph import estimators


def tune_for_serving(pipeline: Any) -> None:
    """Set ``n_jobs=1`` in all estimators and make arrays C-contiguous, in place."""
    for estimator in estimators(pipeline):
        attributes = vars(estimator)
        # With another n_jobs a forest starts a thread pool on each call, which costs more than a small request.
        if isinstance(attributes.get("n_jobs"), int):
            attributes["n_jobs"] = 1
        if "_n_threads" in attributes:  # KMeans stores the number of cores of the machine that trained it
            attributes["_n_threads"] = 1
        for name, value in attributes.items():
            if isinstance(value, np.ndarray) and value.dtype != object and not value.flags.c_contiguous:
                attributes[name] = np.ascontiguousarray(value)
