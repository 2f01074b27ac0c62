"""Runs: one training or tuning execution each, with parameters, metric series, tags, files and an outcome.

Versions do not belong here: a version names its run, and a run is only read together with those that name it.
"""

from ml_core.domain.run import Run, RunQuery, RunStatus, ValueRange
from ml_core.registry.runs.repository import RunRepository

__all__ = ["Run", "RunQuery", "RunRepository", "RunStatus", "ValueRange"]
