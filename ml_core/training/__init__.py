"""Training: from a table and a target to a fitted pipeline with proof of its quality, and on to a registered version.

``trainer`` reads in four steps: plan (``plan``, ``request``), fit (``fit``, ``table``, ``targets``), evaluate (``fit``,
``baseline``, ``self_test``), register (``registration``). A job on Ray may fit in tasks: ``strategies`` chooses how,
``distributed`` does it. Inference and encoding of columns belong to ``ml_core.data``, estimators to
``ml_core.models``, stored versions to ``ml_core.registry``.
"""
