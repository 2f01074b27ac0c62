"""Gates of an environment: kept as rows, judged before a version is exposed, never while a transaction is open.

What a rule is and what follows from values alone is in ``ml_core.domain``; what a gate must read or predict is fetched
here. Moving pointers belongs to ``ml_core.registry.promotion``.
"""
