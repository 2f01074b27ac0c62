"""The artifact format: ``skops_format.dump`` and ``load`` turn a fitted pipeline into bytes and back.

Each step of loading is a module: ``archive`` reads within bounds, ``audit`` compares the schema with ``allowed_types``,
``building`` constructs, ``native`` checks what compiled code follows. Nothing is constructed before the audit passed.
The bytes are stored by ``ml_core.models.store``.
"""
