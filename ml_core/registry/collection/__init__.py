"""Deletion and retention: what is removed, what must stay, and the check that rows and bytes agree.

``planner`` says what may be removed and why, as values; ``collector`` removes one item at a time and checks it again,
under locks. ``fsck`` looks for rows without bytes and bytes without rows, and repairs what can be repaired.
``tenant_deletion`` removes a tenant with everything. What keeps a version is in ``ml_core.registry.references``.

A row is always removed before its bytes, in a step of its own. A crash between the two leaves orphans: bytes without a
row, which the next collection removes.
"""
