"""The prediction log: writing what replicas answered, reading it back, labels that arrive later, and retention.

How a replica queues what it answered, and what it does while the registry is unavailable, is in
``ml_core.inference.prediction_log``.
"""

from ml_core.registry.predictions.repository import PredictionRepository

__all__ = ["PredictionRepository"]
