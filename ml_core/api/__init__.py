"""The control API: every change of the platform goes through these operations; ``app.create_app`` puts them together.

``schemas`` is the one JSON form of every noun, ``routes`` the operations, one module a noun. An operation parses, asks
one repository and renders; what may be done, and by whom, is decided in ``registry``.
"""
