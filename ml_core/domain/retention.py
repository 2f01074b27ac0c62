"""What a collection may remove of a model: archived versions after their retention, children before their parents."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta


def is_due(archived_at: datetime | None, now: datetime, retention: timedelta) -> bool:
    """Whether the retention of an archived version is over; False for a live version."""
    # By the caller's clock, which is the database's: the clocks of processes differ.
    return archived_at is not None and now - archived_at >= retention


def without_needed_parents(due: Mapping[str, int], children: Iterable[tuple[str, str]]) -> list[str]:
    """Select the versions of a model whose children are all collected too.

    Args:
        due: Version → number, of the versions that only a child may still need.
        children: (parent, child) for the parents in ``due``.

    Returns:
        The versions, children before their parents.
    """
    of: dict[str, list[str]] = {}
    for parent, child in children:
        of.setdefault(parent, []).append(child)
    gone: set[str] = set()
    ordered = sorted(due, key=lambda version: -due[version])  # a child has a higher number than its parent
    for version in ordered:
        if all(child in gone for child in of.get(version, ())):
            gone.add(version)
    return [version for version in ordered if version in gone]
