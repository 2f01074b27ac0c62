"""Metrics and traces: the hooks that the other packages call, and one module for each backend; a line of a terminal.

What does not belong here: deciding what happens (nothing reads a metric back), logs, and anything of Ray, which carries
the metrics of a replica (``deployments/telemetry.py``). Importing this package imports no backend.
"""

from ml_core.observability.hooks import NO_HOOKS, EndedTraining, Hooks

__all__ = ["NO_HOOKS", "EndedTraining", "Hooks"]
