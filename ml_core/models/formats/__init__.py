"""Artifact formats: one module per format, each with the same two functions, ``dump`` and ``load``.

A format turns a fitted pipeline into bytes and back in visible steps: read, build, audit, construct. Nothing is
constructed before the audit passed. Where the bytes are kept is the business of ``ml_core.models.store``.
"""
