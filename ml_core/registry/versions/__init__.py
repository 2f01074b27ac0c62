"""Versions: registered once, searched, compared, annotated, hidden and deleted, never changed.

What they are served by is not here but in ``promotion``; when their bytes go, in ``collection``.
"""
