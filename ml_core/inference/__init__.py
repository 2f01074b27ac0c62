"""Answering: from what the registry says must be served to an answer within its deadline.

The model table, the follower that keeps it current, the batcher, the service that ties them together and the HTTP edge
live here. Async code lives in ``batcher``, ``service`` and ``edge`` only; the table and the follower are threads and
locks, and are the same in a library call and in a replica.

No training, no migration and no Ray belong here; ``deployments.cell`` puts this into a Ray Serve replica.
"""
