"""Kubernetes objects as pure functions, and one applier. Empty in this release; see the README's "Not there yet"."""
