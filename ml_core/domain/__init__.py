"""Pure values and rules: what a signature, a version, a rollout and an assignment are.

No I/O and no clock belong here, and nothing that needs a database, a model library or a web framework.
"""
