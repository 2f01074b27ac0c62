"""Training: from a table and a target to a fitted pipeline with proof of its quality, and on to a registered version.

Here belong what makes a table fit for training, the fit itself, metrics, baselines, checkpoints and the run's record.
How columns are understood and encoded belongs to ``ml_core.data``, which estimators exist to ``ml_core.models``, how
versions are kept to ``ml_core.registry``.
"""
