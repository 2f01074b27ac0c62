"""Cells: from placements to Ray Serve applications.

``plan`` is a pure function, ``loop`` applies it, and ``serve_api`` is the client of Ray's REST interface. The package
imports no Ray, and knows neither processes nor Kubernetes.
"""
