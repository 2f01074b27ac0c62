"""Estimators, artifacts and loaded models.

This package has the algorithms, the artifact formats, the artifact store, and loading. Versions as values are in
``ml_core.domain``, their records in ``ml_core.registry``, fitting in ``ml_core.training``, and requests in
``ml_core.inference``.
"""
