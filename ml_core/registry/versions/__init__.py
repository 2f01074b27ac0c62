"""Versions and models: registered, searched, compared, annotated, archived and deleted; a version never changes.

What serves a version is in ``promotion``; when archived versions and their bytes are removed, in ``collection``.
"""
