"""Deletion that is true: what goes, what must stay, and the proof that rows and bytes agree.

``planner`` says what may go and why, as values; ``applier`` removes one of them at a time and asks again, under locks,
before it does; ``collector`` does both for a tenant. ``fsck`` looks for rows without bytes and bytes without rows,
``repair`` mends what can be mended. ``tenant_deletion`` removes a tenant with everything.

A row always goes before its bytes, each in a step of its own. What a crash leaves between the two is an orphan: bytes
that nothing refers to, which the next collection takes.
"""
