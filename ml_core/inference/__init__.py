"""Online prediction: the model table, the follower, the batcher, the prediction service and its HTTP edge.

Only ``batcher``, ``service`` and ``edge`` are async. The table and the follower use threads and locks, and serve
library calls and replicas alike. This package does no training and no migration, and does not import Ray;
``deployments.cell`` runs it in a Ray Serve replica.
"""
