"""Trainings on a Ray cluster. Beside ``deployments``, only this package imports Ray.

``execution`` connects and turns a strategy into an ``Execution``; ``forest`` grows slices of a forest, ``shards`` and
``merging`` fit on row groups that no process holds together: what they fit equals what one process fits. ``boosting``
is LightGBM through Ray Train. Strategies are chosen in ``ml_core.training.strategies``.
"""
