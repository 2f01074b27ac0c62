"""Kubernetes: the objects of KubeRay as pure functions, one applier, the runner of jobs, and the status of a release.

The objects of an installation are those of the chart ``helm/ml-platform``; this package makes those that the platform
creates while it runs. Only this package imports the Kubernetes client.
"""
