"""Settings of a process that serves: threads, scikit-learn and the garbage collector. Not for a library call."""

from __future__ import annotations

import gc
import sys

import sklearn
from threadpoolctl import threadpool_limits

# The interpreter lock changes hands at most this late while another thread computes: the default of 5 ms would be the
# tail of every answer that is given while a model loads.
_SWITCH_INTERVAL_S = 0.001


def tune_thread() -> None:
    """Prepare a thread that predicts; scikit-learn and OpenMP keep these settings for each thread.

    The signature's check and the encoder leave only finite numbers and valid parameters, so scikit-learn need not look
    again. One BLAS and OpenMP thread: a request computes for microseconds, and its neighbours use the other processors.
    """
    sklearn.set_config(assume_finite=True, skip_parameter_validation=True)
    threadpool_limits(limits=1)


def tune_process() -> None:
    """Prepare the process, and the calling thread for predicting."""
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    tune_thread()


def freeze_loaded() -> None:
    """Exempt what is loaded from garbage collection; to be called after a bulk load.

    A full collection walks every object of every loaded model, for tens of milliseconds. Models hold no cycles, so one
    that is evicted is freed by its reference count all the same.
    """
    gc.collect()
    gc.freeze()
