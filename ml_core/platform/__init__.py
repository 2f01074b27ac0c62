"""The embedded platform: PostgreSQL, Ray and Ray Serve on one machine: ``mlcore up``, ``down`` and ``status``.

This package starts processes and communicates with them over sockets. It imports neither Ray nor a web framework.
``deployments`` has the code that the replicas run.
"""
