"""Tuning of a serving process: threads, scikit-learn and the garbage collector. Not for library calls."""

from __future__ import annotations

import gc
import sys

import sklearn
from threadpoolctl import threadpool_limits

# How long a thread that computes may hold the interpreter lock. The default of 5 ms would be added to the latency of
# answers while a model loads.
_SWITCH_INTERVAL_S = 0.001


def tune_thread() -> None:
    """Tune the calling thread for predictions. scikit-learn and OpenMP keep these settings per thread."""
    # The signature and the encoder have checked the values; training has checked the parameters.
    sklearn.set_config(assume_finite=True, skip_parameter_validation=True)
    # A request computes for microseconds, and other requests use the other processors.
    threadpool_limits(limits=1)


def tune_process() -> None:
    """Tune the process and the calling thread for predictions."""
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    tune_thread()


def freeze_loaded() -> None:
    """Exempt all present objects from garbage collection. Call it after a bulk load."""
    # A full collection would walk all objects of all models, for tens of milliseconds. Models have no cycles, so
    # evicted ones are still freed by their reference counts.
    gc.collect()
    gc.freeze()
