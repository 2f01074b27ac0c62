"""Rollouts: the state machine of what an environment serves, and the split of requests between stable and canary.

The stable version answers requests. A canary answers a share of them in its place. A shadow predicts the same rows as
the stable version; its predictions are compared and counted, and never returned.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypedDict

from ml_core.exceptions import InvalidRequestError, InvalidTransitionError, shown
from ml_core.ids import EnvironmentName, VersionId

MIN_PERCENT, MAX_PERCENT = 1, 99
"""The bounds of a canary's share: 0 percent is ``abort``, and 100 percent is ``finish``."""
MAX_STICKY_CHARACTERS = 200
BUCKETS = 10_000
"""The number of buckets of keys; one percent is 100 buckets."""


class Role(StrEnum):
    """What an environment uses a version for."""

    STABLE = "stable"
    CANARY = "canary"
    SHADOW = "shadow"


@dataclass(frozen=True, slots=True)
class Use:
    """An environment that uses a version."""

    environment: EnvironmentName
    role: Role


def used_by(uses: Iterable[Any]) -> list[str]:
    """What environments use a version for, as texts: ``production``, ``staging (canary)``."""
    return [use.environment if use.role == Role.STABLE else f"{use.environment} ({use.role})" for use in uses]


class Phase(StrEnum):
    """The parts of a rollout that an environment has."""

    NOTHING = "nothing"
    STABLE = "stable"
    CANARY = "canary"
    SHADOW = "shadow"
    CANARY_AND_SHADOW = "canary_and_shadow"


class Trigger(StrEnum):
    """The trigger of a move, as recorded in the history of the environment."""

    PROMOTE = "promote"
    ROLLBACK = "rollback"
    WITHDRAW = "withdraw"
    START_CANARY = "start_canary"
    STEP = "step"
    FINISH = "finish"
    ABORT = "abort"
    START_SHADOW = "start_shadow"
    STOP_SHADOW = "stop_shadow"


EVALUATED = frozenset({Trigger.PROMOTE, Trigger.START_CANARY, Trigger.FINISH})
"""The triggers before which gates are evaluated: they let a version answer requests, or all of them."""


class Side(StrEnum):
    """The part of a rollout that answers a request."""

    STABLE = "stable"
    CANARY = "canary"


@dataclass(frozen=True, slots=True)
class Canary:
    """A canary.

    Attributes:
        version: The version.
        percent: The share of keys that it answers, 1 to 99.
        sticky: The column whose value in the first row is the key of a request that sends no key.
    """

    version: VersionId
    percent: int
    sticky: str | None = None


@dataclass(frozen=True, slots=True)
class RolloutState:
    """The rollout of an environment. A canary or shadow requires a stable version."""

    stable: VersionId | None = None
    canary: Canary | None = None
    shadow: VersionId | None = None

    @property
    def phase(self) -> Phase:
        """The phase that follows from the three fields."""
        if self.stable is None:
            return Phase.NOTHING
        if self.canary is None:
            return Phase.STABLE if self.shadow is None else Phase.SHADOW
        return Phase.CANARY if self.shadow is None else Phase.CANARY_AND_SHADOW


@dataclass(frozen=True, slots=True)
class Change:
    """A requested move: the trigger and its arguments."""

    trigger: Trigger
    version: VersionId | None = None
    percent: int | None = None
    sticky: str | None = None


