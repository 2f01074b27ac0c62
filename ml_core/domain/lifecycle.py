"""The state machine of a version: live, archived, collected.

Archiving hides a version and can be undone. Collection removes the row and the bytes permanently and keeps a tombstone
with the name and the digest. A collected version becomes live again only if identical bytes are registered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from enum import StrEnum

from ml_core.exceptions import InvalidTransitionError


class VersionState(StrEnum):
    """The state of a version."""

    LIVE = "live"
    ARCHIVED = "archived"
    COLLECTED = "collected"


class VersionTrigger(StrEnum):
    """A change of state: ``delete`` is an explicit request, ``collect`` the end of the retention."""

    ARCHIVE = "archive"
    RESTORE = "restore"
    COLLECT = "collect"
    DELETE = "delete"
    REGISTER = "register"


TRANSITIONS: Mapping[tuple[VersionState, VersionTrigger], VersionState] = {
    (VersionState.LIVE, VersionTrigger.ARCHIVE): VersionState.ARCHIVED,
    (VersionState.LIVE, VersionTrigger.RESTORE): VersionState.LIVE,
    (VersionState.LIVE, VersionTrigger.DELETE): VersionState.COLLECTED,
    (VersionState.LIVE, VersionTrigger.REGISTER): VersionState.LIVE,
    (VersionState.ARCHIVED, VersionTrigger.ARCHIVE): VersionState.ARCHIVED,
    (VersionState.ARCHIVED, VersionTrigger.RESTORE): VersionState.LIVE,
    (VersionState.ARCHIVED, VersionTrigger.COLLECT): VersionState.COLLECTED,
    (VersionState.ARCHIVED, VersionTrigger.DELETE): VersionState.COLLECTED,
    (VersionState.ARCHIVED, VersionTrigger.REGISTER): VersionState.ARCHIVED,
    (VersionState.COLLECTED, VersionTrigger.REGISTER): VersionState.LIVE,
}
"""(state, trigger) → state; every other pair is refused. Archive, restore and register are idempotent. A live version
is never collected: it must be archived first."""


def advance(state: VersionState, trigger: VersionTrigger) -> VersionState:
    """The state after a trigger.

    Raises:
        InvalidTransitionError: The state does not permit the trigger; names both.
    """
    following = TRANSITIONS.get((state, trigger))
    if following is None:
        allowed = ", ".join(each for of, each in TRANSITIONS if of is state)
        raise InvalidTransitionError(
            f"A version in the state {state} does not permit {trigger!s}.",
            remedy=f"It permits: {allowed}.",
            phase=str(state),
            trigger=str(trigger),
        )
    return following


def state_of(archived_at: datetime | None) -> VersionState:
    """The state of a version that has a row."""
    return VersionState.LIVE if archived_at is None else VersionState.ARCHIVED


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
