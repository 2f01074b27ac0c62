"""Runs: one training or tuning execution each, with parameters, metric series, tags, files and an outcome.

Versions do not belong here: a version names its run, and a run lists the versions that it made.
"""

from ml_core.domain.run import Run, RunStatus
from ml_core.registry.runs.repository import RunRepository

__all__ = ["Run", "RunRepository", "RunStatus"]
