"""Live quality: how good a version is by the labels that arrived, and how its rows drift from those of its training.

What acts on it is elsewhere: schedules that train on an alert are in ``ml_core.jobs``.
"""

from ml_core.monitoring.quality import Quality

__all__ = ["Quality"]
