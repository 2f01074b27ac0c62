"""Pure values and rules: signatures, versions, rollouts, gates and assignments.

This package does no I/O, reads no clock, and imports no database, model library or web framework.
"""