TRANSITIONS: Mapping[tuple[Phase, Trigger], Phase] = {
    (Phase.NOTHING, Trigger.PROMOTE): Phase.STABLE,
    (Phase.NOTHING, Trigger.ROLLBACK): Phase.STABLE,
    (Phase.STABLE, Trigger.PROMOTE): Phase.STABLE,
    (Phase.STABLE, Trigger.ROLLBACK): Phase.STABLE,
    (Phase.STABLE, Trigger.WITHDRAW): Phase.NOTHING,
    (Phase.STABLE, Trigger.START_CANARY): Phase.CANARY,
    (Phase.STABLE, Trigger.START_SHADOW): Phase.SHADOW,
    (Phase.CANARY, Trigger.WITHDRAW): Phase.NOTHING,
    (Phase.CANARY, Trigger.STEP): Phase.CANARY,
    (Phase.CANARY, Trigger.FINISH): Phase.STABLE,
    (Phase.CANARY, Trigger.ABORT): Phase.STABLE,
    (Phase.CANARY, Trigger.START_SHADOW): Phase.CANARY_AND_SHADOW,
    (Phase.SHADOW, Trigger.PROMOTE): Phase.STABLE,
    (Phase.SHADOW, Trigger.ROLLBACK): Phase.STABLE,
    (Phase.SHADOW, Trigger.WITHDRAW): Phase.NOTHING,
    (Phase.SHADOW, Trigger.START_CANARY): Phase.CANARY_AND_SHADOW,
    (Phase.SHADOW, Trigger.STOP_SHADOW): Phase.STABLE,
    (Phase.CANARY_AND_SHADOW, Trigger.WITHDRAW): Phase.NOTHING,
    (Phase.CANARY_AND_SHADOW, Trigger.STEP): Phase.CANARY_AND_SHADOW,
    (Phase.CANARY_AND_SHADOW, Trigger.FINISH): Phase.SHADOW,
    (Phase.CANARY_AND_SHADOW, Trigger.ABORT): Phase.SHADOW,
    (Phase.CANARY_AND_SHADOW, Trigger.STOP_SHADOW): Phase.CANARY,
}
"""(phase, trigger) → phase; every other pair is refused."""


def advance(state: RolloutState, change: Change) -> RolloutState:
    """The state after a move.

    Raises:
        InvalidTransitionError: The trigger is not possible in this phase; names both and the remedy.
        InvalidRequestError: The percent is not 1 to 99, the sticky column is invalid, or the version already has
            another part in the rollout.
    """
    if (state.phase, change.trigger) not in TRANSITIONS:
        raise _refused(state, change.trigger)
    match change.trigger:
        case Trigger.PROMOTE | Trigger.ROLLBACK:
            return RolloutState(_named(change))
        case Trigger.WITHDRAW:
            return RolloutState()
        case Trigger.START_CANARY:
            version = _named(change)
            _refuse_second_part(version, stable=state.stable, shadow=state.shadow)
            canary = Canary(version, _checked_percent(change.percent), _checked_sticky(change.sticky))
            return dataclasses.replace(state, canary=canary)
        case Trigger.STEP:
            return dataclasses.replace(state, canary=_stepped(_canary(state), change.percent))
        case Trigger.FINISH:
            return RolloutState(_canary(state).version, None, state.shadow)
        case Trigger.ABORT:
            return dataclasses.replace(state, canary=None)
        case Trigger.START_SHADOW:
            version = _named(change)
            _refuse_second_part(version, stable=state.stable, canary=state.canary.version if state.canary else None)
            return dataclasses.replace(state, shadow=version)
        case Trigger.STOP_SHADOW:
            return dataclasses.replace(state, shadow=None)


def bucket(pointer: tuple[str, str, str], key: str) -> int:
    """The bucket of a key, 0 to 9,999: constant for a pointer, and independent between pointers.

    A pointer is tenant, model and environment. Requests of one key, such as a customer number, get the same version.
    """
    # No name contains NUL, so different pointers and keys never give the same text.
    text = "\0".join((*pointer, key)).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) % BUCKETS


def choose(pointer: tuple[str, str, str], percent: int, key: str) -> Side:
    """The side that answers a key. A key that the canary answers stays with it while the percent grows."""
    # In integers, so that there is no rounding at the bounds.
    return Side.CANARY if bucket(pointer, key) * 100 < percent * BUCKETS else Side.STABLE


def _named(change: Change) -> VersionId:
    if change.version is None:
        raise InvalidRequestError(f"{change.trigger} needs a version.", remedy="Name one.", field="version")
    return change.version


def _canary(state: RolloutState) -> Canary:
    if state.canary is None:
        raise AssertionError("TRANSITIONS permits these triggers only while a canary runs")
    return state.canary


