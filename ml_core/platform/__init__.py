"""The embedded platform: PostgreSQL, Ray and Ray Serve on one machine, started, watched and stopped by one command.

It starts processes and speaks to them over sockets; it imports neither Ray nor a web framework. What the replicas run
is in ``deployments``; what Kubernetes does instead is in ``k8s``.
"""
