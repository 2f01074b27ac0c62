"""Models as things: build an estimator, keep its bytes, and bring the bytes back as a model that may serve.

Here belong the artifact store, the artifact formats, the estimators that the platform offers, loading, and the manager
over them. What a version *is* belongs to ``ml_core.domain``, where it is recorded to ``ml_core.registry``, how it is
fitted to ``ml_core.training``, and how requests reach it to ``ml_core.inference``.
"""
