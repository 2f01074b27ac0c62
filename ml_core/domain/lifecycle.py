"""The life of a version: live, archived, collected. One table of what may follow what; everything else is refused.

Archiving hides a version and can be undone. Collecting removes it for good: its row and its bytes go, a tombstone with
its name and digest stays. What was collected comes back in one way only: by registering the very same bytes again.
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
    """What can happen to a version: ``delete`` is a person's wish, ``collect`` the end of the retention."""

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
"""(state, trigger) → state. Archiving, restoring and registering again are harmless where nothing changes; a live
version is never collected: somebody archives it first."""


def advance(state: VersionState, trigger: VersionTrigger) -> VersionState:
    """The state after a trigger.

    Raises:
        InvalidTransitionError: The state does not allow it; names both.
    """
    following = TRANSITIONS.get((state, trigger))
    if following is None:
        allowed = ", ".join(each for of, each in TRANSITIONS if of is state)
        raise InvalidTransitionError(
            f"A version that is {state} does not allow {trigger!s}.",
            remedy=f"It allows: {allowed}.",
            phase=str(state),
            trigger=str(trigger),
        )
    return following


def state_of(archived_at: datetime | None) -> VersionState:
    """The state of a version that has a row."""
    return VersionState.LIVE if archived_at is None else VersionState.ARCHIVED


def is_due(archived_at: datetime | None, now: datetime, retention: timedelta) -> bool:
    """Whether a version was archived for the whole retention; a live one never is."""
    return archived_at is not None and now - archived_at >= retention


def without_needed_parents(due: Mapping[str, int], children: Iterable[tuple[str, str]]) -> list[str]:
    """Which versions of a model may go: those whose children all go too.

    Args:
        due: Version → number of those that nothing but a child could need.
        children: (parent, child) of the model, for parents that are due.

    Returns:
        The versions, children before their parents (a child has the higher number).
    """
    of: dict[str, list[str]] = {}
    for parent, child in children:
        of.setdefault(parent, []).append(child)
    gone: set[str] = set()
    ordered = sorted(due, key=lambda version: -due[version])
    for version in ordered:
        if all(child in gone for child in of.get(version, ())):
            gone.add(version)
    return [version for version in ordered if version in gone]
