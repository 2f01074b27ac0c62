"""The JSON form of every noun, used by routes, clients, the command line's ``--json`` and the documentation.

Nothing here imports a web framework, so a client can read answers without one.
"""