def _stepped(canary: Canary, percent: int | None) -> Canary:
    wanted = _checked_percent(percent)
    if wanted == canary.percent:
        raise InvalidRequestError(
            f"The canary, version {canary.version!s}, already answers {wanted} percent.",
            remedy="Give another percent; to answer all requests with it, finish the canary.",
            field="percent",
        )
    return dataclasses.replace(canary, percent=wanted)


def _checked_percent(percent: int | None) -> int:
    if type(percent) is not int or not MIN_PERCENT <= percent <= MAX_PERCENT:
        raise InvalidRequestError(
            f"A canary can't answer {shown(percent)} percent of the requests.",
            remedy=f"Give a whole number from {MIN_PERCENT} to {MAX_PERCENT}; for all of them, finish the canary.",
            field="percent",
        )
    return percent


def _checked_sticky(sticky: str | None) -> str | None:
    if sticky is not None and not (0 < len(sticky) <= MAX_STICKY_CHARACTERS and sticky.isprintable()):
        raise InvalidRequestError(
            "The name of the sticky column is not valid.",
            remedy=f"Give 1 to {MAX_STICKY_CHARACTERS} printable characters, or leave it out.",
            field="sticky",
        )
    return sticky


_PART_WORDS = {"stable": "stable version", "canary": "canary", "shadow": "shadow"}


def _refuse_second_part(version: VersionId, **parts: VersionId | None) -> None:
    for part, taken in parts.items():
        if version == taken:
            raise InvalidRequestError(
                f"Version {version!s} is already the {_PART_WORDS[part]}.",
                remedy="Stop the shadow first." if part == "shadow" else "Name another version.",
                field="version",
            )


# By trigger, for phases with a stable version.
_REMEDIES: Mapping[Trigger, str] = {
    **dict.fromkeys((Trigger.PROMOTE, Trigger.ROLLBACK, Trigger.START_CANARY), "Finish or abort the canary first."),
    **dict.fromkeys((Trigger.STEP, Trigger.FINISH, Trigger.ABORT), "Start a canary first."),
    Trigger.START_SHADOW: "Stop the shadow first.",
    Trigger.STOP_SHADOW: "Start a shadow first.",
}
# For triggers of a canary while a shadow runs without a canary.
_REMEDIES_OF_A_SHADOW: Mapping[Trigger, str] = {
    Trigger.STEP: "A shadow answers no requests and has no share. Stop it and start a canary of its version.",
    Trigger.FINISH: "Promote the version of the shadow, which also ends the shadow.",
    Trigger.ABORT: "Stop the shadow.",
}
_WORDS: Mapping[Trigger, str] = {
    Trigger.START_CANARY: "starting a canary",
    Trigger.START_SHADOW: "starting a shadow",
    Trigger.STOP_SHADOW: "stopping the shadow",
}
_SERVED: Mapping[Phase, str] = {
    Phase.NOTHING: "nothing is served",
    Phase.STABLE: "only a stable version is served",
    Phase.CANARY: "a canary runs",
    Phase.SHADOW: "a shadow runs",
    Phase.CANARY_AND_SHADOW: "a canary and a shadow run",
}


def _refused(state: RolloutState, trigger: Trigger) -> InvalidTransitionError:
    phase = state.phase
    remedy = "Promote a version first." if phase is Phase.NOTHING else _REMEDIES.get(trigger)
    if phase is Phase.SHADOW:
        remedy = _REMEDIES_OF_A_SHADOW.get(trigger, remedy)
    return InvalidTransitionError(
        f"{_WORDS.get(trigger, trigger).capitalize()} is not possible while {_SERVED[phase]}.",
        remedy=remedy,
        phase=phase,
        trigger=trigger,
    )


class Moving(TypedDict, total=False):
    """Keywords of every move of a pointer.

    Attributes:
        expected_generation: Refuse unless the pointer has this generation, 0 before its first move; None: any.
        reason: Why; kept with the move.
    """

    expected_generation: int | None
    reason: str


class GatedMoving(Moving, total=False):
    """Keywords of a move that gates may refuse.

    Attributes:
        override: Why it is done although a gate fails; only an admin may.
    """

    override: str | None
