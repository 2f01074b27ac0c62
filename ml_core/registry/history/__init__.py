"""Prediction history: writing what replicas answered, reading it back, labels that arrive later, and its retention.

How a replica queues what it answered, and what it does while the registry is away, is in
``ml_core.inference.prediction_log``.
"""
